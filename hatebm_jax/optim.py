"""Optimizers: Adam with the reference's constants, clip, schedule, average."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def piecewise_constant(
  learning_rate: float, drops: Sequence[tuple[int, float]] = ()
) -> optax.Schedule:
  """Returns a learning rate that changes at given steps.

  Args:
    learning_rate: Learning rate from step 0 on.
    drops: Pairs (first step, learning rate from there on), in order of steps.
  """
  steps = [step for step, _ in drops]
  rates = [learning_rate, *(rate for _, rate in drops)]
  return optax.join_schedules(
    [optax.constant_schedule(rate) for rate in rates], steps
  )


def clip_by_tensor_norm(max_norm: float) -> optax.GradientTransformation:
  """Scales each tensor down so that its L2 norm is at most `max_norm`.

  The reference clips its ImageNet runs in this way: each tensor by itself, not
  the global norm as `optax.clip_by_global_norm` does.
  """

  def clip(gradient):
    norm = jnp.sqrt(jnp.square(gradient).sum())
    return gradient * (max_norm / jnp.maximum(norm, max_norm))

  return optax.stateless(lambda updates, _: jax.tree.map(clip, updates))


def adam(
  learning_rate: float,
  drops: Sequence[tuple[int, float]] = (),
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """Returns Adam with the constants of the reference: .9, .999, eps 1e-7.

  Args:
    learning_rate: Learning rate from step 0 on.
    drops: Pairs (first step, learning rate from there on), in order of steps.
    max_grad_norm: Bound on the L2 norm of each tensor's gradient; None: no
      clip.
  """
  optimizer = optax.adam(piecewise_constant(learning_rate, drops), eps=1e-7)
  if max_grad_norm is None:
    return optimizer
  return optax.chain(clip_by_tensor_norm(max_grad_norm), optimizer)


def gan_adam(
  learning_rate: float, decay_steps: int, updates_per_step: int = 1
) -> optax.GradientTransformation:
  """Returns Adam (0, .9, eps 1e-8) with a rate that falls linearly to 0.

  These are the optimizers of torch-mimicry's SN-GAN.

  Args:
    learning_rate: Learning rate of the first training step.
    decay_steps: Number of training steps in which the rate falls to 0.
    updates_per_step: Number of updates in a training step; they share a rate.
  """

  def schedule(count):
    step = jnp.minimum(count // updates_per_step, decay_steps)
    return learning_rate * (1 - step / decay_steps)

  return optax.adam(schedule, b1=0.0, b2=0.9, eps=1e-8)


def update_average(
  average: optax.Params, params: optax.Params, decay: float
) -> optax.Params:
  """Returns decay * average + (1 - decay) * params, leaf by leaf."""
  return optax.incremental_update(params, average, 1 - decay)
