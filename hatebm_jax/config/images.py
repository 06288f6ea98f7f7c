"""Fields of the group `data`: the images, and how they are read."""

from hatebm_jax.config import rules
from hatebm_jax.config.rules import Field

_RECORDED = rules.OnResume.RECORDED
_FREE = rules.OnResume.FREE

FIELDS = {
  "source": Field(
    "tfds:cifar10",
    rules.SOURCE,
    "The images come from this source, such as tfds:NAME, folder:PATH, "
    "prepared:PATH or digits. hatebm_jax/data/sources.py describes all kinds "
    "of sources.",
    _FREE,
    in_use=True,
  ),
  "train_split": Field(
    "",
    rules.TEXT,
    "The training images are this split of a TensorFlow data set, such as "
    "'train[:90%]', or this folder below the folder of images. Empty means "
    "the usual names, such as train.",
    _FREE,
    in_use=True,
  ),
  "test_split": Field(
    "",
    rules.TEXT,
    "The test images are this split or folder. Empty means the usual names, "
    "such as test and validation.",
    _FREE,
    in_use=True,
  ),
  "feature": Field(
    "",
    rules.TEXT,
    "The images are this feature of a TensorFlow data set. Empty means "
    "'image'.",
    _FREE,
    in_use=True,
  ),
  "image_size": Field(
    32,
    rules.integer(1, 4_096),
    "Images have this height and width in pixels: 16, 32, 64 or 128.",
  ),
  "channels": Field(
    3, rules.choice(1, 3), "Images have 1 (gray) or 3 (RGB) channels."
  ),
  "crop": Field(
    "center",
    rules.choice("center", "random"),
    "`center` takes the centre square of an image. `random` takes a random "
    "square along the long side in the training split.",
  ),
  "jpeg_dct": Field(
    "accurate",
    rules.choice("accurate", "fast"),
    "JPEGs are decoded with this integer DCT: `accurate` is Pillow's, and "
    "`fast` TensorFlow's, with which the paper's code read its images. "
    "Pixels differ by about one grey level. Pillow reads other formats.",
    _RECORDED,
    in_use=True,
  ),
  "data_dir": Field(
    "",
    rules.TEXT,
    "TensorFlow Datasets keeps prepared data in this folder. Empty means its "
    "own default.",
    _FREE,
    in_use=True,
  ),
  "cache_dir": Field(
    "",
    rules.TEXT,
    "Prepared images in a bucket are copied into this local folder before "
    "they are read. Empty means ~/.cache/hatebm_jax.",
    _FREE,
    in_use=True,
  ),
  "cache_gib": Field(
    8.0,
    rules.SCALE,
    "Decoded images are kept in memory if they need at most this many GiB.",
    _FREE,
    in_use=True,
  ),
}
