"""Measures how many images per second the data readers deliver.

python experiments/speed/decoding.py FOLDER OUT.json

FOLDER holds 32x32 images such as those of CIFAR-10. The script reads them as
they are, and as 480x352 mosaics of them (JPEG, quality 90) that stand in for
photographs. It reads both from folders and from TensorFlow data sets that hold
the same bytes. The result is a table as JSON.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from hatebm_jax import data
from hatebm_jax.configs import imagenet128

_COLUMNS, _ROWS = 15, 11
_NUM_MOSAICS = 600
_NUM_SMALL = 10_000
_SECONDS = 8.0  # length of each measurement, after the first batch
_BATCH = 128


def _images(folder: pathlib.Path, num: int) -> list[pathlib.Path]:
  files = sorted(folder.rglob("*.jp*g")) + sorted(folder.rglob("*.png"))
  return files[:num]


def _make_mosaics(files: list[pathlib.Path], out: pathlib.Path) -> None:
  """Writes mosaics that consist of small images."""
  rng = np.random.default_rng(0)
  for i in range(_NUM_MOSAICS):
    mosaic = Image.new("RGB", (32 * _COLUMNS, 32 * _ROWS))
    chosen = rng.choice(len(files), _COLUMNS * _ROWS)
    for place, index in enumerate(chosen):
      with Image.open(files[index]) as tile:
        mosaic.paste(tile, (place % _COLUMNS * 32, place // _COLUMNS * 32))
    mosaic.save(out / f"{i:04d}.jpg", quality=90)


def _store(files: list[pathlib.Path], name: str, out: pathlib.Path) -> None:
  """Stores images as a TensorFlow data set."""
  tfds.dataset_builders.store_as_tfds_dataset(
    name,
    version="1.0.0",
    features=tfds.features.FeaturesDict(
      {"image": tfds.features.Image(shape=(None, None, 3))}
    ),
    split_datasets={
      "train": [(i, {"image": str(file)}) for i, file in enumerate(files)]
    },
    data_dir=str(out),
    disable_shuffling=True,
  )


def _rate(source: str, size: int, crop: str, cache: float, directory) -> float:
  """Returns how many images per second `data.batches` delivers."""
  config = imagenet128.get_config().data
  config.unlock()
  config.update(
    source=source,
    image_size=size,
    crop=crop,
    jpeg_dct="accurate",
    cache_gib=cache,
    data_dir=str(directory),
  )
  batches = data.batches(data.open_source(config), _BATCH, seed=0)
  next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < _SECONDS:
    count += len(next(batches))
  seconds = time.perf_counter() - start
  batches.close()
  return count / seconds


def main() -> None:
  """Measures all readers and prints the rates as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    work = pathlib.Path(temporary)
    small, large = work / "small", work / "large"
    large.mkdir()
    files = _images(args.folder, _NUM_SMALL)
    _make_mosaics(files, large)
    small.mkdir()
    for i, file in enumerate(files):
      (small / f"{i:05d}{file.suffix}").symlink_to(file.absolute())
    _store(files, "small", work)
    _store(_images(large, _NUM_MOSAICS), "large", work)
    cases = {
      "32x32": (small, "small", 32, "center"),
      "480x352 to 128x128, random crop": (large, "large", 128, "random"),
    }
    result = {
      title: {
        f"{kind}, {'cached' if cache else 'read as needed'}": round(
          _rate(source, size, crop, cache, work)
        )
        for kind, source in (
          ("folder", f"folder:{folder}"),
          ("tfds", f"tfds:{name}"),
        )
        for cache in (0.0, 8.0)
      }
      for title, (folder, name, size, crop) in cases.items()
    }
  text = json.dumps(result, indent=2)
  args.out.write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  main()
