"""TPU slices that a program can be compiled for without a TPU."""

import importlib.util
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies

from hatebm_jax import errors

_EXAMPLES = "v4:2x2x4, v5e:1x1, v5e:4x4, v5p:2x2x1, v6e:4x4"
# libtpu takes a host for one of four chips unless it is told otherwise.
_HOST_OF_ONE = {"chips_per_host_bounds": (1, 1, 1)}


class Chip(NamedTuple):
  """A TPU chip with the numbers of Google's documentation of Cloud TPU.

  Attributes:
    peak_flops: Peak rate in bfloat16, FLOP/s.
    bandwidth: Bandwidth of the main memory (HBM), bytes/s.
    clock: Clock in Hz: the peak rate over the FLOPs of the matrix units in a
      cycle.
    memory: Size of the main memory, bytes.
    setup: libtpu's name of the configuration in which a device is a whole chip.
  """

  peak_flops: float
  bandwidth: float
  clock: float
  memory: int
  setup: str


# v2 and v3 are left out, because a device is half a chip there.
CHIPS = {
  "v4": Chip(275e12, 1228e9, 1.05e9, 32 * 2**30, "megacore"),
  "v5e": Chip(197e12, 819e9, 1.5e9, 16 * 2**30, "default"),
  "v5p": Chip(459e12, 2765e9, 1.75e9, 95 * 2**30, "megacore"),
  "v6e": Chip(918e12, 1640e9, 1.75e9, 32 * 2**30, "default"),
}


class TopologyError(errors.UserError):
  """Programs cannot be compiled for a TPU slice."""


def find(topology: str) -> tuple[Chip, list[jax.Device]]:
  """Returns the chip of a TPU slice and its devices, one for each chip.

  Args:
    topology: Name of the slice, GENERATION:SHAPE in chips, such as `v4:2x2x4`.

  Raises:
    TopologyError: If libtpu is missing, or it knows no such slice.
  """
  chip = CHIPS.get(topology.partition(":")[0])
  if not chip:
    raise TopologyError(
      f"--topology={topology}: expected GENERATION:SHAPE with one of "
      f"{', '.join(CHIPS)}, such as {_EXAMPLES}."
    )
  if not importlib.util.find_spec("libtpu"):
    raise TopologyError(
      "libtpu, the TPU compiler, is not installed. Install it with "
      "pip install -e '.[tpu]'."
    )
  # Without these, libtpu asks the metadata server of a TPU host what it runs
  # on, and lets only one process load it.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v4-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  try:
    description = topologies.get_topology_desc(
      platform="tpu",
      topology_name=topology,
      chip_config_name=chip.setup,
      **_HOST_OF_ONE if _is_single(topology) else {},
    )
  except jax.errors.JaxRuntimeError as error:
    raise TopologyError(
      f"--topology={topology}: libtpu knows no such slice ({error}). Choose "
      f"one such as {_EXAMPLES}."
    ) from error
  return chip, list(description.devices)


def _is_single(topology: str) -> bool:
  """Says whether a slice has one chip, such as `v5e:1x1`."""
  return set(topology.partition(":")[2]) <= {"1", "x"}
