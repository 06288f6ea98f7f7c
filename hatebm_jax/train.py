"""The training loop of every objective: data, step, metrics, checkpoint."""

import contextlib
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from clu import parameter_overview, periodic_actions
from jax.sharding import Mesh

from hatebm_jax import checkpoint, data, logs, objectives, sharding, workdir
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives import base

_NUM_SHOWN = 64  # images in a grid
_PROFILED_STEPS = 3


class TrainingError(RuntimeError):
  """Training cannot go on."""


class _Run(NamedTuple):
  """What the loop works with."""

  config: ml_collections.ConfigDict
  path: pathlib.Path
  mesh: Mesh
  objective: base.Objective
  saved: checkpoint.Checkpoints
  log: logs.RunLog


def train(
  config: ml_collections.ConfigDict, path: pathlib.Path
) -> signal.Signals | None:
  """Trains a run up to `config.train.num_steps`, from its newest checkpoint.

  Args:
    config: of the experiment.
    path: the workdir.

  Returns:
    The signal (SIGTERM, SIGINT) that stopped the run, or None: it is complete.
    A stopped run has a checkpoint; the same command resumes it.

  Raises:
    TrainingError: if a metric is not finite; the last good checkpoint is named.
  """
  mesh = sharding.make_mesh()
  data.check_batch(config.train.batch_size, mesh.size)
  objective = objectives.make(config, mesh)
  source = data.open_source(config.data, "train")
  writes = jax.process_index() == 0
  workdir.claim(path, config, writes)
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(path / "xla_cache"))
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(
      checkpoint.Checkpoints(path, config.train.keep_checkpoints)
    )
    state, first_step = restore_or_init(config, objective, mesh, saved)
    if writes:
      _describe(config, objective, state, mesh, source, first_step)
    log = logs.RunLog(path, first_step, writes)
    stack.enter_context(contextlib.closing(log))
    batches = data.batches(
      source,
      config.train.batch_size,
      config.seed,
      first_step,
      jax.process_index(),
      jax.process_count(),
    )
    stack.enter_context(contextlib.closing(batches))
    run = _Run(config, path, mesh, objective, saved, log)
    return _loop(run, state, first_step, batches)


def abstract_state(
  config: ml_collections.ConfigDict, objective: base.Objective, mesh: Mesh
) -> Any:
  """Returns shapes, dtypes and shardings of the objective's state."""
  shapes = jax.eval_shape(objective.init, jax.random.key(config.seed))
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
) -> tuple[Any, int]:
  """Returns the state and how many training steps it has taken."""
  abstract = abstract_state(config, objective, mesh)
  step = saved.latest_step()
  if step is not None:
    return saved.restore(step, abstract), step
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  init = jax.jit(objective.init, out_shardings=shardings)
  return init(rng_lib.stream(jax.random.key(config.seed), "init")), 0


def compile_step(objective: base.Objective, state: Any) -> Any:
  """Jits the training step; the state that it is given is used up."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jax.jit(
    objective.step, out_shardings=(shardings, None, None), donate_argnums=0
  )


def _describe(config, objective, state, mesh, source, first_step) -> None:
  """Prints what is about to be trained."""
  variables = objective.networks.variables(state, "raw")
  for name, tree in zip(("hat", "generator"), variables, strict=True):
    overview = parameter_overview.get_parameter_overview(
      tree["params"], include_stats=False
    )
    print(f"Parameters of the {name}:\n{overview}")
  action = f"Resuming at step {first_step}" if first_step else "Training"
  print(
    f"{action}: {config.objective} on {source.name} ({source.num_images} "
    f"images), {mesh.size} x {mesh.devices.flat[0].device_kind}, "
    f"{jax.process_count()} process(es). The first step compiles.",
    flush=True,
  )


def _loop(
  run: _Run, state: Any, first_step: int, batches: Iterator[np.ndarray]
) -> signal.Signals | None:
  """Takes the steps that are left; returns what stopped them, if anything."""
  settings = run.config.train
  step_fn = compile_step(run.objective, state)
  rng = rng_lib.stream(jax.random.key(run.config.seed), "train")
  profile = periodic_actions.Profile(
    logdir=str(run.path),
    num_profile_steps=_PROFILED_STEPS,
    profile_duration_ms=None,
    first_profile=settings.profile_at,
    every_secs=None,
  )
  saved_at = time.monotonic()
  with _stop_signals() as stop_signals:
    for step in range(first_step + 1, settings.num_steps + 1):
      profile(step)
      start = time.perf_counter()
      batch = sharding.global_batch(next(batches), run.mesh)
      wait = time.perf_counter() - start
      state, metrics, shown = step_fn(
        state, batch, jax.random.fold_in(rng, step)
      )
      run.log.add(step, metrics, wait)
      _report(run, step, shown)
      stop, overdue = sharding.any_process(
        bool(stop_signals),
        time.monotonic() - saved_at > 60 * settings.checkpoint_minutes,
      )
      last = step == settings.num_steps
      if step % settings.checkpoint_every == 0 or overdue or stop or last:
        _check(run)
        run.saved.save(step, state)
        saved_at = time.monotonic()
      if stop and not last:
        print(
          f"Stopped at training step {step}; its checkpoint is in "
          f"{run.saved.path}. The same command resumes the run.",
          flush=True,
        )
        return stop_signals[0] if stop_signals else signal.SIGTERM
  return None


def _report(run: _Run, step: int, shown: base.Images) -> None:
  """Writes metrics and images where they are due."""
  settings = run.config.train
  last = step == settings.num_steps
  if step % settings.log_every == 0 or last:
    _check(run)
    run.log.write(step, settings.num_steps)
  if step % settings.image_every == 0 or last:
    images = sharding.fetch({k: v[:_NUM_SHOWN] for k, v in shown.items()})
    run.log.write_images(step, {k: data.to_uint8(v) for k, v in images.items()})


def _check(run: _Run) -> None:
  """Raises if a metric is not finite: nothing of such a state is saved."""
  try:
    run.log.check()
  except logs.NonFiniteError as error:
    step = run.saved.latest_step()
    good = "there is none" if step is None else f"{run.saved.path / str(step)}"
    raise TrainingError(
      f"{error}. Training has diverged and ends here. The last good "
      f"checkpoint: {good}. The same command would repeat the same steps: "
      "lower config.hat.learning_rate or set config.hat.max_grad_norm, in a "
      "new --workdir."
    ) from error


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
