"""Measures how many images a second one core and two bring to a run.

python experiments/feeding/measure.py WORK OUT.json [--grain]

The script makes photographs of the size of ImageNet's, 500x375, JPEG of quality
90: windows of the photographs that scikit-learn and matplotlib ship. It also
makes mosaics of scikit-learn's digits. It prepares the photographs at 128
pixels. Then it measures shuffled batches: of the JPEGs, which a run decodes in
threads; of the prepared images, from a cold and from a warm page cache; and,
with --grain, of the JPEGs that worker processes of grain decode.

Each of two processes, of which one may use one core and the other one two,
measures each case by turns. Rates stand for a second of the clock and for a
second of CPU time, in which the kernel's work for the processes is counted. The
second number is that of one core that has nothing else to do. Where other
programs use the cores too, the clock does not show whether two cores add up. So
the threads are counted that run or wait for a core: a thread that waits for
Python's global lock, or for the disk, is not among them.
"""

import argparse
import concurrent.futures
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Iterator

import matplotlib
import numpy as np
import psutil
import sklearn
from PIL import Image

from hatebm_jax import data
from hatebm_jax.configs import imagenet128
from hatebm_jax.data import decode, prepare

_BATCH = 128
_NUM_PHOTOGRAPHS = 400
_NUM_PREPARED = 8192  # images in the prepared set, 0.4 GB
_IMAGES_PER_FILE = 128  # so that a batch has images of most of 64 files
_SHAPE = 500, 375  # width and height, the usual size in ImageNet
_TURNS = 3  # for each case; 1 for grain, whose workers take long to start
_DECODED, _READ = 8, 32  # batches that are counted in a turn


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


def _scheduled() -> np.ndarray:
  """Returns the seconds that all threads ran, and waited for a core.

  Threads of this process and of those that it has started are counted.
  """
  own = psutil.Process()
  total = np.zeros(2)
  for process in (own, *own.children(recursive=True)):
    for file in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
      total += np.array(file.read_text().split()[:2], float) / 1e9
  return total


def _rate(batches: Iterator[np.ndarray], num: int) -> dict[str, float]:
  """Takes batches; returns rates and how many threads ran or could have run."""
  disk = psutil.Process().io_counters().read_bytes
  wall, threads = time.perf_counter(), _scheduled()
  count = sum(len(x) for x in itertools.islice(batches, num))
  wall, threads = time.perf_counter() - wall, _scheduled() - threads
  disk = psutil.Process().io_counters().read_bytes - disk
  return {
    "per_second": count / wall,
    "per_cpu_second": count / float(threads[0]),
    "cores_used": float(threads[0]) / wall,
    "threads_ready": float(threads.sum()) / wall,
    "disk_kb_per_image": disk / count / 1e3,
  }


def _decoded(folder: pathlib.Path, dct: str, turn: int) -> dict[str, float]:
  """Measures a folder of JPEGs that threads decode."""
  source = data.open_source(_config(f"folder:{folder}", dct=dct))
  batches = data.batches(source, _BATCH, seed=turn)
  next(batches)
  result = _rate(batches, _DECODED)
  batches.close()
  return result


def _grain(folder: pathlib.Path, workers: int, turn: int) -> dict[str, float]:
  """Measures a folder of JPEGs that worker processes of grain decode."""
  import grain
  from absl import flags

  flags.FLAGS.mark_as_parsed()  # grain reads flags of its own.
  config = _config(f"folder:{folder}")
  paths = sorted(folder.iterdir())
  batches = iter(
    grain.MapDataset.source(paths)
    .shuffle(seed=turn)
    .repeat()
    .map(lambda path: decode.decode(path.read_bytes(), config, None, True))
    .to_iter_dataset(grain.ReadOptions(num_threads=1))
    .batch(_BATCH)
    .mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
  )
  for _ in range(4):  # The workers start, and fill their buffers.
    next(batches)
  return _rate(batches, 4 * _DECODED)


def _prepared(
  folder: pathlib.Path, is_cold: bool, turn: int
) -> dict[str, float]:
  """Measures prepared images, none of which is read twice."""
  source = data.open_source(_config(f"prepared:{folder}"))
  # All files are opened, as they are after the first steps of a run.
  source.images(range(0, source.num_images, _IMAGES_PER_FILE))
  _drop(folder)
  if not is_cold:
    for path in folder.rglob("*.array_record"):
      path.read_bytes()
  batches = data.batches(source, _BATCH, seed=turn)
  result = _rate(batches, _READ)
  batches.close()
  return result


def _drop(folder: pathlib.Path) -> None:
  """Drops the files of a folder from the page cache."""
  for path in folder.rglob("*"):
    if path.is_file():
      with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _pin(num_cores: int) -> None:
  """Lets this process use that many cores."""
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:num_cores])


def _by_turns(cases) -> dict[str, dict]:
  """Measures each case with one core and with two; returns the medians.

  Args:
    cases: Functions and their arguments by the names of the cases. An argument
      that is a function gets the number of cores.
  """
  context = multiprocessing.get_context("spawn")
  pools = {
    cores: concurrent.futures.ProcessPoolExecutor(1, context, _pin, (cores,))
    for cores in (1, 2)
  }
  result = {}
  for name, (function, *arguments) in cases.items():
    found = {cores: [] for cores in pools}
    turns = 1 if function is _grain else _TURNS
    for turn, cores in itertools.product(range(turns), pools):
      values = [cores if x is None else x for x in arguments]
      future = pools[cores].submit(function, *values, turn)
      found[cores].append(future.result())
    result[name] = {
      f"{cores} cores": {
        key: round(statistics.median(x[key] for x in values), 2)
        for key in values[0]
      }
      for cores, values in found.items()
    }
    one, two = (x["per_second"] for x in result[name].values())
    result[name]["two_over_one"] = round(two / one, 2)
    print(name, result[name], flush=True)
  return result


def _prepare(work: pathlib.Path) -> dict[str, float]:
  """Prepares the photographs."""
  many, out = work / "many", work / "prepared"
  config = _config(f"folder:{many}")
  cpu, wall = _scheduled()[0], time.perf_counter()
  prepare.prepare(config, "train", str(out), images_per_file=_IMAGES_PER_FILE)
  cpu, wall = _scheduled()[0] - cpu, time.perf_counter() - wall
  return {
    "images": _NUM_PREPARED,
    "per_second": round(_NUM_PREPARED / wall),
    "per_cpu_second": round(_NUM_PREPARED / cpu),
  }


def _machine() -> dict[str, str | int]:
  with open("/proc/cpuinfo") as file:
    model = next(x for x in file if x.startswith("model name"))
  packages = "pillow", "simplejpeg", "array_record"
  return {
    "processor": model.split(":")[1].strip(),
    "cores": os.cpu_count(),
    "load_average": round(os.getloadavg()[0], 1),
    "nice": os.nice(0),
    "python": platform.python_version(),
    **{x: importlib.metadata.version(x) for x in packages},
  }


def main() -> None:
  """Measures all cases and writes the file."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("work", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--grain", action="store_true")
  args = parser.parse_args()
  work = args.work
  makers = {
    "photographs": _photographs,
    "mosaics": _mosaics,
    "many": lambda folder: _many(folder, work / "photographs"),
  }
  for name, make in makers.items():
    if not (work / name).exists():
      (work / name).mkdir(parents=True)
      make(work / name)
  result = {"machine": _machine()}
  if not (work / "prepared").exists():
    result["preparing"] = _prepare(work)
  cases = {
    "prepared, cold": (_prepared, work / "prepared", True),
    "prepared, warm": (_prepared, work / "prepared", False),
  } | {
    f"{kind}, {dct}": (_decoded, work / kind, dct)
    for kind in ("photographs", "mosaics")
    for dct in ("accurate", "fast")
  }
  if args.grain:
    cases["photographs, fast, grain"] = (_grain, work / "photographs", None)
    result["machine"]["grain"] = importlib.metadata.version("grain")
  result |= _by_turns(cases)
  result["machine"]["load_average_at_the_end"] = round(os.getloadavg()[0], 1)
  args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
