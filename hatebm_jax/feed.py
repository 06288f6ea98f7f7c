"""What feeds the devices: batches ahead of the steps that take them."""

import collections
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hatebm_jax import data, errors, sharding
from hatebm_jax import rng as rng_lib
from hatebm_jax.objectives.parts.objective import Objective


def check_dispatch(group: ml_collections.ConfigDict) -> None:
  """Checks that metrics, images and checkpoints fall due between dispatches.

  Args:
    group: The group `config.train`.

  Raises:
    ConfigError: If one of them falls due inside a dispatch, or a checkpoint
      that is to be kept is not saved.
  """
  if group.keep_every % group.checkpoint_every:
    raise errors.ConfigError(
      f"config.train.keep_every={group.keep_every}: expected a multiple of "
      f"config.train.checkpoint_every={group.checkpoint_every}, because only "
      "checkpoints that are saved can be kept. Change one of them."
    )
  size = group.steps_per_dispatch
  for field in ("log_every", "image_every", "checkpoint_every", "test_every"):
    if group[field] % size:
      raise errors.ConfigError(
        f"config.train.{field}={group[field]}: expected a multiple of "
        f"config.train.steps_per_dispatch={size}."
      )


def check_images(
  num_images: int | None,
  source: data.Source,
  before: ml_collections.ConfigDict,
  now: ml_collections.ConfigDict,
) -> None:
  """Checks that a resumed run goes on with the images that it has begun with.

  Args:
    num_images: Number of images that the run was trained on; None: it is a new
      run, or an older version of this package did not note the number.
    source: Source of the images.
    before: Group `data` of the run's config.
    now: Group `data` of the command's config.

  Raises:
    ConfigError: If the command names other images than the run, and their
      number differs.
  """
  if num_images in (None, source.num_images):
    return
  found = f"{source.name} has {source.num_images} images"
  for name in ("source", "train_split", "feature"):
    if before[name] != now[name]:
      raise errors.ConfigError(
        f"config.data.{name}={now[name]!r}: expected the {num_images} images "
        f"that the run was trained on, perhaps in another place; {found}. "
        "Correct it, or train in a new --workdir."
      )
  print(
    f"warning: {found}. The run was trained on {num_images} images so far.",
    file=sys.stderr,
    flush=True,
  )


def dispatch_groups(
  first_step: int, num_steps: int, size: int
) -> Iterator[np.ndarray]:
  """Yields the numbers of the training steps of each dispatch, `[n]`.

  Args:
    first_step: Number of training steps that are already taken.
    num_steps: Number of training steps of the run.
    size: Largest number of steps in a dispatch. Dispatches end at its multiples
      and at `num_steps`.
  """
  while first_step < num_steps:
    end = min(first_step - first_step % size + size, num_steps)
    yield np.arange(first_step + 1, end + 1)
    first_step = end


def dispatches(
  group: ml_collections.ConfigDict,
  first_step: int,
  batches: Iterator[np.ndarray],
  mesh: Mesh,
) -> Iterator[tuple[np.ndarray, jax.Array, float]]:
  """Yields the numbers of steps, their images, and the seconds waited.

  The images of the next dispatch are on their way to the devices while this
  one runs.

  Args:
    group: The group `config.train`.
    first_step: Number of training steps that are already taken.
    batches: Iterator over this process's rows of the batches.
    mesh: Mesh to place the images on.
  """

  def place(steps):
    start = time.perf_counter()
    images = np.stack([next(batches) for _ in steps])
    images = sharding.global_batches(images, mesh)
    return steps, images, time.perf_counter() - start

  plan = map(
    place,
    dispatch_groups(first_step, group.num_steps, group.steps_per_dispatch),
  )
  ahead = collections.deque(itertools.islice(plan, 1))
  while ahead:
    ahead.extend(itertools.islice(plan, 1))
    yield ahead.popleft()


def make_test(
  config: ml_collections.ConfigDict, objective: Objective, mesh: Mesh
) -> Callable[[Any], float] | None:
  """Returns a function `state -> mean loss on the test split`.

  Args:
    config: Config of the run.
    objective: Objective of the run.
    mesh: Mesh that the state lies on.

  Returns:
    The function; None if no test loss is asked for.

  Raises:
    ConfigError: If the objective has no test loss.
    DataError: If the images have no test split.
  """
  if not config.train.test_every:
    return None
  if objective.test_loss is None:
    raise errors.ConfigError(
      f"config.train.test_every={config.train.test_every}: expected 0, because "
      f"config.objective={config.objective!r} has no loss on the test split. "
      "Set --config.train.test_every=0."
    )
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
      # The last batch wraps around to the first images; the mean leaves those
      # repeated images out.
      images = source.images((start + rows) % source.num_images)
      images = sharding.global_batches(images[None], mesh)
      loss = loss_fn(state, images, jax.random.fold_in(rng, start))
      losses.append(sharding.fetch(loss))
    return float(np.concatenate(losses)[: source.num_images].mean())

  return test
