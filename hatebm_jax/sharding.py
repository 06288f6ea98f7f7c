"""How work is split over devices: one mesh axis, `data`.

Chains, images and the bank are split along this axis. Devices must not
communicate inside a chain or a bank: these are compiled by `split`, where no
collective can appear by itself. Gradients meet in the one all-reduce of
`value_and_grad`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import errors

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of the given devices, or of all, along the axis `data`."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def split(
  fn: Callable[..., Any],
  mesh: Mesh,
  replicated: Sequence[int] = (),
  method: str = "shard_map",
) -> Callable[..., Any]:
  """Runs `fn` on each device's part of its arguments and of its results.

  Args:
    fn: Pure function of pytrees whose leading axis is the one that is split.
    mesh: Mesh of the devices.
    replicated: Positions of the arguments that every device gets whole.
    method: Either `shard_map`, or `pmap` in a run of one process. The results
      are the same.

  Returns:
    The same function of global arrays.

  Raises:
    ConfigError: If the method is another one, or `pmap` in a run of several
      processes.
  """
  if method == "pmap":
    return _split_by_pmap(fn, mesh, replicated)
  if method != "shard_map":
    raise errors.ConfigError(
      f"config.sharding.chains={method!r}: expected 'shard_map' or 'pmap'."
    )

  def call(*args):
    in_specs = tuple(
      P() if i in replicated else P(AXIS) for i in range(len(args))
    )
    return jax.shard_map(
      fn, mesh=mesh, in_specs=in_specs, out_specs=P(AXIS), check_vma=False
    )(*args)

  return call


def _split_by_pmap(fn, mesh, replicated):
  """Splits by `jax.pmap`, whose arrays have a leading axis of devices."""
  if jax.process_count() > 1:
    raise errors.ConfigError(
      "config.sharding.chains='pmap': expected a run of one process, found "
      f"{jax.process_count()} processes. Set "
      "--config.sharding.chains=shard_map."
    )

  def call(*args):
    axes = tuple(None if i in replicated else 0 for i in range(len(args)))
    parts = [
      arg
      if axis is None
      else jax.tree.map(lambda a: a.reshape(mesh.size, -1, *a.shape[1:]), arg)
      for arg, axis in zip(args, axes, strict=True)
    ]
    mapped = jax.pmap(
      fn, axis_name=AXIS, in_axes=axes, devices=list(mesh.devices.flat)
    )
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), mapped(*parts))

  return call


def value_and_grad(
  loss_fn: Callable[..., Any], mesh: Mesh
) -> Callable[..., Any]:
  """Returns `jax.value_and_grad` of a batch mean over all devices.

  Args:
    loss_fn: Function `(params, *batch) -> (loss, aux)` of means over the
      examples of the batch, whose arrays are split along their leading axis.
    mesh: Mesh of the devices.

  Returns:
    A function `(params, *batch) -> ((loss, aux), gradients)`, with the same
    result on every device. XLA joins the means of loss, aux and gradients into
    one all-reduce. Joining them into one vector here would cost copies.
  """

  def local(params, *batch):
    result = jax.value_and_grad(loss_fn, has_aux=True)(params, *batch)
    return jax.lax.pmean(result, AXIS)

  def call(params, *batch):
    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(P(), *(P(AXIS) for _ in batch)),
      out_specs=P(),
      check_vma=False,
    )(params, *batch)

  return call


def named(mesh: Mesh, specs: Any) -> Any:
  """Returns the shardings of a pytree of partition specs."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    specs,
    is_leaf=lambda leaf: isinstance(leaf, P),
  )


def largest_axis(shape: tuple[int, ...], mesh: Mesh) -> P:
  """Returns the spec that splits the largest axis that divides evenly."""
  size = max((n for n in shape if n % mesh.size == 0), default=0)
  if not size:
    return P()
  axis = shape.index(size)
  return P(*[None] * axis, AXIS)


def global_batches(local_batches: np.ndarray, mesh: Mesh) -> jax.Array:
  """Places this process's rows of several batches over all devices.

  Args:
    local_batches: This process's rows, `[steps, rows, ...]`.
    mesh: Mesh of the devices.

  Returns:
    The batches `[steps, batch, ...]`, split along the second axis.
  """
  return jax.make_array_from_process_local_data(
    NamedSharding(mesh, P(None, AXIS)), local_batches
  )


def fetch(tree: Any) -> Any:
  """Returns global arrays as NumPy arrays, on every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def any_process(*flags: bool, after: Any = None) -> tuple[bool, ...]:
  """Returns for each flag whether it is set on any process; all then agree.

  Args:
    *flags: Flags of this process.
    after: Arrays of programs in which processes talk too. These end first.
      Without it, a CPU may run both at once, and each process may wait for the
      other in another one.
  """
  if jax.process_count() == 1:
    return flags
  jax.block_until_ready(after)
  gathered = multihost_utils.process_allgather(np.asarray(flags))
  return tuple(bool(flag) for flag in gathered.any(0))
