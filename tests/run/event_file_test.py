"""TensorBoard reads what a run writes, and TensorFlow has no part in it."""

import importlib
import inspect
import io
import re

import child
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from hatebm_jax.run import event_file, files

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (2, 5, 7, 1), np.uint8)
COLOUR = RNG.integers(0, 256, (1, 9, 4, 3), np.uint8)


def write(folder):
  file = event_file.EventFile(files.as_path(folder))
  file.write_scalars(1, {"gap": 0.5, "loss": np.float32(2.0)})
  file.write_images(10, {"gray": GRAY, "colour": COLOUR})
  file.write_scalars(2**40, {"gap": -1})
  file.close()


def read(folder):
  """Returns (step, value) of each tag, as TensorBoard's own reader sees it."""
  events = event_accumulator.EventAccumulator(str(folder)).Reload()
  return {
    tag: [
      (x.step, tensor_util.make_ndarray(x.tensor_proto))
      for x in events.Tensors(tag)
    ]
    for tag in events.Tags()["tensors"]
  }, {
    tag: events.SummaryMetadata(tag).plugin_data.plugin_name
    for tag in events.Tags()["tensors"]
  }


def test_tensorboard_reads_numbers_and_images(tmp_path):
  write(tmp_path)
  values, plugins = read(tmp_path)
  assert values["gap"] == [(1, 0.5), (2**40, -1.0)]
  assert values["loss"] == [(1, 2.0)]
  images = {"gray": "images", "colour": "images"}
  assert plugins == {"gap": "scalars", "loss": "scalars", **images}
  for name, batch in {"gray": GRAY, "colour": COLOUR}.items():
    ((step, (width, height, *encoded)),) = values[name]
    assert step == 10
    assert (int(height), int(width)) == batch.shape[1:3]
    assert len(encoded) == len(batch)
    for png, image in zip(encoded, batch, strict=True):
      found = np.asarray(Image.open(io.BytesIO(png)))
      np.testing.assert_array_equal(found.reshape(image.shape), image)


def clu_writers():
  pytest.importorskip("tensorflow")  # clu's writers import it.
  return importlib.import_module("clu.metric_writers")


def test_files_are_what_clu_writes(tmp_path):
  metric_writers = clu_writers()
  writer = metric_writers.SummaryWriter(str(tmp_path / "clu"))
  writer.write_scalars(1, {"gap": 0.5, "loss": np.float32(2.0)})
  writer.write_images(10, {"gray": GRAY, "colour": COLOUR})
  writer.write_scalars(2**40, {"gap": -1})
  writer.close()
  write(tmp_path)
  theirs, their_plugins = read(tmp_path / "clu")
  values, plugins = read(tmp_path)
  assert plugins == their_plugins
  for tag in ("gap", "loss"):
    assert values[tag] == theirs[tag]
  for tag in ("gray", "colour"):
    # Sizes, and as many images; two encoders may write other bytes.
    assert values[tag][0][1][:2].tolist() == theirs[tag][0][1][:2].tolist()
    assert values[tag][0][1].shape == theirs[tag][0][1].shape


def test_the_methods_are_those_of_clus_interface():
  metric_writers = clu_writers()
  names = [x for x in vars(event_file.EventFile) if not x.startswith("_")]
  assert {"write_scalars", "write_images", "flush", "close"} == set(names)
  for name in names:
    ours, theirs = (
      list(inspect.signature(getattr(x, name)).parameters)
      for x in (event_file.EventFile, metric_writers.MetricWriter)
    )
    assert ours == theirs


def test_two_files_of_one_process_have_two_names(tmp_path):
  write(tmp_path)
  write(tmp_path)
  names = [path.name for path in tmp_path.iterdir()]
  assert len(names) == 2
  assert all(re.match(r"events\.out\.tfevents\.\d{10}\.", x) for x in names)


def test_everything_is_there_while_the_file_is_open(tmp_path):
  file = event_file.EventFile(files.as_path(tmp_path))
  file.write_scalars(3, {"gap": 0.5})
  file.flush()
  assert read(tmp_path)[0] == {"gap": [(3, 0.5)]}
  file.close()


def test_an_error_of_the_disk_is_raised(tmp_path):
  code = f"""
import pathlib, resource
from hatebm_jax.run import event_file, files
file = event_file.EventFile(pathlib.Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
  for step in range(100):
    file.write_scalars(step, {{"gap": 0.5}})
  file.flush()
except OSError as error:
  print(error)
"""
  error = child.python(code)
  assert re.search(r"events\.out\.tfevents.*File too large", error)


@pytest.mark.parametrize("kind", ["missing", "broken", "there"])
def test_tensorflow_is_not_imported(tmp_path, kind):
  (tmp_path / "modules").mkdir()
  if kind == "broken":
    path = tmp_path / "modules" / "tensorflow.py"
    path.write_text('raise RuntimeError("broken")')
  code = f"""
{child.HIDE_TENSORFLOW if kind == "missing" else ""}
import pathlib, sys
import numpy as np
from hatebm_jax.run import event_file, files
file = event_file.EventFile(pathlib.Path({str(tmp_path)!r}))
file.write_scalars(1, {{"gap": 0.5}})
file.write_images(1, {{"grid": np.zeros((1, 4, 4, 3), np.uint8)}})
file.close()
print("tensorflow" in sys.modules)
if {kind == "missing"}:
  from tensorboard.backend.event_processing import event_accumulator
  events = event_accumulator.EventAccumulator({str(tmp_path)!r}).Reload()
  print(sorted(events.Tags()["tensors"]))
"""
  lines = child.python(code, tmp_path / "modules").splitlines()
  assert lines[0] == "False"
  assert kind != "missing" or lines[1] == "['gap', 'grid']"
