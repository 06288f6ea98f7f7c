"""Image sources, and the batches of a training run.

A batch is a pure function of the seed and the step: a run resumed at step s
sees exactly what an uninterrupted run sees, with no iterator state to save.
Every host reads its own rows of the global batch,
`[h * batch / hosts, (h + 1) * batch / hosts)`.

Images are uint8 on the host, `[height, width, channels]`; `to_float` brings a
batch to [-1, 1] on the device, at a quarter of the transfer. A square image of
the configured size is left as it is. With `crop='center'` the centre square is
resized; with `crop='random'` the short side is resized and a random square is
cut from it, another one at every visit. Resizing is bilinear with antialias.
There are no flips.
"""

import collections
import concurrent.futures
import difflib
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging
from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

# The names that a split goes by, the preferred one first.
_SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
# Keep the random streams of one seed apart.
_ORDER, _CROP, _STREAM = 1, 2, 3
_BATCHES_AHEAD = 2
_DECODE_CHUNK = 256
# Encoded images: about 0.9 GB of ImageNet.
_SHUFFLE_BUFFER = 8192
# Width over height of a photograph, to estimate what uncropped images take.
_ASPECT = 1.5


class DataError(ValueError):
  """The data or its configuration is wrong; the message says how to mend it."""


class Source(NamedTuple):
  """A set of images with a fixed order.

  Attributes:
    name: what it is, for messages.
    num_images: how many images it has.
    image_size: height and width of a batch.
    read: increasing indices -> iterator of uint8 `[height, width, channels]`,
      none smaller than `image_size`.
    stream: None where `read` is fast at any index. Otherwise
      (seed, start, process_index, process_count) -> endless iterator of this
      host's shuffled images from its `start`-th on.
  """

  name: str
  num_images: int
  image_size: int
  read: Callable[[Iterable[int]], Iterator[np.ndarray]]
  stream: Callable[[int, int, int, int], Iterator[np.ndarray]] | None = None

  def images(self, indices: Sequence[int]) -> np.ndarray:
    """Reads images, cut to the centre.

    Where `stream` is set this reads through the set up to the last index: ask
    for all that is needed in one call.

    Args:
      indices: `[n]` in [0, num_images), in any order, repeats allowed.

    Returns:
      uint8 `[n, image_size, image_size, channels]`.

    Raises:
      DataError: an image cannot be read.
    """
    images = _gather(self, indices)
    return _cut(images, self.image_size, np.full((len(images), 2), 0.5))


def to_float(images: Any) -> Any:
  """Brings uint8 images, NumPy or JAX, to float32 in [-1, 1]."""
  return images.astype("float32") / 127.5 - 1.0


def to_uint8(images: Any) -> Any:
  """Clips images, NumPy or JAX, to [-1, 1] and rounds them to uint8."""
  images = images.astype("float32").clip(-1.0, 1.0)
  return (images * 127.5 + 127.5).round().astype("uint8")


def open_source(
  config: ml_collections.ConfigDict, split: str = "train"
) -> Source:
  """Opens a source of images.

  - `digits`: scikit-learn's 1,797 handwritten digits, 8x8, enlarged
    bilinearly; 1,437 to train and 360 to test.
  - `folder:PATH`: every image file below PATH, by name; where PATH has a folder
    `train`, the splits are `train` and `test` (or `validation`, `val`),
    otherwise all images are the split `train`. Transparent pixels turn white.
  - `tfds:NAME`: a prepared TensorFlow data set that has a feature `image`. Its
    `test` is the split of that name, else `validation`.

  Images are decoded once and kept in the memory of each host where they fit
  `cache_gib`. Otherwise a folder is read as batches need it, and a TensorFlow
  data set is streamed: each host shuffles a part of its own in a buffer, so
  the batches depend on the number of hosts too, and resuming reads past the
  encoded images of the epoch so far.

  Args:
    config: `config.data`, with the fields source, image_size (pixels), channels
      (1 or 3), crop ('center' or 'random'), data_dir (where TensorFlow data
      sets are, '' for their default) and cache_gib (GiB).
    split: 'train' or 'test'.

  Returns:
    The source.

  Raises:
    DataError: a field is wrong, or the data are missing or cannot be read.
  """
  _check_config(config, split)
  kind, _, rest = config.source.partition(":")
  if config.source == "digits":
    source = _open_digits(config, split)
  elif kind == "folder" and rest:
    source = _open_folder(rest, config, split)
  elif kind == "tfds" and rest:
    source = _open_tfds(rest, config, split)
  else:
    raise DataError(
      "config.data.source: expected 'digits', 'folder:PATH' or 'tfds:NAME', "
      f"found {config.source!r}. For example "
      "--config.data.source=folder:/data/faces"
    )
  return _cache(source, config)


def _check_config(config: ml_collections.ConfigDict, split: str) -> None:
  """Refuses values that no source can serve."""
  for field, value, valid, expected in (
    (
      "image_size",
      config.image_size,
      config.image_size >= 1,
      "a number of pixels, 1 or more",
    ),
    (
      "channels",
      config.channels,
      config.channels in (1, 3),
      "1 (gray) or 3 (colour)",
    ),
    (
      "crop",
      config.crop,
      config.crop in ("center", "random"),
      "'center' or 'random'",
    ),
    ("cache_gib", config.cache_gib, config.cache_gib >= 0, "0 or more GiB"),
  ):
    if not valid:
      raise DataError(
        f"config.data.{field}: expected {expected}, found {value!r}. Set it "
        f"with --config.data.{field}=VALUE"
      )
  if split not in _SPLITS:
    raise DataError(f"split: expected one of {list(_SPLITS)}, found {split!r}")


def _pick_split(split: str, available: Iterable[str]) -> str | None:
  """The available name of a split, None if there is none."""
  return next((name for name in _SPLITS[split] if name in available), None)


# Decoding.


def _decode(
  file: Any, name: str, config: ml_collections.ConfigDict, upright: bool
) -> np.ndarray:
  """Decodes an image file.

  Args:
    file: path or binary file.
    name: what to call it in an error.
    config: `config.data`.
    upright: whether to follow the orientation that a camera noted.

  Returns:
    uint8 `[height, width, channels]`, the short side `image_size`; square for
    crop='center'.

  Raises:
    DataError: it cannot be read.
  """
  try:
    with Image.open(file) as image:
      if upright:
        image = ImageOps.exif_transpose(image)
      return _fit(_convert(image, config.channels), config)
  except Exception as error:  # Pillow raises OSError, SyntaxError and others.
    raise DataError(
      f"Cannot read the image {name}: {error}. Replace it or delete it"
      + (f": rm '{file}'" if isinstance(file, str) else "")
    ) from error


def _convert(image: Image.Image, channels: int) -> Image.Image:
  """Converts to gray or colour, transparent pixels over white."""
  if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip.
    image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return image.convert("L" if channels == 1 else "RGB")


def _fit(image: Image.Image, config: ml_collections.ConfigDict) -> np.ndarray:
  """Resizes the short side, or the centre square, to the configured size."""
  width, height = image.size
  side, size = min(width, height), config.image_size
  if config.crop == "center":
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    width = height = side
  if side != size:
    new = (round(width * size / side), round(height * size / side))
    image = image.resize(new, Image.Resampling.BILINEAR)
  pixels = np.asarray(image)
  return pixels.reshape(*pixels.shape[:2], config.channels)


def _decode_all(
  decode: Callable[[Any], np.ndarray], items: Iterable[Any]
) -> Iterator[np.ndarray]:
  """Maps `decode` over items in order, in threads (Pillow frees the GIL)."""
  items = iter(items)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    while chunk := list(itertools.islice(items, _DECODE_CHUNK)):
      yield from pool.map(decode, chunk)


def _gather(source: Source, indices: Sequence[int]) -> list[np.ndarray]:
  """Reads images in any order."""
  increasing, inverse = np.unique(indices, return_inverse=True)
  images = list(source.read(increasing))
  return [images[i] for i in inverse]


def _cut(
  images: Sequence[np.ndarray], size: int, where: np.ndarray
) -> np.ndarray:
  """Cuts squares at `where`, `[n, 2]` in [0, 1), 0 for the top or the left."""
  squares = []
  for image, (y, x) in zip(images, where, strict=True):
    top = int(y * (image.shape[0] - size + 1))
    left = int(x * (image.shape[1] - size + 1))
    squares.append(image[top : top + size, left : left + size])
  return np.stack(squares)


def _cache(source: Source, config: ml_collections.ConfigDict) -> Source:
  """Decodes a source into memory where it fits `cache_gib`."""
  shape = (config.image_size, config.image_size, config.channels)
  square = config.crop == "center"
  needed = source.num_images * np.prod(shape) / 2**30
  needed *= 1 if square else _ASPECT
  if needed > config.cache_gib:
    logging.info(
      "%s: %d images, read as needed: %.2f GiB do not fit "
      "config.data.cache_gib=%g",
      *(source.name, source.num_images, needed, config.cache_gib),
    )
    return source
  if square:
    images = np.empty((source.num_images, *shape), np.uint8)
  else:
    images = [None] * source.num_images
  for i, image in enumerate(source.read(range(source.num_images))):
    images[i] = image
    logging.log_every_n_seconds(
      *(logging.INFO, "%s: decoding image %d of %d into memory", 10),
      *(source.name, i + 1, source.num_images),
    )
  return source._replace(
    read=lambda indices: (images[i] for i in indices), stream=None
  )


# Digits.


@functools.cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
  """Digits uint8 `[n, 8, 8]` and labels int64 `[n]`, shuffled once for all."""
  try:
    from sklearn import datasets, model_selection
  except ImportError as error:
    raise DataError(
      "The source 'digits' needs scikit-learn, which is not installed: "
      "pip install scikit-learn"
    ) from error
  digits = datasets.load_digits()
  pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
  rows = model_selection.train_test_split(
    np.arange(len(pixels)),
    test_size=360,
    stratify=digits.target,
    random_state=0,
  )[split == "test"]
  return pixels[rows], digits.target[rows]


def digits_labels(split: str) -> np.ndarray:
  """Labels of the source `digits`, in its order.

  Args:
    split: 'train' or 'test'.

  Returns:
    int64 `[1437]` or `[360]`, 0 to 9.
  """
  return _digits(split)[1]


def _open_digits(config: ml_collections.ConfigDict, split: str) -> Source:
  """Opens scikit-learn's digits."""
  pixels, _ = _digits(split)

  def read(indices):
    for i in indices:
      image = Image.fromarray(pixels[i])
      yield _fit(_convert(image, config.channels), config)

  return Source(f"digits {split}", len(pixels), config.image_size, read)


# Folders.


def _walk(root: str) -> Iterator[str]:
  """Yields all files below a folder, by name; each real folder once."""
  seen = set()
  for folder, folders, files in os.walk(root, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:  # A link back up would never end.
      folders.clear()
      continue
    seen.add(real)
    # Names that start with a dot are notes of file managers and notebooks.
    folders[:] = sorted(name for name in folders if name[0] != ".")
    for name in sorted(files):
      if name[0] != ".":
        yield os.path.join(folder, name)


def _open_folder(
  path: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a tree of image files."""
  root = os.path.expanduser(path)
  if not os.path.isdir(root):
    raise DataError(
      f"config.data.source: no folder {root!r}. Give a folder of images that "
      "exists: --config.data.source=folder:PATH"
    )
  if os.path.isdir(os.path.join(root, "train")):
    name = _pick_split(split, next(os.walk(root))[1])
  else:
    name = "" if split == "train" else None
  if name is None:
    raise DataError(
      f"{root!r} has no {split} images: expected a folder train/ and one of "
      f"{', '.join(_SPLITS[split])}. Make one and move images into it: "
      f"mkdir -p '{root}/train' '{root}/{split}'"
    )
  root = os.path.join(root, name)
  files = list(_walk(root))
  paths = [file for file in files if file.lower().endswith(EXTENSIONS)]
  if not paths:
    endings = sorted({os.path.splitext(file)[1] for file in files})
    raise DataError(
      f"No images in {root!r}: expected files that end in "
      f"{' '.join(EXTENSIONS)}, found {len(files)} other files"
      + (f" ({' '.join(endings[:8])})" if files else "")
      + ". Give the folder that holds the images: "
      "--config.data.source=folder:PATH"
    )

  def decode(file):
    return _decode(file, file, config, upright=True)

  def read(indices):
    return _decode_all(decode, (paths[i] for i in indices))

  return Source(f"folder:{root}", len(paths), config.image_size, read)


# TensorFlow data sets.


def _import_tfds() -> tuple[Any, Any]:
  """Imports tensorflow, kept off the accelerators, and tensorflow_datasets."""
  try:
    import tensorflow as tf
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise DataError(
      "A source 'tfds:NAME' needs TensorFlow, of which a part is not installed "
      f"({error}): pip install tensorflow-cpu tensorflow-datasets"
    ) from error
  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tf, tfds


def _tfds_builder(name: str, data_dir: str) -> Any:
  """Finds a prepared data set and checks that it is one of images."""
  _, tfds = _import_tfds()
  try:
    builder = tfds.builder(name, data_dir=data_dir or None)
  except tfds.core.DatasetNotFoundError as error:
    near = difflib.get_close_matches(name, tfds.list_builders())
    raise DataError(
      f"config.data.source: TensorFlow Datasets knows no {name!r}, and it is "
      f"not in {data_dir or tfds.core.constants.DATA_DIR!r}."
      + (f" Near names: {', '.join(near)}." if near else "")
      + " Give a known name, --config.data.source=tfds:NAME, or the folder "
      "that holds yours, --config.data.data_dir=DIR"
    ) from error
  except (AssertionError, ValueError) as error:  # A wrong version or config.
    raise DataError(f"config.data.source: tfds:{name}: {error}") from error
  if not builder.is_prepared():
    raise DataError(_how_to_prepare(builder, name, data_dir))
  image = builder.info.features.get("image")
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    raise DataError(
      f"config.data.source: expected a data set with a uint8 feature 'image', "
      f"found tfds:{name} with {dict(builder.info.features)}"
    )
  return builder


def _how_to_prepare(builder: Any, name: str, data_dir: str) -> str:
  """Says how to download a data set; the `tfds` command needs Apache Beam."""
  where = f", data_dir='{data_dir}'" if data_dir else ""
  manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  arguments = (
    "download_config=tfds.download.DownloadConfig(manual_dir='DOWNLOADS')"
    if manual
    else ""
  )
  return (
    f"tfds:{name} is not prepared: expected it in {builder.data_path}. If it "
    "is elsewhere, give --config.data.data_dir=DIR. To make it:\n"
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}'{where}).download_and_prepare({arguments})\""
    + (f"\nwith in DOWNLOADS what you fetched by hand: {manual}" * bool(manual))
  )


def _open_tfds(
  name: str, config: ml_collections.ConfigDict, split: str
) -> Source:
  """Opens a prepared TensorFlow data set."""
  builder = _tfds_builder(name, config.data_dir)
  tfds_split = _pick_split(split, builder.info.splits)
  if tfds_split is None:
    raise DataError(
      f"tfds:{name} has no {split} images: expected one of the splits "
      f"{list(_SPLITS[split])}, found {list(builder.info.splits)}"
    )
  num_images = builder.info.splits[tfds_split].num_examples
  full_name = f"tfds:{name} {tfds_split}"

  def decode(encoded):
    return _decode(io.BytesIO(encoded), f"in {full_name}", config, False)

  def read(indices):
    return _decode_all(decode, _tfds_pick(builder, tfds_split, indices))

  def stream(seed, start, process_index, process_count):
    encoded = _tfds_stream(
      *(builder, tfds_split, num_images),
      *(seed, start, process_index, process_count),
    )
    return _decode_all(decode, encoded)

  return Source(full_name, num_images, config.image_size, read, stream)


def _tfds_encoded(builder: Any, split: Any, shuffle_seed: int | None) -> Any:
  """A tf.data.Dataset of encoded images, its files shuffled given a seed."""
  _, tfds = _import_tfds()
  decoders = tfds.decode.PartialDecoding(
    {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
  )
  dataset = builder.as_dataset(
    split=split,
    shuffle_files=shuffle_seed is not None,
    decoders=decoders,
    read_config=tfds.ReadConfig(shuffle_seed=shuffle_seed, try_autocache=False),
  )
  return dataset.map(lambda example: example["image"])


def _tfds_pick(
  builder: Any, split: str, indices: Iterable[int]
) -> Iterator[bytes]:
  """Reads through a split in its order for the images at some indices."""
  encoded = enumerate(_tfds_encoded(builder, split, None).as_numpy_iterator())
  for wanted in indices:
    yield next(image for i, image in encoded if i == wanted)


def _tfds_stream(
  builder: Any,
  split: str,
  num_images: int,
  seed: int,
  start: int,
  process_index: int,
  process_count: int,
) -> Iterator[bytes]:
  """Reads a host's part of a split in a new order every epoch, without end."""
  _, tfds = _import_tfds()
  parts = tfds.even_splits(split, process_count, drop_remainder=True)
  first_epoch, skipped = divmod(start, num_images // process_count)
  for epoch in itertools.count(first_epoch):
    shuffle_seed = int(
      np.random.default_rng([_STREAM, seed, epoch]).integers(2**31)
    )
    dataset = _tfds_encoded(builder, parts[process_index], shuffle_seed)
    dataset = dataset.shuffle(_SHUFFLE_BUFFER, shuffle_seed)
    yield from dataset.skip(skipped).as_numpy_iterator()
    skipped = 0


# Batches.


def check_batch(batch_size: int, num_devices: int) -> None:
  """Checks that a batch divides over the devices.

  Args:
    batch_size: images of a global batch.
    num_devices: devices of all hosts.

  Raises:
    DataError: it does not divide.
  """
  if batch_size < 1 or batch_size % num_devices:
    low = batch_size // num_devices * num_devices
    sizes = [size for size in (low, low + num_devices) if size > 0]
    raise DataError(
      f"config.train.batch_size: expected a multiple of the {num_devices} "
      f"devices, found {batch_size}. Set it to "
      + " or ".join(f"--config.train.batch_size={size}" for size in sizes)
    )


@functools.lru_cache(maxsize=2)
def _permutation(num_images: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng([_ORDER, seed, epoch]).permutation(num_images)


def batch_indices(
  num_images: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """The images of a step.

  Every epoch is a permutation of all images. Epochs follow each other without
  a gap, so a batch may hold the end of one and the start of the next.

  Args:
    num_images: images in the source.
    batch_size: images in the global batch.
    seed: 0 or more.
    step: 0 or more.

  Returns:
    int64 `[batch_size]` in [0, num_images).
  """
  positions = np.arange(step * batch_size, (step + 1) * batch_size)
  epochs, places = np.divmod(positions, num_images)
  indices = np.empty(batch_size, np.int64)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    order = _permutation(num_images, seed, int(epoch))
    indices[here] = order[places[here]]
  return indices


def batches(
  source: Source,
  batch_size: int,
  seed: int,
  first_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[np.ndarray]:
  """Yields this host's part of the batches, read ahead in a thread.

  Close the iterator (or drop it) to end its thread.

  Args:
    source: where the images come from.
    batch_size: images in the global batch.
    seed: orders the images and places random crops; 0 or more.
    first_step: the step of the first batch.
    process_index: this host.
    process_count: number of hosts.

  Returns:
    An endless iterator of uint8
    `[batch_size / process_count, image_size, image_size, channels]`.

  Raises:
    DataError: the batch does not divide over the hosts, or the source has fewer
      images; while iterating, an image cannot be read.
  """
  if batch_size < 1 or batch_size % process_count:
    raise DataError(
      f"config.train.batch_size: expected a multiple of the {process_count} "
      f"hosts, found {batch_size}"
    )
  if source.num_images < batch_size:
    raise DataError(
      f"{source.name} has {source.num_images} images, fewer than a batch of "
      f"{batch_size}. Add images, or set --config.train.batch_size to at most "
      f"{source.num_images}"
    )
  return _ahead(
    _batches(source, batch_size, seed, first_step, process_index, process_count)
  )


def _batches(
  source: Source,
  batch_size: int,
  seed: int,
  first_step: int,
  process_index: int,
  process_count: int,
) -> Iterator[np.ndarray]:
  """Yields this host's part of the batches."""
  local = batch_size // process_count
  rows = slice(process_index * local, (process_index + 1) * local)
  stream = source.stream and source.stream(
    seed, first_step * local, process_index, process_count
  )
  for step in itertools.count(first_step):
    if stream:
      images = list(itertools.islice(stream, local))
    else:
      indices = batch_indices(source.num_images, batch_size, seed, step)
      images = _gather(source, indices[rows])
    where = np.random.default_rng([_CROP, seed, step]).random((batch_size, 2))
    yield _cut(images, source.image_size, where[rows])


def _ahead(iterator: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  """Runs an endless iterator in a thread, a few items ahead."""
  pool = concurrent.futures.ThreadPoolExecutor(1, "hatebm_data")
  try:
    pending = collections.deque(
      pool.submit(next, iterator) for _ in range(_BATCHES_AHEAD)
    )
    while True:
      item = pending.popleft().result()
      pending.append(pool.submit(next, iterator))
      yield item
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def load_all(source: Source) -> np.ndarray:
  """Reads a whole source into memory, for statistics.

  Args:
    source: where the images come from.

  Returns:
    uint8 `[num_images, image_size, image_size, channels]`, in the source's
    order.

  Raises:
    DataError: an image cannot be read.
  """
  return source.images(range(source.num_images))
