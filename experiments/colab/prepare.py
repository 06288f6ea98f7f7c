"""Prepares data sets of TensorFlow Datasets for a notebook, once.

Preparing needs TensorFlow, which Colab's TPU runtime does not have. There a
folder of its own gets TensorFlow, and the notebook's environment stays as it
is. The files get the format array_record, which is read without TensorFlow.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

_PACKAGES = (
  *("tensorflow-cpu>=2.20", "tensorflow-datasets>=4.9.10"),
  *("array_record", "importlib_resources", "scipy"),
)
_PROGRAM = """
import importlib.util
import sys
import tensorflow_datasets as tfds

# array_record exists for Linux only.
found = importlib.util.find_spec("array_record")
for name in sys.argv[1:]:
  builder = tfds.builder(name, file_format="array_record" if found else None)
  builder.download_and_prepare()
"""


def prepare(*sources: str, folder: str = "tensorflow_to_prepare") -> None:
  """Downloads and prepares the data sets that are not prepared yet.

  Args:
    *sources: Sources as in `config.data.source`. Only those that start with
      `tfds:` are prepared.
    folder: Folder for TensorFlow, where the environment has none. You may
      delete it afterwards.
  """
  import tensorflow_datasets as tfds

  names = [s.removeprefix("tfds:") for s in sources if s.startswith("tfds:")]
  names = [name for name in names if not tfds.builder(name).is_prepared()]
  if not names:
    return
  # TensorFlow has a process of its own, in which it sees no GPU.
  environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
  if importlib.util.find_spec("tensorflow") is None:
    path = pathlib.Path(folder).absolute()
    if not path.exists():
      _install(path)
    environment["PYTHONPATH"] = str(path)
  subprocess.run(
    [sys.executable, "-c", _PROGRAM, *names], env=environment, check=True
  )


def _install(path: pathlib.Path) -> None:
  """Installs TensorFlow and what it needs into a new folder."""
  part = path.with_name(f"{path.name}.part")
  pip = (sys.executable, "-m", "pip", "install", "--quiet", "--upgrade")
  subprocess.run([*pip, "--target", str(part), *_PACKAGES], check=True)
  part.rename(path)
