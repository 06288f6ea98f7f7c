"""The commands that make a row, in their order.

The runs of all rows lie side by side in one workdir under the names of their
configs, so that rows share them. A row's own folder holds its figures.
"""

import json
import pathlib
from typing import NamedTuple

from experiments import published
from experiments.paper.rows import Options, Row
from hatebm_jax import config_flag
from hatebm_jax.run import files, weights, workdir

TABLE = "table.md"
# Folders of images that `experiments.table_ood.prepare` makes for the digits.
_OOD_DIGITS = ("photographs", "turned")
# Settings of --budget=tiny: every row ends within a minute or two.
_TINY = {
  "model.latent_size": 4,
  "train.num_steps": 4,
  "train.batch_size": 8,
  "train.image_every": 100,
  "train.checkpoint_every": 2,
  "langevin.num_steps": 2,
  "generator.bank_size": 24,
  "sample.num_images": 6,
  "sample.batch_size": 8,
  "evaluate.num_steps": 2,
  "chains.num_chains": 0,
  "metrics.num_references": 6,
  "ood.num_images": 8,
  "ood.bootstraps": 20,
}
# What the search of DDLS tries. The twins have the grid of the command.
_TINY_SEARCH = ("--steps=2", "--step_sizes=0.1")
_PAPER_SEARCH = ("--steps=20,40,80,160", "--step_sizes=0.01,0.03,0.1,0.3")
_SEARCH_IMAGES = 1_000
_MAIN = ("-m", "hatebm_jax.main")


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

  @property
  def fields(self) -> list[str]:
    """Returns the arguments that make the command's config."""
    return [x for x in self.command if x.startswith(("--config=", "--config."))]


class Plan(NamedTuple):
  """The stages of a row.

  Attributes:
    prepare: Stages that make images and weights without a download.
    train: Stages that train, by the name of the config.
    measure: Stages that measure and make the table.
  """

  prepare: list[Stage]
  train: dict[str, Stage]
  measure: dict[str, Stage]

  def stages(self) -> dict[str, Stage]:
    """Returns all stages in their order, by their names."""
    found = [*self.prepare, *self.train.values(), *self.measure.values()]
    return {stage.name: stage for stage in found}


def plan(row: Row, options: Options) -> Plan:
  """Returns the stages of a row.

  The search of DDLS chooses numbers that a later command has. As long as it
  has not run, N and EPS stand for them.

  Args:
    row: The row.
    options: What the user chose.
  """
  commands = _Commands(row, options)
  measure = [commands.evaluate()]
  if commands.has_ddls():
    measure += [commands.search_ddls(), commands.evaluate_ddls()]
  measure.append(commands.table())
  return Plan(
    commands.prepare(),
    {x: commands.train(x) for x in trained(row, options)},
    {stage.name: stage for stage in measure},
  )


def trained(row: Row, options: Options) -> list[str]:
  """Returns the configs whose runs are trained.

  A run whose hat was taken does not need the run that the hat started from.

  Args:
    row: The row.
    options: What the user chose.
  """
  if row.config in options.taken:
    return []
  return [x for x in row.configs if x not in options.taken]


def run_folder(config: str, options: Options) -> pathlib.Path:
  """Returns the folder of a run, or of what was taken in its place."""
  taken = options.taken.get(config)
  return pathlib.Path(taken) if taken else options.workdir / config


class _Commands:
  """The commands of one row.

  Args:
    row: The row.
    options: What the user chose.
  """

  def __init__(self, row: Row, options: Options):
    self._row, self._options = row, options
    self._out = options.workdir / row.name
    self._stand_ins = options.workdir / f"stand_ins_{row.image_size}"

  def _run(self, config: str) -> pathlib.Path:
    return run_folder(config, self._options)

  def prepare(self) -> list[Stage]:
    """Returns the stages that make images and weights without a download."""
    result = []
    if self._row.table == "ood" and self._is_local():
      for kind in _OOD_DIGITS:
        out = self._ood_images(kind)
        words = "-m", "experiments.table_ood.prepare", kind, str(out)
        result.append(Stage(f"prepare {kind}", words, (out,)))
    if self._options.is_tiny and not self._row.is_twin:
      words = "-m", "experiments.paper.stand_ins", f"--out={self._stand_ins}"
      words += (f"--image_size={self._row.image_size}",)
      network = self._stand_ins / "inception.npz"  # It is written last.
      result.append(Stage("prepare stand-ins", words, (network,)))
    return result

  def _is_local(self) -> bool:
    """Returns whether all images are made here."""
    return self._row.is_twin or self._options.is_tiny

  def _ood_images(self, kind: str) -> pathlib.Path:
    return self._options.workdir / f"images_{kind}"

  def train(self, config: str) -> Stage:
    """Returns the stage that trains a run, or goes on with it."""
    path = self._run(config)
    words = (
      *_MAIN,
      f"--config={config}",
      f"--workdir={path}",
      f"--config.seed={self._options.seed}",
      *self._tiny(config),
    )
    if self._row.start and config == self._row.config:
      words += self._generator()
    stage = Stage(f"train {config}", words + self._options.overrides, ())
    step = config_flag.load(stage.fields).train.num_steps
    return stage._replace(outputs=(path / "checkpoints" / str(step),))

  def _tiny(self, config: str) -> tuple[str, ...]:
    """Returns the fields of a tiny budget."""
    if not self._options.is_tiny:
      return ()
    fields = dict(_TINY)
    # Networks of larger images have widths that are multiples of 16.
    width = 8 if self._row.image_size <= 32 else 16
    fields |= {"model.width": width, "sngan.discriminator_width": width}
    if config.endswith("_autoencoder"):
      fields["train.test_every"] = fields["train.num_steps"]
    if not self._row.is_twin:
      fields["data.source"] = f"folder:{self._stand_ins}"
    return tuple(f"--config.{name}={value}" for name, value in fields.items())

  def _generator(self) -> tuple[str, ...]:
    """Returns the fields of the generator that a hat is put on."""
    path = self._run(self._row.start)
    words = (f"--config.generator.source={path}",)
    if self._row.table == "refinement":
      # It is the generator's own; the paper's and torch-mimicry's differ.
      epsilon = 1e-5
      if self._row.start in self._options.taken:
        found = workdir.read_config(files.as_path(path))
        epsilon = found.generator.norm_epsilon
      words += (f"--config.generator.norm_epsilon={epsilon:g}",)
    return words

  def evaluate(self) -> Stage:
    """Returns the stage that measures the row's run."""
    words = self._evaluation(self._row.config, self._out)
    words += ("--config.chains.num_chains=0",)  # No table shows them.
    words += self._ood() if self._row.table == "ood" else self._protocol()
    return Stage("evaluate", words, (self._out / workdir.EVALUATION,))

  def _evaluation(self, config: str, out: pathlib.Path) -> tuple[str, ...]:
    """Returns the words of the command that measures a run."""
    words = (*_MAIN, f"--workdir={self._run(config)}", "--mode=evaluate")
    words += (f"--out={out}",)
    if config in self._options.taken:
      words += (f"--config.seed={self._options.seed}",)
      words += self._options.overrides
    return words

  def _ood(self) -> tuple[str, ...]:
    """Returns the fields of out-of-distribution detection."""
    if self._is_local():
      sets = tuple(f"folder:{self._ood_images(x)}" for x in _OOD_DIGITS)
      return (f"--config.ood.sets={sets}",)
    sets = tuple(published.OOD.columns)
    return f"--config.ood.sets={sets}", "--config.ood.num_images=10000"

  def _inception(self) -> tuple[str, ...]:
    """Returns the field of the Inception network, if the row needs one."""
    if self._row.is_twin:
      return ()
    file = self._options.inception
    if self._options.is_tiny:
      file = self._stand_ins / "inception.npz"
    return (f"--config.metrics.inception={file}",)

  def _protocol(self) -> tuple[str, ...]:
    """Returns the fields of the protocol of image quality."""
    if self._is_local():
      return self._inception()
    return "--config.metrics.protocol=paper", *self._inception()

  def has_ddls(self) -> bool:
    """Returns whether there is an SN-GAN with its discriminator."""
    start, options = self._row.start, self._options
    if self._row.table != "refinement":
      return False
    if start in trained(self._row, options):
      return True
    if start not in options.taken:
      return False
    path = self._run(start)
    if not weights.is_release(path):
      return True
    release = weights.Release(path)
    names = release.shapes(release.steps()[0])
    return any(name.startswith("discriminator/") for name in names)

  def search_ddls(self) -> Stage:
    """Returns the stage that chooses length and step size of DDLS."""
    out = self._ddls() / "search.json"
    grid = () if self._row.is_twin else _PAPER_SEARCH
    words = (
      "-m",
      "experiments.ddls_search",
      f"--workdir={self._run(self._row.start)}",
      f"--out={out}",
      *(_TINY_SEARCH if self._options.is_tiny else grid),
      *self._inception(),
    )
    if not self._options.is_tiny:
      words += (f"--config.sample.num_images={_SEARCH_IMAGES}",)
    return Stage("search DDLS", words, (out,))

  def _ddls(self) -> pathlib.Path:
    return self._out / "ddls"

  def evaluate_ddls(self) -> Stage:
    """Returns the stage that measures DDLS."""
    num_steps, step_size = "N", "EPS"
    found = self._ddls() / "search.json"
    if found.exists():
      best = json.loads(found.read_text())["best"]
      num_steps, step_size = best["num_steps"], f"{best['step_size']:g}"
    words = (
      *self._evaluation(self._row.start, self._ddls()),
      f"--config.ddls.num_steps={num_steps}",
      f"--config.ddls.step_size={step_size}",
      *self._protocol(),
    )
    return Stage("evaluate DDLS", words, (self._ddls() / workdir.EVALUATION,))

  def table(self) -> Stage:
    """Returns the stage that makes the table."""
    words = ["-m", f"experiments.table_{self._row.table}.table"]
    label = self._row.data
    words.append(f"{label}={self._run(self._row.config)},{self._out}")
    if self.has_ddls():
      words.append(f"{label}={self._run(self._row.start)},{self._ddls()}")
    file = self._out / TABLE
    return Stage("table", tuple(words), (file,), file)
