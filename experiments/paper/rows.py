"""The rows of the paper's tables, and what a user chooses for one."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

# Endings of the configs of a table's hats, and of the runs they start from.
_HATS = {
  "synthesis": "",
  "refinement": "_refine",
  "retrofit": "_retrofit",
  "ood": "",
}
_STARTS = {"refinement": "_sngan", "retrofit": "_autoencoder"}


class Row(NamedTuple):
  """A row of a table.

  Attributes:
    table: Name of the table.
    data: Name of the data, the label of the row's column.
    image_size: Height and width of the images in pixels.
  """

  table: str
  data: str
  image_size: int

  @property
  def name(self) -> str:
    """Returns the name that the command line gives the row."""
    return f"{self.table}-{self.data}"

  @property
  def is_twin(self) -> bool:
    """Returns whether the row is a twin on the digits, not the paper's."""
    return self.data == "digits"

  @property
  def config(self) -> str:
    """Returns the name of the config whose run is measured."""
    return self.data + _HATS[self.table]

  @property
  def start(self) -> str:
    """Returns the config that trains the hat's generator; '' if none does."""
    start = _STARTS.get(self.table)
    return self.data + start if start else ""

  @property
  def configs(self) -> tuple[str, ...]:
    """Returns the configs of the runs in the order of their training."""
    return (self.start, self.config) if self.start else (self.config,)


ROWS = {
  row.name: row
  for row in (
    Row("synthesis", "cifar10", 32),
    Row("synthesis", "celeba64", 64),
    Row("synthesis", "imagenet128", 128),
    Row("synthesis", "imagenet128_large", 128),
    Row("synthesis", "digits", 16),
    Row("refinement", "cifar10", 32),
    Row("refinement", "celeba64", 64),
    Row("refinement", "digits", 16),
    Row("retrofit", "cifar10", 32),
    Row("retrofit", "digits", 16),
    Row("ood", "cifar10", 32),
    Row("ood", "digits", 16),
  )
}


class Options(NamedTuple):
  """What a user chose for a row.

  Attributes:
    workdir: Path of the folder of the runs.
    budget: 'full', or 'tiny' for a few steps on stand-in data.
    seed: Seed of all runs.
    inception: Path of the weights of the Inception network of 2015, or ''.
    taken: Folders of runs or releases by the name of the config that they stand
      for; they are not trained.
    overrides: Fields of the config for all runs, `--config.group.field=value`.
  """

  workdir: pathlib.Path
  budget: str = "full"
  seed: int = 0
  inception: str = ""
  taken: Mapping[str, str] = {}
  overrides: tuple[str, ...] = ()

  @property
  def is_tiny(self) -> bool:
    """Returns whether the row runs on stand-in data."""
    return self.budget == "tiny"
