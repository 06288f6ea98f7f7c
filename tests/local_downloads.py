"""Small files in the place where TensorFlow Datasets keeps its downloads.

It finds them there under the names of the true files, and downloads nothing.
"""

import io
import json
import tarfile

import numpy as np
from scipy import io as scipy_io

COUNT = 40  # Number of images in each file.
_CIFAR10 = (
  *(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
  "cifar-10-batches-bin/test_batch.bin",
  "cifar-10-batches-bin/batches.meta.txt",
)
_CIFAR100 = (
  *("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
  "cifar-100-binary/coarse_label_names.txt",
  "cifar-100-binary/fine_label_names.txt",
)
_NUM_NAMES = {
  "batches.meta.txt": 10,
  "coarse_label_names.txt": 20,
  "fine_label_names.txt": 100,
}


def _cifar(rng, files, num_labels):
  """Returns a .tar.gz with files of CIFAR's binary format."""
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode="w:gz") as tar:
    for file in files:
      rows = rng.integers(0, 256, (COUNT, num_labels + 3 * 32 * 32), np.uint8)
      rows[:, :num_labels] = 1
      num_names = _NUM_NAMES.get(file.split("/")[1], 0)
      names = "\n".join(f"name {i}" for i in range(num_names))
      content = rows.tobytes() if file.endswith(".bin") else names.encode()
      entry = tarfile.TarInfo(file)
      entry.size = len(content)
      tar.addfile(entry, io.BytesIO(content))
  return packed.getvalue()


def _svhn(rng):
  """Returns a .mat file of SVHN's format."""
  packed = io.BytesIO()
  images = rng.integers(0, 256, (32, 32, 3, COUNT), np.uint8)
  scipy_io.savemat(packed, {"X": images, "y": np.ones((COUNT, 1), np.uint8)})
  return packed.getvalue()


def write(data_dir):
  """Writes the downloads of cifar10, cifar100 and svhn_cropped.

  Args:
    data_dir: Folder of prepared data sets, `TFDS_DATA_DIR`.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import resource

  rng = np.random.default_rng(0)
  contents = {
    "cifar10": lambda: _cifar(rng, _CIFAR10, 1),
    "cifar100": lambda: _cifar(rng, _CIFAR100, 2),
    "svhn_cropped": lambda: _svhn(rng),
  }
  for name, make in contents.items():
    folder = data_dir / "downloads" / name
    folder.mkdir(parents=True)
    for url, info in tfds.builder(name, data_dir=data_dir).url_infos.items():
      file = folder / resource.get_dl_fname(url, info.checksum)
      file.write_bytes(make())
      about = {"dataset_names": [name], "urls": [url]}
      file.with_name(f"{file.name}.INFO").write_text(json.dumps(about))
