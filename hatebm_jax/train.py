"""The training loop of every objective: data, step, metrics, checkpoint."""

import collections
import contextlib
import dataclasses
import itertools
import json
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from clu import parameter_overview, periodic_actions
from jax.sharding import Mesh

from hatebm_jax import data, errors, objectives, pixels, settings, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts import base, learner
from hatebm_jax.run import checkpoint, divergence, lock, logs, workdir

_NUM_SHOWN = 64  # images in a grid
_PROFILED_STEPS = 3
# The images of the step at which a metric was not finite.
NON_FINITE = "nonfinite.json"
_ADVICE = (
  "lower config.hat.learning_rate or set config.hat.max_grad_norm, in a new "
  "--workdir."
)


class TrainingError(errors.UserError):
  """Training cannot go on."""


@dataclasses.dataclass(frozen=True)
class _Setting:
  """What stays the same however often a run goes back."""

  config: ml_collections.ConfigDict
  path: pathlib.Path
  mesh: Mesh
  objective: base.Objective
  source: data.Source
  saved: checkpoint.Checkpoints
  test_fn: Callable[[Any], float] | None


@dataclasses.dataclass(frozen=True)
class _Run(_Setting):
  """What the loop works with: a setting, and what one attempt has."""

  log: logs.RunLog
  watch: divergence.Watch
  rng: jax.Array  # of all training steps


def train(
  config: ml_collections.ConfigDict,
  path: pathlib.Path,
  generator: base.Generator | None = None,
) -> signal.Signals | None:
  """Trains a run up to `config.train.num_steps`, from its newest checkpoint.

  Args:
    config: of the experiment.
    path: the workdir.
    generator: to put a joint run's hat on; None: that of the config.

  Returns:
    The signal (SIGTERM, SIGINT) that stopped the run, or None: it is complete.
    A stopped run has a checkpoint; the same command resumes it.

  Raises:
    ConfigError: if a field of the config cannot be used.
    CheckpointError: if no checkpoint of a run is whole, or none can be written.
    TrainingError: if training has diverged and `config.train.on_divergence`
      does not mend it; the last good checkpoint is named.
    WorkdirError: if the workdir is in use, or of a run with another config.
  """
  settings.check(config)
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  _check_dispatch(config.train)
  objective = objectives.make(config, mesh, generator)
  with _hold(path):
    # First of all: a wrong source must not claim the workdir, nor wait for
    # data.
    frozen = () if checkpoint.exists(path) else objective.load_frozen()
    source = data.open_source(config.data, "train")
    test_fn = _make_test(config, objective, mesh)
    workdir.claim(path, config, jax.process_index() == 0)
    if not jax.config.jax_compilation_cache_dir:
      jax.config.update("jax_compilation_cache_dir", str(path / "xla_cache"))
    with checkpoint.Checkpoints(path, config.train.keep_checkpoints) as saved:
      setting = _Setting(config, path, mesh, objective, source, saved, test_fn)
      return _train_until_done(setting, frozen)


@contextlib.contextmanager
def _hold(path: pathlib.Path) -> Iterator[None]:
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
) -> signal.Signals | None:
  """Trains until the end or a signal, going back where that is asked for."""
  while True:
    try:
      return _train(setting, frozen)
    except divergence.DivergedError as error:
      _go_back(setting, error)
    frozen = None


def _train(
  setting: _Setting, frozen: tuple[Any, ...] | None
) -> signal.Signals | None:
  """Trains from the newest checkpoint on, until the end or a divergence."""
  config, path = setting.config, setting.path
  writes = jax.process_index() == 0
  state, first_step = restore_or_init(
    config, setting.objective, setting.mesh, setting.saved, frozen
  )
  if writes:
    _describe(setting, state, first_step)
  with contextlib.ExitStack() as stack:
    unwritten = setting.saved.note(first_step) if first_step else None
    log = logs.RunLog(path, first_step, writes, unwritten)
    stack.enter_context(contextlib.closing(log))
    run = _Run(
      **vars(setting),
      log=log,
      watch=divergence.follow(
        config.divergence, workdir.read_metrics(path, first_step)
      ),
      rng=_training_rng(config, len(divergence.rollbacks(path))),
    )
    batches = _batches(run, first_step)
    stack.enter_context(contextlib.closing(batches))
    return _loop(run, state, first_step, batches)


def _training_rng(
  config: ml_collections.ConfigDict, num_rollbacks: int
) -> jax.Array:
  """Returns the key of all training steps: another one after every rollback."""
  rng = rng_lib.stream(jax.random.key(config.seed), "train")
  return jax.random.fold_in(rng, num_rollbacks) if num_rollbacks else rng


def _go_back(setting: _Setting, error: divergence.DivergedError) -> None:
  """Makes the last good checkpoint the newest one, and writes that down.

  Raises:
    TrainingError: if the run has gone back often enough.
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


def _num_images(run: _Run) -> int:
  """Returns how many images a training step takes."""
  return run.config.train.batch_size * run.objective.batches_per_step


def _batches(run: _Run, first_step: int) -> Iterator[np.ndarray]:
  """Returns this process's rows of what each training step takes."""
  return data.batches(
    run.source,
    _num_images(run),
    run.config.seed,
    first_step,
    jax.process_index(),
    jax.process_count(),
  )


def _check_dispatch(group: ml_collections.ConfigDict) -> None:
  """Checks that metrics, images and checkpoints fall due between dispatches.

  Raises:
    ConfigError: if they do not.
  """
  size = group.steps_per_dispatch
  for field in ("log_every", "image_every", "checkpoint_every", "test_every"):
    if group[field] % size:
      raise errors.ConfigError(
        f"config.train.{field}={group[field]}: expected a multiple of "
        f"config.train.steps_per_dispatch={size}."
      )


def abstract_state(
  config: ml_collections.ConfigDict, objective: base.Objective, mesh: Mesh
) -> Any:
  """Returns shapes, dtypes and shardings of the objective's state."""
  shapes = jax.eval_shape(
    objective.init, jax.random.key(config.seed), *objective.frozen
  )
  shardings = sharding.named(mesh, objective.partition_specs(shapes))
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    shapes,
    shardings,
  )


def restore_or_init(
  config: ml_collections.ConfigDict,
  objective: base.Objective,
  mesh: Mesh,
  saved: checkpoint.Checkpoints,
  frozen: tuple[Any, ...] | None = None,
) -> tuple[Any, int]:
  """Returns the state and how many training steps it has taken.

  Args:
    config: of the run.
    objective: of the run.
    mesh: to put the state on.
    saved: the run's checkpoints; without any, the run is a new one.
    frozen: from `objective.load_frozen`; None: read here, if the run is new.
  """
  abstract = abstract_state(config, objective, mesh)
  step = saved.newest_whole()
  if step is not None:
    return saved.restore(step, abstract), step
  frozen = objective.load_frozen() if frozen is None else frozen
  return init_state(config, objective, abstract, frozen), 0


def init_state(
  config: ml_collections.ConfigDict,
  objective: base.Objective,
  abstract: Any,
  frozen: tuple[Any, ...] = (),
) -> Any:
  """Returns the state of a new run, placed as `abstract_state` says."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  init = jax.jit(objective.init, out_shardings=shardings)
  rng = rng_lib.stream(jax.random.key(config.seed), "init")
  return init(rng, *frozen)


def _make_test(
  config: ml_collections.ConfigDict, objective: base.Objective, mesh: Mesh
) -> Callable[[Any], float] | None:
  """Returns `state -> mean loss on the test split`; None: not asked for."""
  if objective.test_loss is None or not config.train.test_every:
    return None
  source = data.open_source(config.data, "test")
  rng = rng_lib.stream(jax.random.key(config.seed), "test")
  local = config.train.batch_size // jax.process_count()
  rows = jax.process_index() * local + np.arange(local)
  loss_fn = jax.jit(
    lambda state, images, rng: objective.test_loss(state, images[0], rng)
  )

  def test(state):
    losses = []
    for start in range(0, source.num_images, config.train.batch_size):
      # The last batch starts over at the first image; the mean leaves that out.
      images = source.images((start + rows) % source.num_images)
      images = sharding.global_batches(images[None], mesh)
      loss = loss_fn(state, images, jax.random.fold_in(rng, start))
      losses.append(sharding.fetch(loss))
    return float(np.concatenate(losses)[: source.num_images].mean())

  return test


def compile_steps(
  objective: base.Objective, state: Any
) -> Callable[..., tuple[Any, base.Metrics, base.Images]]:
  """Jits a run of training steps; the state that it is given is used up.

  Args:
    objective: of the run.
    state: concrete, or as from `abstract_state`.

  Returns:
    A function `(state, images, rng, steps) -> (state, metrics, images)` of
    uint8 `[n, batch, height, width, channels]` and integers `[n]`, the numbers
    of the steps. Its metrics are `[n]`, its images are those of the last step.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

  def run(state, images, rng, steps):
    def step(carry, inputs):
      images, step = inputs
      rng_step = jax.random.fold_in(rng, step)
      state, metrics, shown = objective.step(carry[0], images, rng_step)
      return (state, shown), metrics

    _, _, shown = jax.eval_shape(objective.step, state, images[0], rng)
    shown = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shown)
    (state, shown), metrics = jax.lax.scan(
      step, (state, shown), (images, steps), unroll=len(steps) == 1
    )
    return state, metrics, shown

  return jax.jit(run, out_shardings=(shardings, None, None), donate_argnums=0)


def _describe(setting: _Setting, state: Any, first_step: int) -> None:
  """Prints what is about to be trained."""
  source, devices = setting.source, setting.mesh.devices.flat
  for name, part in state._asdict().items():
    if isinstance(part, learner.Learner):
      overview = parameter_overview.get_parameter_overview(
        part.params, include_stats=False
      )
      print(f"Parameters of the {name}:\n{overview}")
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
) -> signal.Signals | None:
  """Takes the steps that are left; returns what stopped them, if anything."""
  options = run.config.train
  step_fn = compile_steps(run.objective, state)
  profile = periodic_actions.Profile(
    logdir=str(run.path),
    num_profile_steps=_PROFILED_STEPS,
    profile_duration_ms=None,
    first_profile=options.profile_at,
    every_secs=None,
  )
  saved_at = time.monotonic()
  with _stop_signals() as stop_signals:
    for steps, images, wait in _dispatches(run, first_step, batches):
      step = int(steps[-1])
      profile(step)
      state, metrics, shown = step_fn(state, images, run.rng, steps)
      run.log.add(steps, metrics, wait)
      _report(run, step, state, shown)
      stop, overdue = sharding.any_process(
        bool(stop_signals),
        time.monotonic() - saved_at > 60 * options.checkpoint_minutes,
      )
      last = step == options.num_steps
      due = step % options.checkpoint_every == 0 or overdue
      # Nothing that is about to be undone pushes good checkpoints out.
      due = due and (run.watch.is_well or options.on_divergence == "warn")
      if due or stop or last:
        _check(run)
        run.saved.save(step, state, run.log.unwritten())
        saved_at = time.monotonic()
      if stop and not last:
        print(
          f"Stopped at training step {step}; its checkpoint is in "
          f"{run.saved.path}. The same command resumes the run.",
          flush=True,
        )
        return stop_signals[0] if stop_signals else signal.SIGTERM
  return None


def _dispatches(
  run: _Run, first_step: int, batches: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, jax.Array, float]]:
  """Yields step numbers, their images on the devices, and seconds waited.

  The images of the next dispatch are on their way to the devices while this
  one runs.
  """

  def place(steps):
    start = time.perf_counter()
    images = np.stack([next(batches) for _ in steps])
    images = sharding.global_batches(images, run.mesh)
    return steps, images, time.perf_counter() - start

  options = run.config.train
  plan = map(
    place,
    dispatch_groups(first_step, options.num_steps, options.steps_per_dispatch),
  )
  ahead = collections.deque(itertools.islice(plan, 1))
  while ahead:
    ahead.extend(itertools.islice(plan, 1))
    yield ahead.popleft()


def dispatch_groups(
  first_step: int, num_steps: int, size: int
) -> Iterator[np.ndarray]:
  """Yields the training steps of each dispatch, `[n]` integers.

  Args:
    first_step: training steps already taken.
    num_steps: training steps of the run.
    size: of a group: they end at its multiples, and at `num_steps`.
  """
  while first_step < num_steps:
    end = min(first_step - first_step % size + size, num_steps)
    yield np.arange(first_step + 1, end + 1)
    first_step = end


def _report(run: _Run, step: int, state: Any, shown: base.Images) -> None:
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
    run.log.write_images(
      step, {k: pixels.to_uint8(v) for k, v in images.items()}
    )


def _check(run: _Run) -> None:
  """Raises if a metric is not finite: nothing of such a state is saved."""
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
      "steps: go on from it with other random numbers by "
      f"--config.train.on_divergence=rollback, or {_ADVICE}"
    ) from error


def _note_batch(run: _Run, error: logs.NonFiniteError) -> None:
  """Writes down which images the step saw at which a metric is not finite."""
  if jax.process_index() > 0:
    return
  indices = None  # A stream does not tell.
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
  workdir.write_atomic(run.path / NON_FINITE, json.dumps(note) + "\n")


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


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[signal.Signals]]:
  """Yields a list that SIGTERM and SIGINT fill; a second one interrupts."""
  received: list[signal.Signals] = []

  def handler(number, _):
    if received:
      raise KeyboardInterrupt
    received.append(signal.Signals(number))
    print("Stopping after this training step.", flush=True)

  numbers = (signal.SIGTERM, signal.SIGINT)
  previous = {number: signal.signal(number, handler) for number in numbers}
  try:
    yield received
  finally:
    for number, old in previous.items():
      signal.signal(number, old)
