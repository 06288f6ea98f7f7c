"""Published figures that stand beside ours. All of them are *cited*.

The rows of Hat EBM, of the SN-GAN that it refines and of DDLS on that SN-GAN
are figures of Hill et al. (NeurIPS 2022). The other rows are models that the
paper compares with. Their `source` names the paper that they come from; some
papers round to one decimal.
"""

from typing import NamedTuple

# Samples are 520 batches of 96. They are compared with as many training images.
NUM_IMAGES = 49_920
HAT_EBM = "Hill et al. 2022"


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
  """

  title: str
  config: str


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
    "cifar10": Column("CIFAR-10", "cifar10_refine"),
    "celeba64": Column("CelebA 64", "celeba64_refine"),
  },
  rows=(
    Row(
      "SN-GAN (start)",
      {"CIFAR-10": "18.58 ± 0.08", "CelebA 64": "6.13 ± 0.03"},
    ),
    Row("DDLS", {"CIFAR-10": "14.59 ± 0.07", "CelebA 64": "6.06 ± 0.01"}),
    Row("Hat EBM", {"CIFAR-10": "14.04 ± 0.11", "CelebA 64": "5.98 ± 0.02"}),
  ),
)

RETROFIT = Table(
  columns={"cifar10": Column("CIFAR-10", "cifar10_retrofit")},
  rows=(Row("Hat EBM", {"CIFAR-10": "26.01"}),),
)

SYNTHESIS = Table(
  columns={
    "cifar10": Column("CIFAR-10", "cifar10"),
    "celeba64": Column("CelebA 64", "celeba64"),
    "imagenet128": Column("ImageNet 128", "imagenet128"),
    "imagenet128_large": Column("ImageNet 128, large", "imagenet128_large"),
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
    Row(
      "SN-GAN",
      {"CIFAR-10": "18.6", "CelebA 64": "6.1", "ImageNet 128": "65.7"},
      "Lee and Town 2020",
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
