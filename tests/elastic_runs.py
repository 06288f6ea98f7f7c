"""Trains tiny runs on a number of virtual devices, in a process of its own."""

import os

import child
import tiny

# At T = 1 with this step the chains do not amplify rounding errors.
CALM = {"langevin__temperature": 1.0, "langevin__step_size_y": 0.1}
# The first gradient of the generator in synthesis is zero but for rounding, and
# Adam makes steps of its sign. At this rate they change little.
SYNTHESIS = CALM | {"generator__learning_rate": 1e-5}
OFTEN = {"train__image_every": 1, "train__checkpoint_every": 1000}


def configs(source):
  """Returns the config of each run by its name.

  Args:
    source: Workdir of the SN-GAN whose generator the joint run has.
  """
  joint = CALM | {"generator__source": str(source)}
  return {
    "synthesis": tiny.config(**SYNTHESIS, **OFTEN),
    "sngan": tiny.config("digits_sngan", **OFTEN),
    "joint": tiny.config("digits_refine", **joint, **OFTEN),
  }


def train(folder, source, num_steps, names):
  """Trains runs up to a number of steps, each in a workdir of its name.

  Args:
    folder: Folder of the workdirs.
    source: Workdir of the SN-GAN whose generator the joint run has.
    num_steps: Number of training steps.
    names: Names of the runs.
  """
  from hatebm_jax import train

  for name in names:
    config = configs(source)[name]
    config.train.num_steps = num_steps
    assert train.train(config, folder / name) is None


def start(folder, source, num_steps, num_devices, names):
  """Runs `train` in a process with some devices; returns what it printed."""
  flags = os.environ["XLA_FLAGS"]
  flags += f" --xla_force_host_platform_device_count={num_devices}"
  return child.python(
    f"""
import os
os.environ["XLA_FLAGS"] = {flags!r}
import pathlib
import elastic_runs
source = pathlib.Path({str(source)!r})
elastic_runs.train(
  pathlib.Path({str(folder)!r}), source, {num_steps}, {list(names)}
)
"""
  )
