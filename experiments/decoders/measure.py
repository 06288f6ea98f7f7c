"""Compares decoders of JPEGs, by pixels and by a Frechet distance.

python -m experiments.decoders.measure FOLDER OUT.json
"""

import argparse
import io
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence

import ml_collections
import numpy as np
import sklearn
import tensorflow as tf
from PIL import Image

from hatebm_jax import config as config_lib
from hatebm_jax import data
from hatebm_jax.data import decode
from hatebm_jax.metrics import batches, feature_spaces, frechet, moments

_PHOTOS = pathlib.Path(sklearn.__file__).parent / "datasets" / "images"
_CELEBA = (178, 218)  # width and height of CelebA's aligned images
_NUM_IMAGES = 5_000  # of each split, for the distances
_DCTS = ("fast", "accurate")


def _config(dct: str, **fields) -> ml_collections.ConfigDict:
  """Returns the group `data` of a config."""
  config = config_lib.default().data
  config.unlock()
  config.update(jpeg_dct=dct, **fields)
  return config


def _decoder(dct: str) -> Callable[[bytes], np.ndarray]:
  """Returns this package's decoder of whole images."""
  config = _config(dct, image_size=decode.NATIVE, crop="random")
  return lambda encoded: decode.decode(encoded, config)


def _tensorflow(method: str) -> Callable[[bytes], np.ndarray]:
  return lambda encoded: tf.io.decode_jpeg(
    encoded, channels=3, dct_method=method
  ).numpy()


def _difference(
  images: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> dict[str, float]:
  """Returns how images differ from others, in grey levels."""
  parts = [
    (x.astype(int) - y).ravel() for x, y in zip(images, others, strict=True)
  ]
  all_of_them = np.concatenate(parts)
  return {
    "mean": round(float(all_of_them.mean()), 3),
    "mean_absolute": round(float(np.abs(all_of_them).mean()), 3),
    "largest": int(np.abs(all_of_them).max()),
    "equal": round(float((all_of_them == 0).mean()), 4),
  }


def _pixels(
  encoded: Sequence[bytes], size: int | None = None
) -> dict[str, dict[str, float]]:
  """Compares the decoders on images, at full size and after a resize."""
  decoders = {
    "TensorFlow, default": _tensorflow(""),
    "TensorFlow, INTEGER_ACCURATE": _tensorflow("INTEGER_ACCURATE"),
    "this package, fast": _decoder("fast"),
    "this package, accurate": _decoder("accurate"),
  }
  decoded = {
    name: [decoder(x) for x in encoded] for name, decoder in decoders.items()
  }
  if size:
    decoded = {
      name: [data.resize(x[None], size)[0] for x in images]
      for name, images in decoded.items()
    }
  first = decoded.pop("TensorFlow, default")
  return {name: _difference(x, first) for name, x in decoded.items()}


def _tiles() -> list[bytes]:
  """Cuts the photographs into JPEGs like those of CelebA."""
  width, height = _CELEBA
  tiles = []
  for name in ("china.jpg", "flower.jpg"):
    with Image.open(_PHOTOS / name) as image:
      columns = range(0, image.width - width + 1, width // 2)
      rows = range(0, image.height - height + 1, height // 2)
      for left, top in itertools.product(columns, rows):
        file = io.BytesIO()
        tile = image.crop((left, top, left + width, top + height))
        tile.save(file, "JPEG", quality=95)  # chroma in half the size
        tiles.append(file.getvalue())
  return tiles


def _distances(folder: pathlib.Path) -> dict[str, float]:
  """Returns FD-ResNet10 between splits of 32 pixels and ways to decode them."""
  space = feature_spaces.choose(f"folder:{folder}", (32, 32, 3))
  found = {}
  for split, dct in itertools.product(("train", "test"), _DCTS):
    config = _config(dct, source=f"folder:{folder}", image_size=32)
    images = data.load_images(config, split, _NUM_IMAGES)
    features, _ = batches.apply(space.outputs, images, space.batch_size)
    found[split, dct] = moments.compute(features)
  pairs = itertools.combinations(found, 2)
  return {
    f"{' '.join(a)} and {' '.join(b)}": frechet.distance(
      *found[a][:2], *found[b][:2]
    )
    for a, b in pairs
  }


def main() -> None:
  """Compares and writes what is found as JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  args = parser.parse_args()
  small = sorted((args.folder / "test").rglob("*.jpg"))[:1_000]
  photos = [(_PHOTOS / x).read_bytes() for x in ("china.jpg", "flower.jpg")]
  tiles = _tiles()
  found = {
    "versions": {name: data.decoder(_config(name)) for name in _DCTS}
    | {"tensorflow": tf.__version__},
    "1,000 images of 32 pixels": _pixels([x.read_bytes() for x in small]),
    "2 photographs of 640 x 427": _pixels(photos),
    f"{len(tiles)} tiles of 178 x 218": _pixels(tiles),
    f"{len(tiles)} tiles, resized to 64": _pixels(tiles, 64),
    "FD-ResNet10": _distances(args.folder),
  }
  args.out.write_text(json.dumps(found, indent=2) + "\n")
  print(args.out.read_text())


if __name__ == "__main__":
  main()
