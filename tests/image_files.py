"""Writes image files of many kinds, usual and strange, for the tests."""

import io
import itertools
import os
import struct
import zlib

import numpy as np
from PIL import Image


def noise(seed=0, height=8, width=8):
  """Returns uint8 `[height, width, 3]`; every pixel has another colour."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


def uniform(*color):
  """Returns uint8 `[8, 8, 3]` of one colour."""
  return np.full((8, 8, 3), color, np.uint8)


def encode(pixels, kind="PNG", **options):
  """Returns the content of an image file."""
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def save(root, *names):
  """Saves a PNG of noise under each name; each has its own noise."""
  root.mkdir(exist_ok=True)
  for seed, name in enumerate(names):
    (root / name).write_bytes(encode(noise(seed)))


def save_gray(folder, size, num_images=5, split=""):
  """Saves gray PNGs of noise, 3 pixels wider than high.

  Args:
    folder: Folder of the images; it may exist.
    size: Height in pixels, and the seed of the noise.
    num_images: Number of images.
    split: Folder below it that gets the images.

  Returns:
    The source of the folder.
  """
  (folder / split).mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(size)
  for i in range(num_images):
    pixels = rng.integers(0, 256, (size, size + 3), np.uint8)
    Image.fromarray(pixels).save(folder / split / f"{i}.png")
  return f"folder:{folder}"


def save_one(folder, pixels, name="one.png", **kwargs):
  """Saves one image in a folder and returns the source of that folder."""
  folder.mkdir(exist_ok=True)
  Image.fromarray(pixels).save(folder / name, **kwargs)
  return f"folder:{folder}"


def write_tree(root):
  """Writes 11 images of every format, and other files beside them."""
  (root / "a" / "deep").mkdir(parents=True)
  (root / ".thumbs").mkdir()
  for i in range(6):
    Image.fromarray(noise(i)).save(root / "a" / f"{i}.png")
  Image.fromarray(noise(0, 20, 12)).save(root / "a" / "deep" / "b.JPG")
  Image.fromarray(noise()[..., 0]).save(root / "gray.png")
  Image.fromarray(noise(0, 9, 30)).convert("P").save(root / "palette.gif")
  Image.fromarray(noise()).save(root / "lossless.webp", lossless=True)
  Image.fromarray(noise()).save(root / "z.bmp")
  Image.fromarray(noise()).save(root / ".thumbs" / "no.png")
  (root / "._z.bmp").write_bytes(b"a note of a file manager")
  (root / "README.txt").write_text("not an image")
  os.symlink(root, root / "a" / "loop")


def chunk(kind, content):
  """Returns a chunk of a PNG file."""
  crc = zlib.crc32(kind + content)
  return (
    struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)
  )


def png(width, height, depth, color, pixels, *chunks):
  """Writes a PNG by hand; `pixels` yields parts of its filtered rows."""
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


def rows(pixels):
  """Returns unfiltered rows of a PNG from unsigned integers."""
  return [
    b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels
  ]


def bomb(side):
  """Returns a small PNG file of `side` x `side` black 8-bit gray pixels."""
  return png(side, side, 8, 0, itertools.repeat(bytes(side + 1), side))


def text_bomb():
  """Returns a small chunk of a PNG that decompresses to 16 MiB of text."""
  return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))


def frames(kind, **options):
  """Returns an animation of three frames of noise."""
  first, *others = (Image.fromarray(noise(i)) for i in range(3))
  return encode(first, kind, save_all=True, append_images=others, **options)


def deep_rgb():
  """Returns a PNG of 16 bits a channel, and its 8-bit pixels."""
  pixels = noise().astype(np.uint16) * 256 + noise(1)
  return png(8, 8, 16, 2, rows(pixels.reshape(8, 24))), noise()


def deep_gray_alpha():
  """Returns a 16-bit gray PNG with transparency, and its pixels over white."""
  pixels = np.stack([noise()[..., 0] * np.uint16(257)] * 2, -1)
  pixels[..., 1] = np.arange(8) % 2 * 65535
  expected = np.where(np.arange(8)[None, :, None] % 2, noise()[..., :1], 255)
  return png(8, 8, 16, 4, rows(pixels.reshape(8, 16))), expected


def deep_gray_with_a_clear_value():
  """Returns a 16-bit gray PNG in which one value stands for transparent."""
  pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1028
  transparency = chunk(b"tRNS", struct.pack(">H", 1028))
  expected = (pixels // 257).astype(np.uint8)
  expected[0, 1] = 255
  return png(8, 8, 16, 0, rows(pixels), transparency), expected[..., None]


def palette(alpha):
  """Returns a PNG with a palette, and its colours."""
  image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
  colors = noise()
  image.putpalette(colors.tobytes())
  options = {"transparency": bytes([0, 255, 0])} if alpha else {}
  if alpha:
    colors[0, [0, 2]] = 255
  return encode(image, **options), colors


def blank_alpha(kind):
  """Returns an image whose pixels are all transparent."""
  if kind == "PNG gray":
    return png(8, 8, 8, 0, [bytes(9)] * 8, chunk(b"tRNS", b"\0\0"))
  if kind == "PNG colour":
    return png(8, 8, 8, 2, [bytes(25)] * 8, chunk(b"tRNS", bytes(6)))
  if kind in ("GIF", "PNG palette"):
    image = Image.fromarray(noise()).quantize(64)
    clear = 3 if kind == "GIF" else bytes(256)
    if kind == "GIF":
      image.paste(3, (0, 0, 8, 8))
    return encode(image, kind.split()[0], transparency=clear)
  pixels = np.dstack([noise(), np.zeros((8, 8), np.uint8)])
  return encode(pixels, kind, **({"exact": True} if kind == "WEBP" else {}))


def blank_alpha_bmp(masks, header=108):
  """Returns a 32-bit BMP with an unused fourth channel, and its pixels.

  Args:
    masks: Masks of red, green, blue and alpha.
    header: Length of the header in bytes, which tells its version.
  """
  shifts = [mask.bit_length() - 8 for mask in masks[:3]]
  pixels = sum(
    noise()[::-1, :, i].astype(np.uint32) << shift
    for i, shift in enumerate(shifts)
  )
  body = pixels.astype("<u4").tobytes()
  head = struct.pack(
    "<IiiHHIIiiII", header, 8, 8, 1, 32, 3, len(body), 2835, 2835, 0, 0
  )
  head += struct.pack("<4I", *masks) + b"BGRs"
  head += bytes(header - len(head))
  start = 14 + header
  file = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
  return file + head + body, noise()


def bits():
  """Returns a 1-bit PNG with one black pixel, and its pixels."""
  image = Image.new("1", (8, 8), 1)
  image.putpixel((3, 5), 0)
  expected = uniform(255, 255, 255)
  expected[5, 3] = 0
  return encode(image), expected


def used_kinds():
  """Returns kind -> (file name, content, expected pixels, tolerance)."""
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
    "BMP, blank alpha": (
      "a.bmp",
      *blank_alpha_bmp((0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
      0,
    ),
    "BMP version 5, blank alpha": (
      "a.bmp",
      *blank_alpha_bmp((0xFF, 0xFF00, 0xFF0000, 0xFF000000), 124),
      0,
    ),
    "BMP, blank alpha first": (
      "a.bmp",
      *blank_alpha_bmp((0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
      0,
    ),
    "a bomb of text": (
      "a.png",
      png(8, 8, 8, 2, rows(noise().reshape(8, 24)), text_bomb()),
      noise(),
      0,
    ),
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
