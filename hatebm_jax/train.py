"""The training loop of every objective: data, step, metrics, checkpoint."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from hatebm_jax import compile as compile_lib
from hatebm_jax import config as config_lib
from hatebm_jax import (
  data,
  errors,
  feed,
  networks,
  objectives,
  pixels,
  restore,
  sharding,
)
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import learner
from hatebm_jax.objectives.parts.objective import Objective, ShownImages
from hatebm_jax.run import (
  checkpoint,
  divergence,
  files,
  lock,
  logs,
  profile,
  signals,
  weights,
  workdir,
)

_NUM_SHOWN = 64  # images in a grid
# The file that lists the images of the step at which a metric was not finite.
NON_FINITE = "nonfinite.json"
_ADVICE = (
  "give the same command with a lower --config.hat.learning_rate or with "
  "--config.hat.max_grad_norm."
)


class TrainingError(errors.UserError):
  """Training cannot go on."""


@dataclasses.dataclass(frozen=True)
class _Setting:
  """What stays the same however often a run goes back."""

  config: ml_collections.ConfigDict
  path: epath.Path
  mesh: Mesh
  objective: Objective
  source: data.Source
  saved: checkpoint.Checkpoints
  test_fn: Callable[[Any], float] | None
  received: list[signal.Signals]  # what has asked this process to stop


@dataclasses.dataclass(frozen=True)
class _Run(_Setting):
  """What the loop works with: a setting, and what one attempt has."""

  log: logs.RunLog
  watch: divergence.Watch
  rng: jax.Array  # the key of all training steps


def train(
  config: ml_collections.ConfigDict,
  path: epath.PathLike,
  generator: networks.Generator | None = None,
  hat: networks.Hat | None = None,
) -> signal.Signals | None:
  """Trains a run up to `config.train.num_steps`, from its newest checkpoint.

  Args:
    config: Config of the experiment.
    path: Path of the workdir.
    generator: Generator of the user's own, to put a joint run's hat on; None:
      the generator of the config.
    hat: Hat of the user's own; None: the hat of the config.

  Returns:
    The signal that stopped the run, such as SIGTERM; None if none came.
    The newest checkpoint has all its steps, and the same command resumes it.

  Raises:
    ConfigError: If a field of the config cannot be used.
    CheckpointError: If no checkpoint of a run is whole, or none can be written.
    ReleaseError: If the workdir is a release, or one that the config names
      cannot be used.
    TrainingError: If training has diverged and `config.train.on_divergence`
      does not mend it. The message names the last good checkpoint.
    WorkdirError: If the workdir is in use, or holds a run with another config.
  """
  path = files.as_path(path)
  config_lib.check(config)
  weights.refuse_training(path)
  mesh = sharding.make_mesh()
  _check_together(config, path, mesh)
  objective = objectives.make(config, mesh, generator, hat)
  received: list[signal.Signals] = []
  with _hold(path), signals.catch(received, *signals.to_stop()):
    # A wrong source must neither claim the workdir nor wait for data.
    frozen = () if checkpoint.steps(path) else objective.load_frozen()
    source = data.open_source(config.data, "train")
    test_fn = feed.make_test(config, objective, mesh)
    workdir.claim(path, config, jax.process_index() == 0)
    if not jax.config.jax_compilation_cache_dir:
      jax.config.update("jax_compilation_cache_dir", str(path / "xla_cache"))
    kept = config.train.keep_checkpoints, False, config.train.keep_every
    with checkpoint.Checkpoints(path, *kept) as saved:
      setting = _Setting(
        config, path, mesh, objective, source, saved, test_fn, received
      )
      _train_until_done(setting, frozen)
    return _stopped_by(received)  # It may have come during the last save.


def _check_together(
  config: ml_collections.ConfigDict, path: epath.Path, mesh: Mesh
) -> None:
  """Checks fields that must fit together, or fit the workdir or the devices."""
  data.check_batch(config.train.batch_size, mesh.size)
  data.check_workdir(config.data.source, path)
  feed.check_dispatch(config.train)
  profile.check(config.train)


def _stopped_by(received: list[signal.Signals]) -> signal.Signals | None:
  """Returns what stops the run; on all processes if one has got a signal."""
  (stopped,) = sharding.any_process(bool(received))
  return (received or [signal.SIGTERM])[0] if stopped else None


@contextlib.contextmanager
def _hold(path: epath.Path) -> Iterator[None]:
  """Holds the workdir for all processes of the run."""
  with contextlib.ExitStack() as stack:
    refusal = None
    if jax.process_index() == 0:
      try:
        stack.enter_context(lock.hold(path))
      except workdir.WorkdirError as error:
        refusal = error
    (refused,) = sharding.any_process(refusal is not None)
    if refused:
      raise refusal or workdir.WorkdirError(
        f"{path} is in use; the message of process 0 says by whom."
      )
    yield


def _train_until_done(
  setting: _Setting, frozen: tuple[Any, ...] | None
) -> None:
  """Trains until the end or a signal, and goes back where that is asked for."""
  while True:
    try:
      return _train(setting, frozen)
    except divergence.DivergedError as error:
      _go_back(setting, error)
    frozen = None


def _train(setting: _Setting, frozen: tuple[Any, ...] | None) -> None:
  """Trains from the newest checkpoint on, until the end or a divergence."""
  config, path = setting.config, setting.path
  writes = jax.process_index() == 0
  state, first_step = restore.restore_or_init(
    config,
    setting.objective,
    setting.mesh,
    setting.saved,
    frozen,
    functools.partial(_announce, setting),
  )
  note = setting.saved.note(first_step) if first_step else {}
  feed.check_images(
    note.pop("num_images", None),
    setting.source,
    workdir.read_config(path).data,
    config.data,
  )
  if writes:
    workdir.resume(path, config, first_step)
    learner.describe(state)
  with contextlib.ExitStack() as stack:
    log = logs.RunLog(path, first_step, writes, note)
    stack.enter_context(contextlib.closing(log))
    run = _Run(
      **vars(setting),
      log=log,
      watch=divergence.follow(
        config.divergence, workdir.read_metrics(path, first_step)
      ),
      rng=_training_rng(config, len(divergence.rollbacks(path))),
    )
    batches = data.batches(
      run.source,
      _num_images(run),
      config.seed,
      first_step,
      jax.process_index(),
      jax.process_count(),
    )
    stack.enter_context(contextlib.closing(batches))
    _loop(run, state, first_step, batches)


def _note(run: _Run) -> dict[str, Any]:
  """Returns what is kept with a checkpoint besides the state."""
  return run.log.unwritten() | {"num_images": run.source.num_images}


def _training_rng(
  config: ml_collections.ConfigDict, num_rollbacks: int
) -> jax.Array:
  """Returns the key of all training steps, another one after each rollback."""
  rng = rng_lib.stream(jax.random.key(config.seed), "train")
  return jax.random.fold_in(rng, num_rollbacks) if num_rollbacks else rng


def _num_images(run: _Run) -> int:
  """Returns the number of images that a training step takes."""
  return run.config.train.batch_size * run.objective.batches_per_step


def _announce(setting: _Setting, first_step: int) -> None:
  """Prints what is about to be trained."""
  if jax.process_index() > 0:
    return
  source, devices = setting.source, setting.mesh.devices.flat
  action = f"Resuming at step {first_step}" if first_step else "Training"
  print(
    f"{action}: {setting.config.objective} on {source.name} "
    f"({source.num_images} images), {len(devices)} x "
    f"{devices[0].device_kind}, "
    f"{jax.process_count()} process(es). The first step compiles.",
    flush=True,
  )


def _loop(
  run: _Run, state: Any, first_step: int, batches: Iterator[np.ndarray]
) -> None:
  """Takes the steps that are left, until the end or a signal."""
  if _stopped_by(run.received):
    print("Stopped before the next training step.", flush=True)
    return
  options = run.config.train
  step_fn = compile_lib.compile_steps(run.objective, state)
  profiled = profile.Profile(run.path, options, first_step)
  saved_at = time.monotonic()
  catching = signals.catch(run.received, signal.SIGINT)
  with catching, contextlib.closing(profiled):
    for steps, images, wait in feed.dispatches(
      options, first_step, batches, run.mesh
    ):
      step = int(steps[-1])
      profiled.before(steps)
      state, metrics, shown = step_fn(state, images, run.rng, steps)
      profiled.after(steps, state)
      run.log.add(steps, metrics, wait)
      _report(run, step, state, shown)
      stop, overdue = sharding.any_process(
        bool(run.received),
        time.monotonic() - saved_at > 60 * options.checkpoint_minutes,
        after=metrics,
      )
      last = step == options.num_steps
      due = step % options.checkpoint_every == 0 or overdue
      # A state that a rollback will undo must not push out good checkpoints.
      due = due and (run.watch.is_well or options.on_divergence == "warn")
      if due or stop or last:
        _check(run)
        _save(run, step, state)
        saved_at = time.monotonic()
      if stop:
        print(
          f"Stopped at training step {step}; its checkpoint is in "
          f"{run.saved.path}. The same command resumes the run.",
          flush=True,
        )
        return


def _save(run: _Run, step: int, state: Any) -> None:
  """Starts to save a state, after the checkpoint before it is written."""
  started = time.monotonic()
  run.saved.save(step, state, _note(run))
  run.log.add_saving(time.monotonic() - started)


def _report(run: _Run, step: int, state: Any, shown: ShownImages) -> None:
  """Writes metrics and images where they are due."""
  options = run.config.train
  last = step == options.num_steps
  if run.test_fn and (step % options.test_every == 0 or last):
    run.log.note({"test_loss": run.test_fn(state)})
  if step % options.log_every == 0 or last:
    _check(run)
    broken = run.watch.update(step, run.log.write(step, options.num_steps))
    if broken:
      _diverged(run, broken)
  if step % options.image_every == 0 or last:
    images = sharding.fetch({k: v[:_NUM_SHOWN] for k, v in shown.items()})
    images = {name: pixels.to_uint8(x) for name, x in images.items()}
    run.log.write_images(step, images)


def _check(run: _Run) -> None:
  """Raises if a metric is not finite, so that no such state is saved."""
  try:
    run.log.check()
  except logs.NonFiniteError as error:
    _note_batch(run, error)
    if run.config.train.on_divergence == "rollback":
      found = divergence.Divergence(error.step, "not_finite", str(error))
      raise divergence.DivergedError(found, run.watch.good_step) from error
    step = run.saved.latest_step()
    good = "there is none" if step is None else f"{run.saved.path / str(step)}"
    raise TrainingError(
      f"{error}. Training has diverged and ends here. The last good "
      f"checkpoint: {good}. The images of that step are listed in "
      f"{run.path / NON_FINITE}. The same command would repeat the same "
      "steps. To go on with other random numbers, add "
      f"--config.train.on_divergence=rollback; or {_ADVICE}"
    ) from error


def _note_batch(run: _Run, error: logs.NonFiniteError) -> None:
  """Writes which images the step saw at which a metric is not finite."""
  if jax.process_index() > 0:
    return
  indices = None  # A streamed source does not tell.
  if not run.source.stream:
    # Batches are counted from 0, training steps from 1.
    indices = data.batch_indices(
      run.source.num_images, _num_images(run), run.config.seed, error.step - 1
    ).tolist()
  note = {
    "step": error.step,
    "found": str(error),
    "source": run.source.name,
    "indices": indices,
  }
  files.write_json(run.path / NON_FINITE, note)


def _diverged(run: _Run, broken: divergence.Divergence) -> None:
  """Warns of a broken rule, or ends this attempt."""
  if run.config.train.on_divergence == "rollback":
    raise divergence.DivergedError(broken, run.watch.good_step)
  if jax.process_index() == 0:
    print(
      f"warning: {broken} in {run.config.divergence.patience} logs in a row: "
      "training looks diverged. --config.train.on_divergence=rollback goes "
      "back when this happens.",
      flush=True,
    )


def _go_back(setting: _Setting, error: divergence.DivergedError) -> None:
  """Makes the last good checkpoint the newest one, and records that.

  Raises:
    TrainingError: If the run has gone back as often as it may.
  """
  num_rollbacks = len(divergence.rollbacks(setting.path))
  if num_rollbacks >= setting.config.train.max_rollbacks:
    raise TrainingError(
      f"{error}. The run has gone back {num_rollbacks} times, as often as "
      f"config.train.max_rollbacks allows, and ends here; {_ADVICE}"
    ) from error
  to = setting.saved.go_back(error.good_step)
  sharding.any_process(False)  # No process reads the record before all have.
  if jax.process_index() == 0:
    divergence.record(setting.path, error.divergence, to)
    print(
      f"{error}. Going back to training step {to}, with other random numbers "
      f"(rollback {num_rollbacks + 1} of at most "
      f"{setting.config.train.max_rollbacks}).",
      flush=True,
    )
  sharding.any_process(False)  # The record is there before anyone reads it.
