"""Images of other tools: folders, .npz and .npy, in the forms they have."""

import re

import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import data, errors, evaluation
from hatebm_jax.evaluation import compute, given_images
from hatebm_jax.metrics import feature_spaces, inception

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (7, 16, 16, 1), np.uint8)
COLOUR = RNG.integers(0, 256, (7, 16, 16, 3), np.uint8)


def read(path, channels=1):
  config = tiny.config(metrics__samples=str(path), data__channels=channels)
  return given_images.read(config)


@pytest.mark.parametrize(
  "arrays",
  [
    {"images": GRAY},
    {"images": GRAY, "generator": GRAY[::-1], "arr_0": GRAY[::-1]},
    {"samples": GRAY, "labels": np.arange(7)},
    {"arr_0": GRAY, "arr_1": np.arange(7)},
    {"anything": GRAY},
  ],
)
def test_npz(tmp_path, arrays):
  np.savez(tmp_path / "x.npz", **arrays)
  given = read(tmp_path / "x.npz")
  np.testing.assert_array_equal(given.images, GRAY)
  assert set(given.protocol) == {"file", "sha256"}


def test_npy(tmp_path):
  # The name does not matter.
  with (tmp_path / "samples").open("wb") as file:
    np.save(file, GRAY)
  np.testing.assert_array_equal(read(tmp_path / "samples").images, GRAY)


@pytest.mark.parametrize(
  ("extension", "channels"),
  [("png", 1), ("png", 3), ("bmp", 3), ("webp", 3), ("gif", 1)],
)
def test_folder(tmp_path, extension, channels):
  images = COLOUR if channels == 3 else GRAY
  for i, image in enumerate(images):
    picture = Image.fromarray(image.squeeze())
    options = {"lossless": True} if extension == "webp" else {}
    picture.save(tmp_path / f"{i}.{extension}", **options)
  (tmp_path / "notes.txt").write_text("drawn by another tool")
  given = read(tmp_path, channels)
  np.testing.assert_array_equal(given.images, images)
  assert given.protocol["file"] == tmp_path.name
  assert len(given.protocol["sha256"]) == 64


def test_a_folder_keeps_the_size_of_its_images(tmp_path):
  wide = RNG.integers(0, 256, (2, 20, 31, 3), np.uint8)
  for i, image in enumerate(wide):
    Image.fromarray(image).save(tmp_path / f"{i}.png")
  np.testing.assert_array_equal(read(tmp_path, 3).images, wide)
  Image.fromarray(COLOUR[0]).save(tmp_path / "9.png")
  with pytest.raises(errors.ConfigError, match=r"one size.*\(20, 31, 3\)"):
    read(tmp_path, 3)


def test_an_image_that_cannot_be_read_is_named(tmp_path, capsys):
  for i, image in enumerate(COLOUR):
    Image.fromarray(image).save(tmp_path / f"{i}.png")
  (tmp_path / "3.png").write_bytes(b"no image")
  with pytest.raises(errors.ConfigError, match="1 of 7 images skipped"):
    read(tmp_path, 3)
  assert "3.png" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("array", "word"),
  [
    (COLOUR.transpose(0, 3, 1, 2), "channels, height, width"),
    (COLOUR / np.float32(255), r"float32 in \[0, 1\]"),
    (COLOUR / 127.5 - 1, r"float64 in \[-1, 1\]"),
    ((COLOUR / 255).transpose(0, 3, 1, 2), r"height, width\].*float64 in \[0"),
    (COLOUR.astype(np.float32), "from 0 to 255"),
    (COLOUR.astype(np.int64), "int64 from 0 to 255"),
  ],
)
def test_conversions_are_said_and_recorded(tmp_path, capsys, array, word):
  np.save(tmp_path / "x.npy", array)
  given = read(tmp_path / "x.npy", 3)
  np.testing.assert_array_equal(given.images, COLOUR)
  assert given.images.dtype == np.uint8
  printed = capsys.readouterr().out
  assert given.protocol["conversion"] in printed
  assert re.search(word, printed)


def test_gray_without_channels_and_masks(tmp_path):
  np.savez(tmp_path / "x.npz", GRAY[..., 0])
  np.testing.assert_array_equal(read(tmp_path / "x.npz").images, GRAY)
  np.save(tmp_path / "x.npy", GRAY > 127)
  images = read(tmp_path / "x.npy").images
  np.testing.assert_array_equal(images, np.where(GRAY > 127, 255, 0))


@pytest.mark.parametrize(
  ("array", "found"),
  [
    (GRAY, r"uint8 \(7, 16, 16, 1\)"),
    (COLOUR[0], r"uint8 \(16, 16, 3\)"),
    (COLOUR[:0], "no images"),
    (COLOUR // 128, "from 0 to 1, which would all be black"),
    (0.0 * COLOUR, "float64 .* with no value but 0"),
    (COLOUR / 100.0 - 1, "values from -1 to 1.55"),
    (COLOUR.astype(np.int16) - 1, "from -1 to 254"),
    (COLOUR.astype(np.uint16) * 257, "from 0 to 65535"),
    (np.where(COLOUR > 9, np.nan, 1.0), "NaN"),
    (COLOUR.astype(complex), "complex128"),
    (np.full((2, 16, 16, 3), "x"), "<U1"),
  ],
)
def test_what_is_no_set_of_images(tmp_path, array, found):
  np.save(tmp_path / "x.npy", array)
  with pytest.raises(errors.ConfigError, match=found) as error:
    read(tmp_path / "x.npy", 3)
  assert "expected images, uint8 [n, height, width, 3]" in str(error.value)


def test_files_that_hold_no_array(tmp_path):
  path = tmp_path / "x"
  with pytest.raises(errors.ConfigError, match="No such file"):
    read(path)
  np.savez(tmp_path / "two.npz", a=GRAY, b=GRAY)
  with pytest.raises(errors.ConfigError, match=r"found an .npz with \['a', 'b"):
    read(tmp_path / "two.npz")
  path.write_bytes(b"neither")
  with pytest.raises(errors.ConfigError, match="expected a folder of images"):
    read(path)
  np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
  with pytest.raises(errors.ConfigError, match="the file of the type object"):
    read(tmp_path / "x.npy")
  np.save(tmp_path / "x.npy", GRAY)
  content = (tmp_path / "x.npy").read_bytes()
  (tmp_path / "x.npy").write_bytes(content[:-1])
  with pytest.raises(errors.ConfigError, match=r"bytes for the shape \(7, 16"):
    read(tmp_path / "x.npy")
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.ConfigError, match=r"metrics\.samples=PATH"):
    read(tmp_path / "empty")


def test_another_size_than_the_reference_is_refused(tmp_path):
  np.save(tmp_path / "x.npy", GRAY[:, :8, :8])
  config = tiny.config(metrics__samples=str(tmp_path / "x.npy"))
  with pytest.raises(errors.ConfigError, match=r"\(16, 16, 1\).*\(8, 8, 1\)"):
    evaluation.evaluate_file(config)


def test_statistics_in_the_features_of_inception_take_any_size():
  config = tiny.config(metrics__statistics="x.npz", data__channels=3)
  space = feature_spaces.choose("digits", (16, 16, 1))
  any_size = space._replace(name=inception.NAME)
  images = np.zeros((2, 20, 30, 3), np.uint8)
  compute._check_given(config, images, any_size)
  for wrong in (space, any_size):
    config.metrics.statistics = "x.npz" if wrong is space else ""
    with pytest.raises(errors.ConfigError, match=r"\(20, 30, 3\)"):
      compute._check_given(config, images, wrong)


@pytest.mark.slow
def test_a_folder_is_measured_like_the_same_images_in_a_file(tmp_path):
  digits = data.load_images(tiny.config().data, "test", 20)
  np.savez(tmp_path / "x.npz", digits)
  (tmp_path / "png").mkdir()
  for i, image in enumerate(digits):
    Image.fromarray(image[..., 0]).save(tmp_path / "png" / f"{i:05d}.png")
  found = [
    evaluation.evaluate_file(tiny.config(metrics__samples=str(tmp_path / name)))
    for name in ("x.npz", "png")
  ]
  sets = [result.figures["sets"] for result in found]
  assert sets[0] == sets[1]
  assert found[1].figures["protocol"]["image_size"] == 16
  assert found[1].figures["protocol"]["samples"]["file"] == "png"
