"""Event files of TensorBoard, written without TensorFlow.

TensorBoard's own `EventFileWriter` imports TensorFlow wherever that is
installed, and fails where it is installed but broken. Its record writer and its
messages do not. clu's writers import TensorFlow too, so only their interface is
used here. In a bucket, where no file can grow, a file is written anew.
"""

import collections
import concurrent.futures
import itertools
import os
import socket
import time
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import summary_v2 as scalar_summary
from tensorboard.summary.writer import record_writer
from tensorboard.util import tensor_util

from hatebm_jax import images as images_lib
from hatebm_jax.run import buckets

_serial_number = itertools.count()
# A file in a bucket is written whole at each of these times, and ends when it
# has this many bytes. A new file goes on then.
_SECONDS, _MAX_BYTES = 10.0, 2**22


class EventFile:
  """An event file that grows, written by a thread.

  It has the methods of `clu.metric_writers.MetricWriter` that a run calls, so
  that one of clu's writers can take its place. Each of them raises the error
  of a record that could not be written before.
  """

  def __init__(self, logdir: epath.Path):
    """Makes a new file.

    Args:
      logdir: Path of the folder, which TensorBoard is given as --logdir.

    Raises:
      OSError: If the file cannot be written.
    """
    self._logdir = logdir
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "event_file")
    self._pending = collections.deque()
    self._open()

  def _open(self) -> None:
    """Begins a file."""
    names = f"{socket.gethostname()}.{os.getpid()}.{next(_serial_number)}"
    name = f"events.out.tfevents.{int(time.time()):010d}.{names}"
    self._path = self._logdir / name
    self._file = _opened(self._path)
    self._records = record_writer.RecordWriter(self._file)
    self._write(event_pb2.Event(file_version="brain.Event:2"))

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes numbers.

    Args:
      step: Training step.
      scalars: Numbers by their names.
    """
    summary = summary_pb2.Summary()
    for name, value in scalars.items():
      summary.value.extend(scalar_summary.scalar_pb(name, value).value)
    self._submit(self._write_summary, step, summary)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes images.

    Args:
      step: Training step.
      images: uint8 `[n, height, width, 1 or 3]` by their names.
    """
    self._submit(self._write_images, step, images)

  def flush(self) -> None:
    """Waits until everything is written."""
    while self._pending:
      self._pending.popleft().result()

  def close(self) -> None:
    """Writes everything and closes the file."""
    try:
      self.flush()
    finally:
      self._thread.shutdown()
      self._records.close()

  def _submit(self, function, *args) -> None:
    while self._pending and self._pending[0].done():
      self._pending.popleft().result()  # It raises the error if there was one.
    self._pending.append(self._thread.submit(function, *args))

  def _write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    values = [_image_value(name, batch) for name, batch in images.items()]
    self._write_summary(step, summary_pb2.Summary(value=values))

  def _write_summary(self, step: int, summary: summary_pb2.Summary) -> None:
    self._write(event_pb2.Event(step=int(step), summary=summary))

  def _write(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    try:
      self._records.write(event.SerializeToString())
      self._records.flush()  # A run may be killed at any time.
      if isinstance(self._file, _Object) and self._file.is_full():
        self._records.close()
        self._open()
    except OSError as error:
      raise OSError(f"{self._path}: {error}") from error


class _Object:
  """A file in a bucket, which grows by being written anew."""

  def __init__(self, path: buckets.BucketPath):
    self._path = path
    self._content = bytearray()
    self._written = float("-inf")

  def write(self, content: bytes) -> None:
    """Adds bytes."""
    self._content += content

  def is_full(self) -> bool:
    """Returns whether another file should go on."""
    return len(self._content) >= _MAX_BYTES

  def flush(self) -> None:
    """Writes the file, unless it was written a moment ago."""
    if time.monotonic() - self._written >= _SECONDS:
      self.close()

  def close(self) -> None:
    """Writes the file."""
    self._path.write_bytes(bytes(self._content))
    self._written = time.monotonic()


def _opened(path: epath.Path) -> IO[bytes] | _Object:
  """Returns a new file that the record writer can write into."""
  return _Object(path) if buckets.is_bucket(path) else path.open("wb")


def _image_value(name: str, batch: np.ndarray) -> summary_pb2.Summary.Value:
  """Returns images as TensorBoard's plugin of images reads them."""
  height, width = batch.shape[1:3]
  encoded = map(images_lib.to_png, batch)
  tensor = tensor_util.make_tensor_proto(
    [str(width).encode(), str(height).encode(), *encoded]
  )
  metadata = image_metadata.create_summary_metadata(None, None)
  return summary_pb2.Summary.Value(tag=name, tensor=tensor, metadata=metadata)
