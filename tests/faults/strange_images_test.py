"""Image files of every strange kind are used as documented, or skipped."""

import errno
import io
import itertools
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib

import child
import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hatebm_jax import data, report
from hatebm_jax.data import decode as decode_lib
from hatebm_jax.data.decode import BadImageError, Reason

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def make_config(source, **overrides):
  return tiny.data_config(f"folder:{os.fsdecode(source)}", **overrides)


def noise(seed=0, height=8, width=8):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


def encode(pixels, kind="PNG", **options):
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def chunk(kind, content):
  crc = zlib.crc32(kind + content)
  return (
    struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
  )


def png(width, height, depth, color, pixels, *chunks):
  """A PNG by hand; `pixels` yields parts of the rows with their filter byte."""
  header = struct.pack(">2I5B", width, height, depth, color, 0, 0, 0)
  packer = zlib.compressobj()
  parts = [packer.compress(part) for part in pixels] + [packer.flush()]
  return b"".join(
    [
      b"\x89PNG\r\n\x1a\n",
      chunk(b"IHDR", header),
      *chunks,
      chunk(b"IDAT", b"".join(parts)),
      chunk(b"IEND", b""),
    ]
  )


def bomb(side):
  """A small PNG file of `side` x `side` black 8-bit gray pixels."""
  return png(side, side, 8, 0, itertools.repeat(bytes(side + 1), side))


def text_bomb():
  return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))


def rows(pixels):
  """Rows of a PNG, unfiltered, of unsigned integers in network order."""
  return [
    b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels
  ]


# Used.


def uniform(*color):
  return np.full((8, 8, 3), color, np.uint8)


def frames(kind, **options):
  first, *others = (Image.fromarray(noise(i)) for i in range(3))
  return encode(first, kind, save_all=True, append_images=others, **options)


def deep_rgb():
  pixels = noise().astype(np.uint16) * 256 + noise(1)
  return png(8, 8, 16, 2, rows(pixels.reshape(8, 24))), noise()


def deep_gray_alpha():
  pixels = np.stack([noise()[..., 0] * np.uint16(257)] * 2, -1)
  pixels[..., 1] = np.arange(8) % 2 * 65535
  expected = np.where(np.arange(8)[None, :, None] % 2, noise()[..., :1], 255)
  return png(8, 8, 16, 4, rows(pixels.reshape(8, 16))), expected


def deep_gray_with_a_clear_value():
  pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1028
  transparency = chunk(b"tRNS", struct.pack(">H", 1028))
  expected = (pixels // 257).astype(np.uint8)
  expected[0, 1] = 255
  return png(8, 8, 16, 0, rows(pixels), transparency), expected[..., None]


def palette(alpha):
  image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
  colors = noise()
  image.putpalette(colors.tobytes())
  options = {"transparency": bytes([0, 255, 0])} if alpha else {}
  if alpha:
    colors[0, [0, 2]] = 255
  return encode(image, **options), colors


def bits():
  image = Image.new("1", (8, 8), 1)
  image.putpixel((3, 5), 0)
  expected = uniform(255, 255, 255)
  expected[5, 3] = 0
  return encode(image), expected


def used_kinds():
  """Kind -> (file name, content, expected pixels, tolerance)."""
  red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
  dark = Image.new("CMYK", (8, 8), (0, 0, 0, 155))
  one = np.array([[[10, 20, 30]]], np.uint8)
  return {
    "PNG called .jpg": ("a.jpg", encode(noise()), noise(), 0),
    "BMP called .PNG": ("a.PNG", encode(noise(), "BMP"), noise(), 0),
    "CMYK": ("a.jpg", encode(red, "JPEG", quality=100), uniform(255, 0, 0), 2),
    "CMYK black": (
      "a.jpg",
      encode(dark, "JPEG", quality=100),
      uniform(100, 100, 100),
      2,
    ),
    "16-bit colour": ("a.png", *deep_rgb(), 0),
    "16-bit gray and alpha": ("a.png", *deep_gray_alpha(), 0),
    "16-bit gray, a clear value": ("a.png", *deep_gray_with_a_clear_value(), 0),
    "palette": ("a.png", *palette(False), 0),
    "palette with alpha": ("a.png", *palette(True), 0),
    "1-bit": ("a.png", *bits(), 0),
    "animated PNG": ("a.png", frames("PNG"), noise(), 0),
    "animated WebP": ("a.webp", frames("WEBP", lossless=True), noise(), 0),
    "MPO": ("a.jpg", frames("MPO", quality=100, subsampling=0), noise(), 4),
    "1 x 1": ("a.png", encode(one), uniform(10, 20, 30), 0),
    "100 x 1": (
      "a.png",
      encode(np.repeat(one, 100, 1)),
      uniform(10, 20, 30),
      0,
    ),
  }


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
  # A socket's path may be 100 bytes long; that of a test is longer.
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
  "a PNG with a bomb of text": (
    content(png(8, 8, 8, 2, rows(noise().reshape(8, 24)), text_bomb())),
    Reason.DAMAGED,
  ),
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


def save(root, *names):
  """Saves a PNG of noise under each name, another one each."""
  root.mkdir(exist_ok=True)
  for seed, name in enumerate(names):
    content(encode(noise(seed)))(root / name)


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
    data.load_all(source), [noise(0), noise(1), noise(1)]
  )


def test_after_the_last_image_comes_the_first(tmp_path):
  save(tmp_path, "a.png", "b.png")
  for name in ("c.png", "d.png"):
    (tmp_path / name).touch()
  source = data.open_source(make_config(tmp_path))
  expected = [noise(0), noise(1), noise(0), noise(0)]
  np.testing.assert_array_equal(data.load_all(source), expected)


def run_python(code, *arguments):
  """Runs code in a process of its own: what would hang is ended there."""
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
  assert len(done.stderr.splitlines()) == 5, done.stderr  # No warning.


@pytest.fixture
def open_folder():
  """A folder that other users may enter."""
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
    if user == 0:  # To whom nothing is forbidden.
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


# How many.


@pytest.fixture
def half_broken(tmp_path):
  """Writes a folder of so many good images and empty files, mixed."""

  def write(num_good, num_bad):
    order = np.random.default_rng(0).permutation(num_good + num_bad)
    for i, place in enumerate(order):
      good = encode(noise(i)) if i < num_good else b""
      (tmp_path / f"{place:03d}.png").write_bytes(good)
    return tmp_path

  return write


@pytest.mark.parametrize("num_images, allowed", [(11, 10), (99, 10), (130, 13)])
def test_so_many_may_be_bad_and_no_more(half_broken, num_images, allowed):
  folder = half_broken(num_images - allowed, allowed)
  assert len(data.load_all(data.open_source(make_config(folder)))) == num_images
  next(f for f in sorted(folder.iterdir()) if f.stat().st_size).write_bytes(
    b"?"
  )
  message = (
    f"at most {allowed} .* found {allowed + 1} of {num_images}: .* empty"
  )
  with pytest.raises(data.DataError, match=message) as error:
    data.open_source(make_config(folder))
  assert "--config.data.source=" in str(error.value)


def test_a_folder_with_no_usable_image(half_broken):
  folder = half_broken(0, 3)
  source = data.open_source(make_config(folder, cache_gib=0.0))
  for _ in range(2):  # To ask again does not search for ever.
    with pytest.raises(data.DataError, match=r"most 2 .* 3 of 3: 3 empty"):
      source.images([1])


def test_ten_are_named_sums_follow_and_none_counts_twice(half_broken, capsys):
  folder = half_broken(117, 13)
  source = data.open_source(make_config(folder, cache_gib=0.0))
  assert source.skipped() == ""
  for _ in range(3):
    data.load_all(source)
  *named, total = capsys.readouterr().err.splitlines()
  assert len(set(named)) == 10
  assert all(line.startswith("Skipping ") for line in named)
  assert total.endswith(": 10 of 130 images skipped: 10 empty")
  assert source.skipped().endswith(": 13 of 130 images skipped: 13 empty")


def test_threads_that_find_the_same_count_it_once(tmp_path, capsys):
  damaged = encode(noise(0, 600, 600))[:-200]  # Takes some time to decode.
  for i in range(8):
    (tmp_path / f"{i}.png").write_bytes(damaged)
  save(tmp_path, "9.png")
  source = data.open_source(make_config(tmp_path, cache_gib=0.0))
  assert (data.load_all(source) == noise()).all()
  assert len(capsys.readouterr().err.splitlines()) == 8
  # What was bad once stays so until the run ends.
  (tmp_path / "0.png").write_bytes(encode(noise(1)))
  np.testing.assert_array_equal(source.images([0])[0], noise())


@pytest.mark.parametrize("crop", ["center", "random"])
def test_cached_or_not_resumed_or_split_the_batches_are_the_same(
  half_broken, crop
):
  folder = half_broken(40, 10)

  def take(cache_gib, num, first_step=0, *process):
    config = make_config(folder, crop=crop, cache_gib=cache_gib)
    source = data.open_source(config)
    batches = data.batches(source, 8, 3, first_step, *process)
    taken = list(itertools.islice(batches, num))
    batches.close()
    return np.stack(taken)

  whole = take(1.0, 14)
  np.testing.assert_array_equal(take(0.0, 14), whole)
  np.testing.assert_array_equal(take(0.0, 4, 10), whole[10:])
  parts = [take(0.0, 14, 0, i, 2) for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


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
  if sys.platform == "linux":  # macOS knows UTF-8 alone.
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


# Any bytes.


def samples():
  """Small files of every format and of the modes that differ."""
  small = noise(0, 12, 10)
  with_alpha = np.concatenate([small, small[..., :1]], -1)
  exif = Image.Exif()
  exif[0x0112] = 6
  return [
    *(encode(small, kind) for kind in FORMATS),
    *(frames(kind) for kind in ("GIF", "WEBP", "PNG", "MPO")),
    encode(small, "JPEG", exif=exif, progressive=True),
    encode(small, "PNG", exif=exif),
    encode(with_alpha),
    encode(with_alpha, "WEBP", lossless=True),
    encode(Image.fromarray(small).convert("CMYK"), "JPEG"),
    palette(True)[0],
    deep_gray_with_a_clear_value()[0],
    bits()[0],
  ]


SAMPLES = samples()
CHANGES = st.lists(
  st.tuples(
    st.floats(0, 1, exclude_max=True),  # where, of its length
    st.sampled_from(["replace", "insert", "delete", "cut"]),
    st.binary(min_size=1, max_size=4),
  ),
  max_size=6,
)


def change(encoded, changes):
  encoded = bytearray(encoded)
  for where, how, put in changes:
    # Headers are short, and most of what can go wrong is in them; with other
    # first bytes nothing is an image.
    place = min(len(encoded), 12 + int(where**2 * len(encoded)))
    if how == "cut":
      del encoded[place:]
    elif how == "delete":
      del encoded[place : place + len(put)]
    else:
      end = place + len(put) if how == "replace" else place
      encoded[place:end] = put
  return bytes(encoded)


def decode(encoded, **overrides):
  config = make_config("", **overrides)
  try:
    return decode_lib.decode(encoded, config, upright=True)
  except BadImageError as error:
    return error.reason


@settings(max_examples=1_500, deadline=None)
@given(st.sampled_from(SAMPLES), CHANGES, st.sampled_from([1, 3]))
@example(b"", [], 3)
def test_any_bytes_are_an_image_or_our_error(encoded, changes, channels):
  mutated = change(encoded, changes)
  image = decode(mutated, channels=channels)
  if isinstance(image, Reason):
    assert encoded == b"" or changes, f"{image}: a whole image"
  else:
    assert image.shape == (8, 8, channels)
    assert image.dtype == np.uint8
  image = decode(mutated, channels=channels, crop="random")
  if not isinstance(image, Reason):
    assert min(image.shape[:2]) == 8 and max(image.shape[:2]) <= 808


# A run.


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
