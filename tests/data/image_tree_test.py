"""Which images of a folder are used: splits, classes, and runs in it."""

import pytest
import tiny
from image_files import noise, save_one

from hatebm_jax import data, train


def write(root, **counts):
  """Saves images in folders; `a__b=3` saves three in the folder a/b."""
  for seed, (name, count) in enumerate(counts.items()):
    folder = root.joinpath(*name.split("__"))
    folder.mkdir(parents=True)
    for i in range(count):
      save_one(folder, noise(seed), f"{i}.png")
  return root


def write_run(folder):
  """Writes the config and the pictures of a run."""
  folder.mkdir()
  (folder / "config.json").write_text(tiny.config().to_json())
  save_one(folder / "images", noise(), "000002.png")
  save_one(folder / "samples", noise(), "4_raw.png")


def count(root, split="train", **overrides):
  """Returns the number of images of a split."""
  config = tiny.data_config(f"folder:{root}", cache_gib=0.0, **overrides)
  return data.open_source(config, split).num_images


@pytest.mark.parametrize(
  "train_name, test_name",
  [("Train", "Test"), ("TRAIN", "Val"), ("training", "Validation")],
)
def test_splits_are_recognised_in_any_case(
  tmp_path, capsys, train_name, test_name
):
  write(tmp_path, **{train_name: 3, test_name: 2})
  assert count(tmp_path) == 3
  assert count(tmp_path, "test") == 2
  assert capsys.readouterr().err == ""


def test_the_usual_spelling_comes_first(tmp_path, capsys):
  write(tmp_path, train=3, Train=1, test=2, TEST=1, val=1)
  assert count(tmp_path) == 3
  assert count(tmp_path, "test") == 2
  assert capsys.readouterr().err == ""


def test_a_class_called_train_is_one_of_the_classes(tmp_path, capsys):
  write(tmp_path, boat=2, train=3, zeppelin__small=4)
  assert count(tmp_path) == 9
  (line,) = capsys.readouterr().err.splitlines()
  assert "'train' is taken for a class" in line
  assert "'boat', 'zeppelin'" in line
  assert "--config.data.train_split=train" in line
  with pytest.raises(data.DataError, match="no test images"):
    count(tmp_path, "test")
  assert count(tmp_path, train_split="train") == 3
  assert count(tmp_path, "test", test_split="zeppelin/small") == 4


def test_folders_without_images_are_no_classes(tmp_path, capsys):
  write(tmp_path, train=3, labels=0, notes=0, **{".cache": 2})
  (tmp_path / "labels" / "0.txt").touch()
  assert count(tmp_path) == 3
  assert capsys.readouterr().err == ""


def test_images_beside_the_splits_are_named(tmp_path, capsys):
  write(tmp_path, train=3, test=2, extra=4, more=1)
  save_one(tmp_path, noise())
  for _ in range(2):  # The line is printed once.
    assert count(tmp_path) == 3
  (line,) = capsys.readouterr().err.splitlines()
  assert "the images in 'extra', 'more', '.' are not used" in line
  assert count(tmp_path, train_split=".") == 11


@pytest.mark.parametrize("test_name", ["test", "val2017", "Test-images"])
@pytest.mark.parametrize("parent", ["", "bottle__"])
def test_test_images_among_the_training_images_are_named(
  tmp_path, capsys, parent, test_name
):
  write(tmp_path, **{f"{parent}{test_name}": 2, f"{parent}good": 3})
  assert count(tmp_path) == 5
  (line,) = capsys.readouterr().err.splitlines()
  assert f"{parent.replace('__', '/')}{test_name}'" in line
  assert "training images too" in line


@pytest.mark.parametrize("name", ["testudo", "valley", "contest"])
def test_a_class_whose_name_only_begins_like_test(tmp_path, capsys, name):
  write(tmp_path, **{name: 2})
  assert count(tmp_path) == 2
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_that_was_named_and_does_not_exist(tmp_path, split):
  write(tmp_path, left=1, right=2)
  message = rf"{split}_split='up': expected a folder .* found 'left', 'right'"
  with pytest.raises(data.DataError, match=message) as error:
    count(tmp_path, split, **{f"{split}_split": "up"})
  assert f"--config.data.{split}_split=" in str(error.value)


@pytest.mark.parametrize("field", ["train_split", "test_split", "feature"])
def test_a_name_that_the_source_does_not_have_is_refused(field):
  config = tiny.data_config("digits", **{field: "odd"})
  with pytest.raises(data.DataError, match=f"{field}='odd' has no meaning"):
    data.open_source(config)


def test_images_of_other_formats_are_counted(tmp_path, capsys):
  write(tmp_path, a=3)
  save_one(tmp_path / "a", noise(), "3.JFIF", format="JPEG")
  for name in ("x.TIFF", "y.tiff", "z.heic", "notes.txt", "labels.json"):
    (tmp_path / "a" / name).touch()
  assert count(tmp_path) == 4
  (line,) = capsys.readouterr().err.splitlines()
  assert "not read: 2 .tiff, 1 .heic. Convert them" in line


# Runs among the images.


@pytest.mark.parametrize("place", ["run", "train/run", "train/deep/v[1]"])
def test_pictures_of_runs_are_no_training_images(tmp_path, capsys, place):
  write(tmp_path, train__deep=3, test=2)
  assert count(tmp_path) == 3
  write_run(tmp_path / place)
  assert count(tmp_path) == 3
  lines = capsys.readouterr().err.splitlines()
  if place == "run":  # It lies beside the images.
    assert lines == []
  else:
    assert lines == [
      f"folder:'{tmp_path}/train': skipping what runs wrote: "
      f"'{tmp_path}/{place}'"
    ]


def test_samples_elsewhere_are_no_training_images(tmp_path, capsys):
  """They are where `--out` of sampling and evaluation puts them."""
  write(tmp_path, a=3)
  for folder in (tmp_path, tmp_path / "a" / "out"):
    (folder / "samples").mkdir(parents=True)
    for name in ("00000004_raw", "00000004_2_averaged"):
      save_one(folder / "samples" / name, noise(), "00000.png")
      save_one(folder / "samples", noise(), f"{name}_grid.png")
      (folder / "samples" / f"{name}.npz").touch()
    save_one(folder, noise(), "evaluation_ood.png")
    (folder / "evaluation.json").touch()
  assert count(tmp_path) == 3
  assert "skipping what runs wrote" in capsys.readouterr().err
  save_one(tmp_path / "samples", noise(), "mine.png")
  assert count(tmp_path / "samples") == 5  # It was named.
  (tmp_path / "samples" / "00000004_raw.npz").unlink()
  (tmp_path / "samples" / "00000004_2_averaged.npz").rename(
    tmp_path / "samples" / "images.npz"
  )
  assert count(tmp_path) == 8


def test_a_run_is_no_class(tmp_path):
  write(tmp_path, train=3)
  write_run(tmp_path / "run")
  assert count(tmp_path) == 3


def test_a_config_of_another_program_is_no_run(tmp_path):
  write(tmp_path, a=3)
  for content in ("", "{", "[1]", '{"data": 1}', "[" * 9999, "\0"):
    (tmp_path / "a" / "config.json").write_text(content)
    assert count(tmp_path) == 3


def test_a_workdir_is_no_folder_of_images(tmp_path):
  write_run(tmp_path / "run")
  with pytest.raises(data.DataError, match="found the workdir of a run"):
    count(tmp_path / "run")
  # Its samples are images like others.
  assert count(tmp_path / "run" / "samples") == 1


@pytest.mark.parametrize("workdir", [".", "../own/../own", "deep/.."])
def test_a_run_among_its_images_is_refused_before_it_writes(tmp_path, workdir):
  folder = write(tmp_path / "own", deep=8)
  config = tiny.config(data__source=f"folder:{folder}", data__channels=3)
  before = sorted(folder.rglob("*"))
  with pytest.raises(data.DataError, match="folder of its images"):
    train.train(config, folder / workdir)
  assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["images", "samples/mine"])
def test_images_where_the_run_would_write_its_own(tmp_path, name):
  source = f"folder:{tmp_path}/{name}"
  with pytest.raises(data.DataError, match="folder of its images"):
    data.check_workdir(source, tmp_path)
  data.check_workdir(source, tmp_path / name / "run")
  data.check_workdir(source, tmp_path / "elsewhere")
  data.check_workdir("digits", tmp_path)


def test_a_folder_under_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  write(tmp_path / "x[1]", train=3, test=2)
  assert count("~/x[1]") == 3
  assert count("~/x[1]", "test") == 2
  with pytest.raises(data.DataError, match="folder of its images"):
    data.check_workdir("folder:~/x[1]", tmp_path / "x[1]")
