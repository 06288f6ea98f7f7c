"""Measures how many images a second a core brings to a run.

python experiments/feeding/measure.py WORK OUT.json [PART ...]

The script makes photographs of the size of ImageNet's, 500x375, JPEG of quality
90: windows of the photographs that scikit-learn and matplotlib ship. It also
makes mosaics of scikit-learn's digits. It prepares them at 128 pixels and
measures these parts, or only those that are named:

- `decode`: a folder of JPEGs as a run reads it, decoded in threads.
- `prepared`: shuffled batches of prepared images, from a cold and from a warm
  page cache.

Rates stand for a second of the clock and for a second of CPU time, in which the
kernel's work for the process is counted. The second number is that of one core
that has nothing else to do.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import time
from collections.abc import Iterator

import matplotlib
import numpy as np
import sklearn
from PIL import Image

from hatebm_jax import data
from hatebm_jax.configs import imagenet128
from hatebm_jax.data import prepare

_BATCH = 128
_NUM_PHOTOGRAPHS = 400
_NUM_PREPARED = 4096  # images in the prepared set, 0.2 GB
_SHAPE = 500, 375  # width and height, the usual size in ImageNet


def _photographs(folder: pathlib.Path) -> None:
  """Writes windows of real photographs."""
  sklearn_images = pathlib.Path(sklearn.__path__[0], "datasets", "images")
  files = [
    sklearn_images / "china.jpg",
    sklearn_images / "flower.jpg",
    pathlib.Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg"),
  ]
  originals = [Image.open(file).convert("RGB") for file in files]
  rng = np.random.default_rng(0)
  for i in range(_NUM_PHOTOGRAPHS):
    image = originals[i % len(originals)]
    side = min(image.width / _SHAPE[0], image.height / _SHAPE[1])
    scale = side * rng.uniform(0.7, 1)
    width, height = (scale * x for x in _SHAPE)
    left = rng.uniform(0, image.width - width)
    top = rng.uniform(0, image.height - height)
    box = left, top, left + width, top + height
    window = image.resize(_SHAPE, Image.Resampling.BICUBIC, box)
    window.save(folder / f"{i:05d}.jpg", quality=90)


def _mosaics(folder: pathlib.Path) -> None:
  """Writes mosaics of digits."""
  digits = data.load_all(data.open_source(_config("digits", 32, 0)))
  rng = np.random.default_rng(0)
  for i in range(_NUM_PHOTOGRAPHS):
    tiles = digits[rng.choice(len(digits), (12, 16))]
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(12 * 32, 16 * 32, 3)
    whole = whole[: _SHAPE[1], : _SHAPE[0]]
    Image.fromarray(whole).save(folder / f"{i:05d}.jpg", quality=90)


def _many(folder: pathlib.Path, photographs: pathlib.Path) -> None:
  """Links the photographs under many names."""
  files = sorted(photographs.iterdir())
  for i in range(_NUM_PREPARED):
    os.link(files[i % len(files)], folder / f"{i:05d}.jpg")


def _config(source, size=128, cache=0.0, dct="fast"):
  """Returns the group `data` of imagenet128 with other values."""
  config = imagenet128.get_config().data
  config.unlock()
  config.update(source=source, image_size=size, cache_gib=cache)
  config.update(crop="center", jpeg_dct=dct)
  return config


def _cpu_seconds() -> float:
  """Returns CPU time of this process."""
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def _rate(batches: Iterator[np.ndarray], num: int) -> dict[str, float]:
  """Takes batches and returns images a second."""
  wall, cpu, count = time.perf_counter(), _cpu_seconds(), 0
  for _ in range(num):
    count += len(next(batches))
  batches.close()
  wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
  return {
    "images": count,
    "per_second": round(count / wall),
    "per_cpu_second": round(count / cpu),
  }


def _drop(folder: pathlib.Path) -> None:
  """Drops the files of a folder from the page cache."""
  os.sync()
  for path in folder.rglob("*"):
    if path.is_file():
      with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _of_source(config, num: int) -> dict[str, float]:
  return _rate(data.batches(data.open_source(config), _BATCH, seed=0), num)


def _prepared(work: pathlib.Path) -> dict[str, dict[str, float]]:
  many, out = work / "many", work / "prepared"
  config = _config(f"folder:{many}")
  cpu, wall = _cpu_seconds(), time.perf_counter()
  prepare.prepare(config, "train", str(out))
  cpu, wall = _cpu_seconds() - cpu, time.perf_counter() - wall
  config.source = f"prepared:{out}"
  result = {
    "preparing": {
      "images": _NUM_PREPARED,
      "per_second": round(_NUM_PREPARED / wall),
      "per_cpu_second": round(_NUM_PREPARED / cpu),
    }
  }
  num = _NUM_PREPARED // _BATCH - 4  # No image is read twice.
  for name in ("cold", "warm"):
    if name == "cold":
      _drop(out)
    result[name] = _of_source(config, num)
  return result


def _machine() -> dict[str, str | int]:
  with open("/proc/cpuinfo") as file:
    model = next(x for x in file if x.startswith("model name"))
  return {
    "processor": model.split(":")[1].strip(),
    "cores": os.cpu_count(),
    "load_average": round(os.getloadavg()[0], 1),
    "nice": os.nice(0),
    "python": platform.python_version(),
    "pillow": importlib.metadata.version("pillow"),
    "simplejpeg": importlib.metadata.version("simplejpeg"),
    "array_record": importlib.metadata.version("array_record"),
  }


def main() -> None:
  """Measures the parts and adds them to the file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("work", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("parts", nargs="*")
  args = parser.parse_args()
  makers = {
    "photographs": _photographs,
    "mosaics": _mosaics,
    "many": lambda folder: _many(folder, args.work / "photographs"),
  }
  for name, make in makers.items():
    if not (args.work / name).exists():
      (args.work / name).mkdir(parents=True)
      make(args.work / name)
  kinds = "photographs", "mosaics"
  parts = {
    "decode": lambda: {
      f"{kind}, {dct}": _of_source(
        _config(f"folder:{args.work / kind}", dct=dct), 3
      )
      for kind in kinds
      for dct in ("accurate", "fast")
    },
    "prepared": lambda: _prepared(args.work),
  }
  text = args.out.read_text() if args.out.exists() else "{}"
  result = json.loads(text)
  for part in args.parts or parts:
    result[part] = {"machine": _machine(), **parts[part]()}
    text = json.dumps(result, indent=2)
    args.out.write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  main()
