"""Files of images: none is replaced by other images or by fewer."""

import numpy as np
import pytest

from hatebm_jax.run import npz, sample_files
from hatebm_jax.run.sample_files import Name

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), np.uint8)
RECORD = {"seed": 0, "langevin": {"num_steps": 4, "max_drift_y": None}}


def find(folder, record=RECORD, images=None, step=4, weights="raw"):
  place = sample_files.find(folder, step, weights, record, images)
  return place.path.name, place.num_images, [x.name for x in place.others]


def save(folder, name, record=RECORD, images=IMAGES):
  sample_files.save(folder / f"{name}.npz", record, images=images)


def test_a_new_record_gets_the_next_free_name(tmp_path):
  assert find(tmp_path / "none") == ("00000004_raw.npz", 0, [])
  save(tmp_path, "00000004_raw")
  assert find(tmp_path) == ("00000004_raw.npz", 9, [])
  other = RECORD | {"seed": 1}
  assert find(tmp_path, other) == (
    "00000004_2_raw.npz",
    0,
    ["00000004_raw.npz"],
  )
  save(tmp_path, "00000004_2_raw", other, IMAGES[:3])
  assert find(tmp_path, other) == ("00000004_2_raw.npz", 3, [])
  assert find(tmp_path)[:2] == ("00000004_raw.npz", 9)
  third = RECORD | {"seed": 2}
  assert find(tmp_path, third)[0] == "00000004_3_raw.npz"
  # A file that was deleted makes its name free.
  (tmp_path / "00000004_raw.npz").unlink()
  assert find(tmp_path, third)[0] == "00000004_raw.npz"
  assert find(tmp_path, other)[:2] == ("00000004_2_raw.npz", 3)


def test_other_steps_weights_and_files_do_not_count(tmp_path):
  for name in ("00000006_raw", "00000004_averaged", "00000004_raw_more", "x"):
    save(tmp_path, name)
  (tmp_path / "00000004_raw.png").write_bytes(b"")
  assert find(tmp_path) == ("00000004_raw.npz", 0, [])
  assert find(tmp_path, weights="averaged")[1] == 9


def test_pngs_of_a_deleted_file_are_not_mixed_with_new_ones(tmp_path):
  (tmp_path / "00000004_raw").mkdir()
  assert find(tmp_path) == ("00000004_2_raw.npz", 0, [])
  save(tmp_path, "00000004_raw")
  assert find(tmp_path) == ("00000004_raw.npz", 9, [])


def test_a_file_without_a_record_is_known_by_its_images(tmp_path):
  npz.save(tmp_path / "00000004_raw.npz", images=IMAGES[:5])
  assert find(tmp_path) == ("00000004_2_raw.npz", 0, ["00000004_raw.npz"])
  for images in (IMAGES, IMAGES[:2]):
    assert find(tmp_path, images=images) == ("00000004_raw.npz", 5, [])
  assert find(tmp_path, images=255 - IMAGES)[0] == "00000004_2_raw.npz"


@pytest.mark.parametrize(
  "content", [b"", b"PK\x03\x04 no archive", "no images", "[" * 9999, "[]"]
)
def test_a_file_that_cannot_be_used_stays(tmp_path, content):
  path = tmp_path / "00000004_raw.npz"
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content == "no images":
    npz.save(path, x=IMAGES)
  else:
    npz.save(path, images=IMAGES, record=np.array(content))
  assert sample_files.read_record(path) is None
  assert find(tmp_path) == ("00000004_2_raw.npz", 0, ["00000004_raw.npz"])


@pytest.mark.parametrize(
  ("stem", "expected"),
  [
    ("00000004_raw", (Name(4, "raw"), "")),
    ("00000004_averaged_grid", (Name(4, "averaged"), "_grid")),
    ("00000004_12_raw_split", (Name(4, "raw", 12), "_split")),
    ("123456789_raw_grid", (Name(123456789, "raw"), "_grid")),
    ("4_raw", None),
    ("00000004_grid", None),
  ],
)
def test_names(stem, expected):
  assert sample_files.parse(stem) == expected
  if expected:
    assert expected[0].stem() + expected[1] == stem
