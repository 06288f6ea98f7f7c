"""Strange image files are used as documented, or skipped."""

import errno
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import textwrap

import child
import numpy as np
import pytest
import tiny
from image_files import (
  blank_alpha,
  bomb,
  encode,
  frames,
  noise,
  save,
  uniform,
  used_kinds,
)
from PIL import Image

from hatebm_jax import data, report
from hatebm_jax.data.decode import Reason

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def make_config(source, **overrides):
  return tiny.data_config(f"folder:{os.fsdecode(source)}", **overrides)


# Used.


@pytest.mark.parametrize("kind", used_kinds())
def test_used_with_the_pixels_that_are_documented(tmp_path, capsys, kind):
  name, content, expected, tolerance = used_kinds()[kind]
  (tmp_path / name).write_bytes(content)
  image = data.load_all(data.open_source(make_config(tmp_path)))[0]
  difference = image.astype(int) - expected
  assert np.abs(difference).max() <= tolerance
  assert capsys.readouterr().err == ""


def test_an_animated_gif_is_its_first_frame(tmp_path):
  colors = [Image.new("P", (8, 8), i) for i in range(3)]
  for image in colors:
    image.putpalette([1, 2, 3, 50, 60, 70, 200, 210, 220])
  animated = encode(colors[1], "GIF", save_all=True, append_images=colors)
  assert Image.open(io.BytesIO(animated)).n_frames > 1
  (tmp_path / "a.gif").write_bytes(animated)
  image = data.load_all(data.open_source(make_config(tmp_path)))[0]
  np.testing.assert_array_equal(image, uniform(50, 60, 70))


# Skipped.


def content(value):
  return lambda path: path.write_bytes(value)


def sparse(path):
  with path.open("wb") as file:
    file.write(encode(noise()))
    file.truncate(2**30 + 1)


def ring(path):
  other = path.with_name("ring")
  path.symlink_to(other)
  other.symlink_to(path)


def unix_socket(path):
  # The path of a socket may have 100 bytes; paths of tests are longer.
  folder = os.getcwd()
  os.chdir(path.parent)
  with socket.socket(socket.AF_UNIX) as made:
    made.bind(path.name)
  os.chdir(folder)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"

SKIPPED = {
  "zero bytes": (content(b""), Reason.EMPTY),
  "text": (content(b"<html>404 Not Found</html>"), Reason.NO_IMAGE),
  "its first bytes": (content(encode(noise())[:6]), Reason.NO_IMAGE),
  "EPS": (content(EPS), Reason.NO_IMAGE),
  "TIFF": (content(encode(noise(), "TIFF")), Reason.NO_IMAGE),
  "AVIF": (content(b"\0\0\0\x1cftypavif" + bytes(99)), Reason.NO_IMAGE),
  **{
    f"truncated {kind}": (
      content(encode(noise(0, 64, 64), kind)[:-200]),
      Reason.DAMAGED,
    )
    for kind in FORMATS
  },
  "truncated animation": (content(frames("GIF")[:250]), Reason.DAMAGED),
  "a PNG's pixels changed": (
    content(encode(noise()).replace(b"IDAT\x78", b"IDAT\x79")),
    Reason.DAMAGED,
  ),
  **{
    f"clear {kind}": (content(blank_alpha(kind)), Reason.CLEAR)
    for kind in ("PNG", "WEBP", "GIF", "PNG palette", "PNG gray", "PNG colour")
  },
  "144 million pixels": (content(bomb(12_000)), Reason.LARGE),
  "101 x 1": (content(encode(noise(0, 1, 101))), Reason.NARROW),
  "1 x 101": (content(encode(noise(0, 101, 1))), Reason.NARROW),
  "over 1 GiB": (sparse, Reason.LARGE_FILE),
  "link to nothing": (lambda path: path.symlink_to("none"), Reason.MISSING),
  "link to itself": (lambda path: path.symlink_to(path), Reason.MISSING),
  "ring of links": (ring, Reason.MISSING),
  "link to a device": (
    lambda path: path.symlink_to("/dev/null"),
    Reason.NOT_REGULAR,
  ),
  "socket": (unix_socket, Reason.NOT_REGULAR),
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_skipped_with_its_reason_and_the_next_stands_in(tmp_path, capsys, kind):
  make, reason = SKIPPED[kind]
  save(tmp_path, "a.png", "c.png")
  make(tmp_path / "b.png")
  source = data.open_source(make_config(tmp_path))
  assert capsys.readouterr().err.splitlines() == [
    f"Skipping '{tmp_path}/b.png': {reason}",
    f"folder:{tmp_path}: 1 of 3 images skipped: 1 {reason}",
  ]
  assert source.num_images == 3
  np.testing.assert_array_equal(
    data.load_all(source),
    [noise(0), noise(1), noise(1)],
  )


def test_after_the_last_image_comes_the_first(tmp_path):
  save(tmp_path, "a.png", "b.png")
  for name in ("c.png", "d.png"):
    (tmp_path / name).touch()
  source = data.open_source(make_config(tmp_path))
  expected = [noise(0), noise(1), noise(0), noise(0)]
  np.testing.assert_array_equal(data.load_all(source), expected)


def run_python(code, *arguments):
  """Runs code in its own process, which a timeout can end."""
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), *map(os.fsencode, arguments)],
    cwd=child.ROOT,
    env={**os.environ, "PYTHONPATH": str(child.ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )


def test_bombs_take_no_memory_and_pipes_and_devices_no_time(tmp_path):
  folder = tmp_path / "images"
  save(folder, "a.png")
  (folder / "b.png").write_bytes(bomb(30_000))
  (folder / "c.png").write_bytes(bomb(12_000))
  os.mkfifo(folder / "d.png")
  (folder / "e.png").symlink_to("/dev/zero")
  assert (folder / "b.png").stat().st_size < 2**20
  done = run_python(
    """
    import resource, sys
    import ml_collections, json
    from hatebm_jax import data
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = ml_collections.ConfigDict(json.loads(sys.argv[1]))
    before = peak()
    source = data.open_source(config)
    print(len(data.load_all(source)), peak() - before)
    """,
    json.dumps(make_config(folder).to_dict()),
  )
  num_images, kib = map(int, done.stdout.split())
  assert num_images == 5
  # Decoded, the bombs are 900 and 144 million bytes.
  assert kib < 50_000
  assert done.stderr.splitlines()[-1].endswith(
    "4 of 5 images skipped: 2 not a regular file, 2 over 89 million pixels"
  )
  assert len(done.stderr.splitlines()) == 5, done.stderr  # There is no warning.


@pytest.fixture
def open_folder():
  """Makes a folder that other users may enter."""
  with tempfile.TemporaryDirectory() as name:
    os.chmod(name, 0o755)
    yield pathlib.Path(name)


def test_without_permission(open_folder, capsys):
  save(open_folder, "a.png", "b.png", "c.png")
  save(open_folder / "lost+found", "d.png")
  (open_folder / "b.png").chmod(0)
  (open_folder / "lost+found").chmod(0)
  user = os.geteuid()
  try:
    if user == 0:  # Root may read everything.
      os.seteuid(65534)
    source = data.open_source(make_config(open_folder))
  finally:
    os.seteuid(user)
    (open_folder / "lost+found").chmod(0o700)
  assert source.num_images == 3
  assert capsys.readouterr().err.splitlines() == [
    f"Skipping the folder '{open_folder}/lost+found': no permission",
    f"Skipping '{open_folder}/b.png': no permission",
    f"folder:{open_folder}: 1 of 3 images skipped: 1 no permission",
  ]


@pytest.mark.parametrize("name", ["v[1]", "all*", "what?"])
def test_a_folder_whose_name_looks_like_a_pattern(tmp_path, name):
  save(tmp_path / name, "a[0].png", "b*.png")
  images = data.load_all(data.open_source(make_config(tmp_path / name)))
  np.testing.assert_array_equal(images, [noise(0), noise(1)])


def test_loops_of_folders_end_and_folders_called_like_images_are_folders(
  tmp_path, capsys
):
  save(tmp_path, "a.png")
  save(tmp_path / "b.png", "c.png")
  (tmp_path / "loop").symlink_to(tmp_path)
  (tmp_path / "b.png" / "up").symlink_to("..")
  (tmp_path / "self").symlink_to("self")
  source = data.open_source(make_config(tmp_path))
  assert source.num_images == 2
  assert capsys.readouterr().err == ""


def test_a_failing_disk_is_no_bad_image(tmp_path):
  save(tmp_path, "a.png", "c.png")
  memory = pathlib.Path("/proc/self/mem")  # Its first page cannot be read.
  if not memory.exists():
    pytest.skip("no file here that fails with EIO")
  with pytest.raises(OSError) as error:
    memory.read_bytes()
  assert error.value.errno == errno.EIO
  (tmp_path / "b.png").symlink_to(memory)
  source = data.open_source(make_config(tmp_path, cache_gib=0.0))
  message = (
    r"Cannot read '.*/b\.png': the file system says 'Input/output error'"
  )
  with pytest.raises(data.DataError, match=message):
    data.load_all(source)


# Names.

NAMES = [
  "日本.png",
  "صورة.png",
  "тест.jpg",
  "🙂.png",
  "नमस्ते.png",
  "two\nlines.png",
]


def test_names_in_any_script_and_bytes_that_are_none(tmp_path, capsys):
  names = [os.fsencode(name) for name in NAMES]
  if sys.platform == "linux":  # macOS accepts only UTF-8.
    names += [b"latin-\xe9.png", b"\xff\xfe.png"]
  folder = os.fsencode(tmp_path) + b"/" + names[-1]
  os.mkdir(folder)
  for name in names:
    pathlib.Path(os.fsdecode(folder + b"/" + name)).write_bytes(encode(noise()))
    empty = folder + b"/empty " + name
    pathlib.Path(os.fsdecode(empty)).touch()
  source = data.open_source(make_config(folder))
  source.name.encode()
  assert source.num_images == 2 * len(names)
  assert (data.load_all(source) == noise()).all()
  lines = capsys.readouterr().err
  lines.encode()  # All of it can be printed.
  assert lines.count("Skipping ") == len(names)
  for name in names:
    assert repr(os.fsdecode(folder + b"/empty " + name)) in lines


# TensorFlow data sets.


def test_tfds_images_are_refused_with_the_reason(tmp_path):
  pytest.importorskip("tensorflow")  # It writes data sets.
  tfds = pytest.importorskip("tensorflow_datasets")
  (tmp_path / "a.png").write_bytes(encode(noise(0, 64, 64))[:-200])
  image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
  tfds.dataset_builders.store_as_tfds_dataset(
    name="tiny_damaged",
    version="1.0.0",
    features=tfds.features.FeaturesDict({"image": image}),
    split_datasets={"train": [(0, {"image": str(tmp_path / "a.png")})]},
    data_dir=tmp_path,
  )
  config = make_config("", data_dir=str(tmp_path))
  config.source = "tfds:tiny_damaged"
  message = r"image of tfds:tiny_damaged, split train.*\(truncated or damaged\)"
  with pytest.raises(data.DataError, match=message):
    data.open_source(config)


# A run.


@pytest.mark.slow
def test_a_run_on_a_strange_folder_ends_well(tmp_path, monkeypatch):
  odd = b"\xe6\x97\xa5 \xff" if sys.platform == "linux" else "日".encode()
  folder = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + odd))
  folder.mkdir()
  for i, (name, encoded, *_) in enumerate(used_kinds().values()):
    (folder / f"{i} {name}").write_bytes(encoded)
  bad = ("zero bytes", "truncated JPEG", "EPS", "1 x 101", "link to itself")
  for name in bad:
    SKIPPED[name][0](folder / f"{name}.png")
  os.mkfifo(folder / "pipe.gif")
  workdir = tmp_path / "run"
  monkeypatch.setenv("PYTHONIOENCODING", "ascii")
  process = child.start(
    workdir,
    f"--config.data.source=folder:{folder}",
    "--config.data.cache_gib=0.0",
    "--config.train.num_steps=6",
  )
  output = child.finish(process)
  for name in (*bad, "pipe"):
    assert output.count(f"/{name}.") >= 1, output
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == list(range(1, 7))
  saved = json.loads((workdir / "config.json").read_text())
  assert saved["data"]["source"] == f"folder:{folder}"
  page = report.write(workdir).read_text()
  assert r"\udcff" in page or sys.platform != "linux"
