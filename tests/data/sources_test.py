"""Opening a source: the dispatch, the cache, wrong values."""

import json
import os
import shutil
import subprocess
import sys

import child
import numpy as np
import pytest
import tiny
from image_files import noise, save_one, write_tree

from hatebm_jax import data, errors


@pytest.mark.parametrize("crop", ["center", "random"])
def test_cached_or_not_the_batches_are_the_same(tmp_path, crop):
  folder = tmp_path / "images"
  write_tree(folder)
  batches = []
  for cache_gib in (1.0, 0.0):
    source = data.open_source(
      tiny.data_config(f"folder:{folder}", crop=crop, cache_gib=cache_gib)
    )
    batches.append(tiny.take(source, 9, batch_size=6, seed=1))
    resumed = tiny.take(source, 3, batch_size=6, seed=1, first_step=6)
    np.testing.assert_array_equal(resumed, batches[-1][6:])
  np.testing.assert_array_equal(*batches)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"source": "cifar10"}, "expected digits, folder:PATH, tfds:NAME or"),
    ({"source": "folder:"}, "found 'folder:'"),
    ({"source": "folder:/no/such"}, "no folder '/no/such'"),
  ],
)
def test_a_wrong_source_is_named_with_the_way_out(overrides, message):
  config = tiny.data_config("digits")
  config.update(overrides)
  with pytest.raises(data.DataError, match=message) as error:
    data.open_source(config)
  assert "--config.data." in str(error.value)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"image_size": 0}, "image_size=0: expected an integer from 1 to 4096"),
    ({"channels": 4}, "channels=4: expected 1 or 3"),
    ({"crop": "middle"}, "crop='middle': expected 'center' or 'random'"),
    ({"jpeg_dct": "slow"}, "jpeg_dct='slow': expected 'accurate' or 'fast'"),
    ({"cache_gib": -1.0}, r"cache_gib=-1\.0: expected a number from 0"),
  ],
)
def test_a_wrong_field_is_named_with_the_way_out(overrides, message):
  config = tiny.data_config("digits")
  config.update(overrides)
  with pytest.raises(errors.ConfigError, match=message) as error:
    data.open_source(config)
  assert "--config.data." in str(error.value)


def test_a_wrong_split_is_named():
  with pytest.raises(data.DataError, match="train or test, found 'dev'"):
    data.open_source(tiny.data_config("digits"), "dev")


def test_tensorflow_is_imported_for_its_data_sets_alone():
  code = (
    "import sys; from hatebm_jax import data; "
    "assert not {'tensorflow', 'sklearn'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_native_size_is_the_median_short_side(tmp_path):
  for i, (height, width) in enumerate([(9, 30), (20, 12), (40, 40)]):
    source = save_one(tmp_path, noise(0, height, width), f"{i}.png")
  config = tiny.data_config(source, crop="random")
  assert data.native_size(config) == 12
  assert (config.image_size, config.crop) == (8, "random")
  assert data.native_size(tiny.data_config("digits"), "test") == 8


STRIPES = '''
"""The source `stripes:NUM`: made in memory, to show what a source needs."""
import numpy as np
from PIL import Image
from hatebm_jax.data import base, decode

def open_stripes(num, config, split):
  def read(indices):
    for i in indices:
      pixels = np.full((9, 11, 3), i, np.uint8)
      image = Image.fromarray(pixels)
      yield decode.fit(image, config.image_size, config.channels, config.crop)

  return base.Source(f"stripes {split}", int(num), config.image_size, read)
'''

DISPATCH = """
  if kind == "stripes" and rest:
    from hatebm_jax.data import stripes
    return stripes.open_stripes(rest, config, split)
  raise DataError(
    "config.data.source: expected digits"""

USE = """
import json, ml_collections, sys
import numpy as np
from hatebm_jax import data
config = ml_collections.ConfigDict(json.loads(sys.argv[1]))
source = data.open_source(config)
np.testing.assert_array_equal(data.load_all(source)[:, 0, 0, 0], range(20))
batches = data.batches(source, 20, seed=0)
assert sorted(next(batches)[:, 0, 0, 0]) == list(range(20))
batches.close()
print(source.name, data.native_size(config))
"""


@pytest.mark.slow
def test_a_new_kind_of_source_costs_two_files(tmp_path):
  """Adds a source to a copy of the package, in its module and the dispatch."""
  package = tmp_path / "hatebm_jax"
  shutil.copytree(child.ROOT / "hatebm_jax", package)
  (package / "data" / "stripes.py").write_text(STRIPES)
  sources = package / "data" / "sources.py"
  before, after = sources.read_text().split(
    '\n  raise DataError(\n    "config.data.source: expected digits'
  )
  sources.write_text(before + DISPATCH + after)
  config = tiny.data_config("stripes:20", image_size=4)
  done = subprocess.run(
    [sys.executable, "-c", USE, json.dumps(config.to_dict())],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "stripes train 9\n"


def test_a_missing_jpeg_decoder_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "simplejpeg", None)
  with pytest.raises(errors.ConfigError, match="pip install simplejpeg"):
    data.open_source(tiny.data_config("digits", jpeg_dct="fast"))
