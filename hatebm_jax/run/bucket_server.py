"""How the server of a bucket is asked, and for how long.

The requests go through fsspec: `gcsfs` for `gs://`, `s3fs` for `s3://`. Both
try a failed request again, for half a minute or longer. Then an `OSError` says
what failed. A run that ends for this reason still closes its files. So that
this does not take as long again for each file, a server that has failed must
answer a small question first.
"""

import contextlib
import functools
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

ANSWER_SECONDS = 8.0
_CONNECT_SECONDS = 5.0
# A server that is silent for so long has not got the request, or cannot answer.
_SILENT_SECONDS = 10.0
# The buckets whose last request has failed, and why.
_failed: dict[tuple[str, str], str] = {}


def filesystem(path: epath.PathLike) -> Any:
  """Returns fsspec's file system of a path in a bucket."""
  return _filesystem(_parts(path)[0])


@functools.cache
def _filesystem(scheme: str) -> Any:
  import fsspec

  # What fails is raised, and needs no log with a traceback besides.
  for name in ("gcsfs", "s3fs", "fsspec"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  # These defaults also hold for what etils makes.
  names = ("s3",) if scheme == "s3" else ("gs", "gcs")
  for name in names:
    defaults = fsspec.config.conf.setdefault(name, {})
    for key, value in _options(scheme).items():
      defaults.setdefault(key, value)
  store = epath.backend.fsspec_backend.fs(f"{scheme}://")
  if scheme == "s3":
    store.retries = 2  # Each of these is all that botocore tries.
  return store


def _options(scheme: str) -> dict[str, Any]:
  """Returns options of fsspec's file system, and sets those of TensorStore."""
  # fsspec would remember lists of names. Other processes write into a run too,
  # and so does TensorStore.
  options = {"use_listings_cache": False}
  if scheme == "s3":
    return options | {
      "config_kwargs": {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _SILENT_SECONDS,
        # The pauses are up to 1, 2, 4, 8, 16 and 32 seconds. The mode
        # `standard` does not repeat what is answered by 429.
        "retries": {"mode": "legacy", "max_attempts": 6},
      }
    }
  # gcsfs and TensorStore would wait forever for a server that is silent.
  for name, value in (
    ("CONNECT_TIMEOUT_SECONDS", _CONNECT_SECONDS),
    ("LOW_SPEED_TIME_SECONDS", _SILENT_SECONDS),
    ("LOW_SPEED_LIMIT_BYTES", 1),
  ):
    os.environ.setdefault(f"TENSORSTORE_CURL_{name}", f"{value:g}")
  return options | {
    "requests_timeout": importlib.import_module("aiohttp").ClientTimeout(
      sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS
    )
  }


def list_one(scheme: str, bucket: str, key: str) -> None:
  """Asks for the first name in a bucket that begins with a key."""
  store = filesystem(f"{scheme}://{bucket}")
  if scheme == "s3":
    store.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
  else:
    store.call("GET", "b/{}/o", bucket, prefix=key, maxResults=1)


def in_time(function: Callable[[], Any]) -> tuple[str, Exception | None]:
  """Calls a function; returns `done`, `failed` or `late`, and its error."""
  outcome = []

  def call():
    try:
      outcome.append(("done", function()))
    except Exception as error:
      outcome.append(("failed", error))

  thread = threading.Thread(target=call, name="bucket", daemon=True)
  thread.start()
  thread.join(ANSWER_SECONDS)
  status, result = outcome[0] if outcome else ("late", None)
  return status, result if status == "failed" else None


def one_line(error: BaseException) -> str:
  """Returns the kind of an error and the beginning of its message."""
  text = " ".join(str(error).split())
  if isinstance(error, TimeoutError) and not text:
    return "it did not answer in time"
  return f"{type(error).__name__}: {text[:300]}" if text else repr(error)


@contextlib.contextmanager
def explained(path: epath.PathLike) -> Iterator[None]:
  """Turns the errors of the packages for buckets into an OSError.

  If the last request to the bucket has failed, the server must show first that
  it answers.

  Args:
    path: Path in the bucket that the requests of the block are about.

  Raises:
    FileNotFoundError: If there is no such object.
    FileExistsError: If there is one, and there should be none.
    OSError: If the server fails.
  """
  scheme, bucket, key = _parts(path)
  if reason := _failed.get((scheme, bucket)):
    status, _ = in_time(lambda: list_one(scheme, bucket, key))
    if status == "late":
      raise OSError(
        f"{path}: the server of the bucket failed ({reason}), and has not "
        f"answered within {ANSWER_SECONDS:g} s since"
      )
    _failed.pop((scheme, bucket), None)
  try:
    yield
  except FileNotFoundError as error:
    raise FileNotFoundError(f"{path} is not there") from error
  except FileExistsError as error:
    raise FileExistsError(f"{path} is there already") from error
  except Exception as error:
    reason = _failed[scheme, bucket] = one_line(error)
    raise OSError(
      f"{path}: the server of the bucket failed ({reason})"
    ) from error


def _parts(path: epath.PathLike) -> tuple[str, str, str]:
  """Returns the scheme, the bucket and the key of a path."""
  scheme, _, name = os.fspath(path).partition("://")
  bucket, _, key = name.partition("/")
  return scheme, bucket, key
