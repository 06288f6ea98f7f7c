"""Published figures that stand beside ours. All of them are *cited*.

The rows of Hat EBM, of the SN-GAN that it refines and of DDLS on that SN-GAN
are figures of Hill et al. (NeurIPS 2022). The other rows are models that the
paper compares with. Their `source` names the paper that they come from; some
figures are rounded to one decimal.

There are two SN-GANs. The paper's own has an FID of 18.58 on CIFAR-10 and 6.13
on CelebA. torch-mimicry (Lee and Town 2020) publishes 16.77 and 5.71 for its
own.
"""

from typing import NamedTuple

# Samples are 520 batches of 96. They are compared with as many training images.
NUM_IMAGES = 49_920
# SHA-256 of pt_inception-2015-12-05-6726825d.pth of pytorch-fid, and of the
# same file of torch-fidelity.
INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# How the published code, with TensorFlow, reads JPEGs. Another method changes
# pixels by a few grey levels (experiments/decoders).
JPEG_DECODER = "fast integer DCT"
# Number of images of the published train splits.
SPLIT_IMAGES = {
  "tfds:cifar10": 50_000,
  "tfds:celeb_a": 162_770,
  "tfds:imagenet2012": 1_281_167,
}
HAT_EBM = "Hill et al. 2022"
MIMICRY = "Lee and Town 2020"


class Row(NamedTuple):
  """Published figures of one model.

  Attributes:
    model: Name of the model.
    figures: Published figures by the title of the column.
    source: Paper that published them.
  """

  model: str
  figures: dict[str, str]
  source: str = HAT_EBM


class Column(NamedTuple):
  """One data set of a published table.

  Attributes:
    title: Title of the column, the key in `Row.figures`.
    config: Name of the config that follows the paper on this data set.
    jpeg: Whether the images of the data set are JPEGs.
    generator: Description of the generator that the paper's hat is on; '' if
      the hat's run learns it.
    note: Sentence about the published figure that a reader of ours must know.
    sngan: Name of the config of the SN-GAN that the table refines; '' if it
      refines none.
  """

  title: str
  config: str
  jpeg: bool = False
  generator: str = ""
  note: str = ""
  sngan: str = ""


class Table(NamedTuple):
  """A published table.

  Attributes:
    columns: Columns by the label that the command line gives a run.
    rows: Rows in the order in which they are printed.
  """

  columns: dict[str, Column]
  rows: tuple[Row, ...]


REFINEMENT = Table(
  columns={
    "cifar10": Column(
      "CIFAR-10",
      "cifar10_refine",
      generator="its own SN-GAN (FID 18.58, batch-norm epsilon 0.001)",
      sngan="cifar10_sngan",
    ),
    "celeba64": Column(
      "CelebA 64",
      "celeba64_refine",
      jpeg=True,
      generator="its own SN-GAN (FID 6.13, batch-norm epsilon 0.001)",
      sngan="celeba64_sngan",
    ),
  },
  rows=(
    Row(
      "SN-GAN (start)",
      {"CIFAR-10": "18.58 ± 0.08", "CelebA 64": "6.13 ± 0.03"},
    ),
    # The recipe is the same, the networks have a batch-norm epsilon of 1e-5,
    # and CelebA is trained on all of its images.
    Row(
      "SN-GAN of torch-mimicry",
      {"CIFAR-10": "16.77", "CelebA 64": "5.71"},
      MIMICRY,
    ),
    Row("DDLS", {"CIFAR-10": "14.59 ± 0.07", "CelebA 64": "6.06 ± 0.01"}),
    Row("Hat EBM", {"CIFAR-10": "14.04 ± 0.11", "CelebA 64": "5.98 ± 0.02"}),
  ),
)

RETROFIT = Table(
  columns={
    "cifar10": Column(
      "CIFAR-10",
      "cifar10_retrofit",
      generator="the decoder of its own autoencoder",
    )
  },
  rows=(Row("Hat EBM", {"CIFAR-10": "26.01"}),),
)

_CLIP_NOTE = (
  "The published code clips the gradient of each replica; here the mean "
  "gradient is clipped."
)
SYNTHESIS = Table(
  columns={
    "cifar10": Column(
      "CIFAR-10",
      "cifar10",
      note=(
        "The published network may have been trained at temperature 0.001: the "
        "published training file says 1e-08, its evaluation file 0.001."
      ),
    ),
    "celeba64": Column("CelebA 64", "celeba64", jpeg=True),
    "imagenet128": Column(
      "ImageNet 128", "imagenet128", jpeg=True, note=_CLIP_NOTE
    ),
    "imagenet128_large": Column(
      "ImageNet 128, large", "imagenet128_large", jpeg=True, note=_CLIP_NOTE
    ),
  },
  rows=(
    Row(
      "Hat EBM",
      {
        "CIFAR-10": "19.30 ± 0.15",
        "CelebA 64": "11.57 ± 0.04",
        "ImageNet 128": "40.24 ± 0.18",
        "ImageNet 128, large": "29.37 ± 0.15",
      },
    ),
    Row("Improved CD", {"CIFAR-10": "25.1"}, "Du et al. 2021"),
    Row("VERA", {"CIFAR-10": "27.5"}, "Grathwohl et al. 2021"),
    Row("Divergence triangle", {"CelebA 64": "31.9"}, "Han et al. 2019"),
    Row("CoopNets", {"CIFAR-10": "33.6"}, "Xie et al. 2018"),
    Row("Flow EBM", {"CIFAR-10": "37.3"}, "Gao et al. 2020"),
    Row("JEM", {"CIFAR-10": "38.4"}, "Grathwohl et al. 2020"),
    Row("IGEBM", {"CIFAR-10": "40.6"}, "Du and Mordatch 2019"),
    Row("DDPM", {"CIFAR-10": "3.2"}, "Ho et al. 2020"),
    Row(
      "NCSNv2",
      {"CIFAR-10": "10.9", "CelebA 64": "10.2"},
      "Song and Ermon 2020",
    ),
    # The paper measured its own SN-GANs on the first two data sets.
    Row("SN-GAN", {"CIFAR-10": "18.6", "CelebA 64": "6.1"}),
    Row(
      "SN-GAN of torch-mimicry",
      {"CIFAR-10": "16.77", "CelebA 64": "5.71", "ImageNet 128": "65.7"},
      MIMICRY,
    ),
    Row(
      "SS-GAN",
      {"ImageNet 128": "43.9", "ImageNet 128, large": "23.4"},
      "Chen et al. 2019",
    ),
    Row("InfoMax-GAN", {"ImageNet 128": "58.9"}, "Lee et al. 2021"),
  ),
)

# The table holds the AUROC of the energy of the CIFAR-10 synthesis hat. The
# columns are found by the source that config.ood.sets names.
OOD_IN_DISTRIBUTION = "tfds:cifar10"
OOD = Table(
  columns={
    "tfds:svhn_cropped": Column("SVHN", "cifar10"),
    "tfds:cifar100": Column("CIFAR-100", "cifar10"),
    "tfds:celeb_a": Column("CelebA", "cifar10"),
  },
  rows=(
    Row(
      "Hat EBM, energy",
      {"SVHN": "0.92", "CIFAR-100": "0.87", "CelebA": "0.94"},
    ),
  ),
)
# This note stands beside the cited figures wherever they are printed.
OOD_NOTE = (
  "The published AUROCs are cited as an aggregator reports them; the paper's "
  "full table was not seen. Their exact checkpoint and splits are not known."
)
