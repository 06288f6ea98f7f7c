"""The rows of the paper's tables, and the commands that make each of them.

A row is named TABLE-DATA. Its stages are commands that a user may type, in
their order. The runs of all rows lie side by side in one workdir, under the
names of their configs, so that rows share them.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from experiments import published
from hatebm_jax import config_flag
from hatebm_jax.run import workdir

TABLE = "table.md"
# Endings of the configs of a table's hats, and of the runs they start from.
_HATS = {
  "synthesis": "",
  "refinement": "_refine",
  "retrofit": "_retrofit",
  "ood": "",
}
_STARTS = {"refinement": "_sngan", "retrofit": "_autoencoder"}
# Folders of images that `experiments.table_ood.prepare` makes for the digits.
_OOD_DIGITS = ("photographs", "turned")
# Settings of --budget=tiny: every row ends within seconds.
_TINY = {
  "model.width": 8,
  "model.latent_size": 4,
  "train.num_steps": 4,
  "train.batch_size": 8,
  "train.image_every": 100,
  "train.checkpoint_every": 2,
  "langevin.num_steps": 2,
  "generator.bank_size": 24,
  "sngan.discriminator_width": 8,
  "sample.num_images": 8,
  "sample.batch_size": 8,
  "evaluate.num_steps": 2,
  "chains.num_chains": 0,
  "metrics.num_references": 32,
  "ood.num_images": 8,
  "ood.bootstraps": 20,
}


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
  f"{row.table}-{row.data}": row
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
    overrides: Fields of the config for all commands, `--config.group.field=...`
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


class Stage(NamedTuple):
  """A command of a row.

  Attributes:
    name: Name of the stage, unique in its row.
    command: Words of the command, without the interpreter.
    outputs: Paths of what it leaves; it is done if they are there.
    prints: Path of the file that its standard output goes to; None shows it.
  """

  name: str
  command: tuple[str, ...]
  outputs: tuple[pathlib.Path, ...]
  prints: pathlib.Path | None = None


class Plan(NamedTuple):
  """The stages of a row.

  Attributes:
    out: Path of the folder of the row's figures.
    prepare: Stages that make images and weights without a download.
    train: Stages that train, by the name of the config.
    measure: Stages that measure and make the table.
    runs: Folders of the runs, or of what was taken in their place, by the name
      of the config.
  """

  out: pathlib.Path
  prepare: list[Stage]
  train: dict[str, Stage]
  measure: list[Stage]
  runs: dict[str, pathlib.Path]

  def stages(self) -> list[Stage]:
    """Returns all stages in their order."""
    return [*self.prepare, *self.train.values(), *self.measure]


def plan(name: str, options: Options) -> Plan:
  """Returns the stages of a row.

  Args:
    name: Name of the row.
    options: What the user chose.
  """
  row = ROWS[name]
  commands = _Commands(name, row, options)
  trained = [x for x in row.configs if x not in options.taken]
  return Plan(
    commands.out,
    commands.prepare(),
    {config: commands.train(config) for config in trained},
    [commands.evaluate(), commands.table()],
    {config: commands.run(config) for config in row.configs},
  )


class _Commands:
  """The commands of one row.

  Attributes:
    out: Path of the folder of the row's figures.
  """

  def __init__(self, name: str, row: Row, options: Options):
    self._row, self._options = row, options
    self.out = options.workdir / name

  def run(self, config: str) -> pathlib.Path:
    """Returns the folder of a run, or of what was taken in its place."""
    taken = self._options.taken.get(config)
    return pathlib.Path(taken) if taken else self._options.workdir / config

  def prepare(self) -> list[Stage]:
    """Returns the stages that make images and weights without a download."""
    result = []
    if self._row.table == "ood" and (
      self._row.is_twin or self._options.is_tiny
    ):
      for kind in _OOD_DIGITS:
        out = self._options.workdir / f"images_{kind}"
        words = "-m", "experiments.table_ood.prepare", kind, str(out)
        result.append(Stage(f"prepare {kind}", words, (out,)))
    if self._options.is_tiny and not self._row.is_twin:
      out = self._stand_ins()
      words = "-m", "experiments.paper.stand_ins", f"--out={out}"
      words += (f"--image_size={self._row.image_size}",)
      result.append(
        Stage(
          "prepare stand-ins", words, (out / "train", out / "inception.npz")
        )
      )
    return result

  def _stand_ins(self) -> pathlib.Path:
    return self._options.workdir / f"stand_ins_{self._row.image_size}"

  def train(self, config: str) -> Stage:
    """Returns the stage that trains a run."""
    path = self.run(config)
    words = (
      "-m",
      "hatebm_jax.main",
      f"--config={config}",
      f"--workdir={path}",
      f"--config.seed={self._options.seed}",
      *self._tiny(config),
    )
    if self._row.start and config == self._row.config:
      words += self._generator()
    words += self._options.overrides
    # SIGTERM also ends a training command with the status of success.
    step = config_flag.load(fields(words)).train.num_steps
    last = path / "checkpoints" / str(step)
    return Stage(f"train {config}", words, (last,))

  def _tiny(self, config: str) -> tuple[str, ...]:
    """Returns the fields of a tiny budget."""
    if not self._options.is_tiny:
      return ()
    fields = dict(_TINY)
    if config.endswith("_autoencoder"):
      fields["train.test_every"] = fields["train.num_steps"]
    if not self._row.is_twin:
      fields["data.source"] = f"folder:{self._stand_ins()}"
    return tuple(f"--config.{name}={value}" for name, value in fields.items())

  def _generator(self) -> tuple[str, ...]:
    """Returns the fields of the generator that a hat is put on."""
    path = self.run(self._row.start)
    words = (f"--config.generator.source={path}",)
    if self._row.table == "refinement":
      # The generator's own; the paper's and torch-mimicry's differ.
      epsilon = 1e-5
      if self._row.start in self._options.taken:
        epsilon = workdir.read_config(path).generator.norm_epsilon
      words += (f"--config.generator.norm_epsilon={epsilon:g}",)
    return words

  def evaluate(self) -> Stage:
    """Returns the stage that measures the row's run."""
    words = (
      "-m",
      "hatebm_jax.main",
      f"--workdir={self.run(self._row.config)}",
      "--mode=evaluate",
      f"--out={self.out}",
      "--config.chains.num_chains=0",  # No table shows them.
    )
    if self._row.table == "ood":
      words += self._ood()
    elif not self._row.is_twin:
      words += self._protocol()
    if self._row.config in self._options.taken:
      words += (f"--config.seed={self._options.seed}",)
      words += self._options.overrides
    return Stage("evaluate", words, (self.out / workdir.EVALUATION,))

  def _ood(self) -> tuple[str, ...]:
    """Returns the fields of out-of-distribution detection."""
    if self._row.is_twin or self._options.is_tiny:
      sets = tuple(
        f"folder:{self._options.workdir / f'images_{kind}'}"
        for kind in _OOD_DIGITS
      )
      return (f"--config.ood.sets={sets}",)
    sets = tuple(published.OOD.columns)
    return f"--config.ood.sets={sets}", "--config.ood.num_images=10000"

  def _protocol(self) -> tuple[str, ...]:
    """Returns the fields of the paper's protocol."""
    if self._options.is_tiny:
      return (f"--config.metrics.inception={self._stand_ins()}/inception.npz",)
    return (
      "--config.metrics.protocol=paper",
      f"--config.metrics.inception={self._options.inception}",
    )

  def table(self) -> Stage:
    """Returns the stage that makes the table."""
    module = f"experiments.table_{self._row.table}.table"
    run = f"{self._row.data}={self.run(self._row.config)},{self.out}"
    file = self.out / TABLE
    return Stage("table", ("-m", module, run), (file,), file)


def fields(command: tuple[str, ...]) -> list[str]:
  """Returns the arguments of a command that make its config."""
  return [x for x in command if x.startswith(("--config=", "--config."))]
