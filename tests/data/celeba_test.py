"""The splits of CelebA in a folder of its images."""

import numpy as np
import pytest
import tiny
from image_files import encode, noise

from hatebm_jax import data
from hatebm_jax.data import celeba

# Split of each image of the small folder, in the order of the numbers.
PARTS = [0, 0, 0, 1, 1, 2]
TXT = "".join(f"{i + 1:06d}.jpg {part}\n" for i, part in enumerate(PARTS))
CSV = "image_id,partition\r\n" + TXT.replace(" ", ",").replace("\n", "\r\n")


@pytest.fixture
def folder(tmp_path):
  """Returns a folder of six images, which differ and are numbered from 1."""
  images = tmp_path / "celeba" / "img_align_celeba"
  images.mkdir(parents=True)
  for i in range(len(PARTS)):
    (images / f"{i + 1:06d}.png").write_bytes(encode(noise(i)))
  return images


def read(source, split="train", **overrides):
  found = data.open_source(tiny.data_config(source, **overrides), split)
  return found.name, data.load_all(found)


@pytest.mark.parametrize(
  ("place", "name", "content"),
  [
    (".", "list_eval_partition.txt", TXT),
    ("..", "list_eval_partition.txt", TXT),
    ("..", "list_eval_partition.csv", CSV),
  ],
  ids=["inside", "beside", "csv"],
)
def test_splits_are_those_of_the_file(folder, place, name, content, capsys):
  (folder / place / name).write_text(content)
  source = f"folder:{folder}"
  for split, wanted, numbers in (
    ("train", {}, [0, 1, 2]),
    ("test", {}, [5]),
    ("test", {"test_split": "valid"}, [3, 4]),
    ("train", {"train_split": "valid"}, [3, 4]),
    ("train", {"train_split": "."}, range(6)),
  ):
    title, images = read(source, split, **wanted)
    np.testing.assert_array_equal(images, np.stack([*map(noise, numbers)]))
    named = next(iter(wanted.values()), split)
    assert title == (
      source
      + (f", CelebA {named}" if named != "." else "/.").removesuffix("/.")
    )
    assert celeba.is_train(title) == (named == "train")
  printed = capsys.readouterr().err
  assert "3 of 6 images are its split 'train', as '" in printed
  assert "--config.data.train_split=. takes all images" in printed


def test_the_folder_above_the_images_may_be_named(folder):
  (folder.parent / "list_eval_partition.txt").write_text(TXT)
  assert len(read(f"folder:{folder.parent}")[1]) == 3


def test_without_the_file_the_whole_set_is_known_by_its_numbers(tmp_path):
  paths = [f"celeba/{i:06d}.jpg" for i in range(1, 202_600)]
  root = str(tmp_path)
  sizes = {}
  for name in celeba.SPLITS:
    chosen = celeba.choose(root, paths, "train", name)
    sizes[name] = len(chosen), chosen[0], chosen[-1]
  assert sizes == {
    "train": (162_770, "celeba/000001.jpg", "celeba/162770.jpg"),
    "valid": (19_867, "celeba/162771.jpg", "celeba/182637.jpg"),
    "test": (19_962, "celeba/182638.jpg", "celeba/202599.jpg"),
  }
  # A part of the set may be anything.
  assert celeba.choose(root, paths[:-1], "train", "") is None


def test_other_folders_are_as_before(folder, tmp_path):
  assert celeba.may_be_in(str(folder)) and celeba.may_be_in(str(folder.parent))
  assert not celeba.may_be_in(str(tmp_path))
  assert len(read(f"folder:{folder}")[1]) == 6
  # A file beside another set says nothing about it.
  other = folder.parent / "other"
  other.mkdir()
  (other / "a.png").write_bytes(encode(noise()))
  (folder.parent / "list_eval_partition.txt").write_text(TXT)
  assert read(f"folder:{other}")[0] == f"folder:{other}"
  # Folders of splits come first.
  own = folder / "train"
  own.mkdir()
  (own / "a.png").write_bytes(encode(noise()))
  assert read(f"folder:{folder}")[0] == f"folder:{own}"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("000001.jpg 3\n", "expected lines such as '000001.jpg 0', found '0000"),
    ("202599\n000001.jpg 0\n", "found '202599'. Take the file that comes"),
    ("\x00\ufffd\n", "expected lines such as"),
    ("000001.jpg 1\n", "split 'train', found none among 6 images"),
  ],
)
def test_a_file_of_something_else(folder, content, message):
  (folder / "list_eval_partition.txt").write_text(content)
  with pytest.raises(data.DataError, match=message):
    read(f"folder:{folder}")


def test_two_folders_of_the_images_are_refused(folder):
  (folder.parent / "list_eval_partition.txt").write_text(TXT)
  wild = folder.parent / "img_celeba"
  wild.mkdir()
  (wild / "000001.png").write_bytes(encode(noise()))
  with pytest.raises(data.DataError, match="found 7 images with 6 names"):
    read(f"folder:{folder.parent}")
