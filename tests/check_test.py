"""What `--mode=check` finds before a run is started."""

import re

import child
import jax
import jax.numpy as jnp
import needs
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hatebm_jax import check, sharding
from hatebm_jax import config as config_lib


def test_a_run_without_problems(tmp_path, capsys):
  path = tmp_path / "run"
  assert check.check(tiny.config(), path) == []
  lines = capsys.readouterr().out.splitlines()
  found = dict(line.split(maxsplit=1) for line in lines)
  assert found["config"] == "synthesis, all fields have allowed values"
  assert found["workdir"] == f"{path}: can be written, new run"
  assert found["data"] == "digits train: 1,437 images"
  assert found["devices"] == "8 x cpu, 1 of 8 images each"
  assert found["checkpoints"].endswith("for at most 4")
  assert not path.exists()


def test_all_problems_are_listed(tmp_path):
  file = tmp_path / "file"
  file.write_text("")
  config = tiny.config(
    data__source="folder:/none",
    train__batch_size=12,
    train__profile_at=9,
    train__steps_per_dispatch=2,
    langevin__annealing=4.0,
    ood__sets=("folder:/other",),
  )
  found = check.check(config, file / "run")
  expected = [
    "expected a folder that can be written to",
    "config.train.log_every=1: expected a multiple of",
    "config.train.profile_at=9: expected a training step",
    "config.evaluate.num_steps=4: expected a multiple of",
    "found no folder '/none'",
    "config.train.batch_size: expected a multiple of 8",
  ]
  assert len(found) == len(expected), found
  for problem, text in zip(found, expected, strict=True):
    assert text in problem


def test_all_sets_of_an_evaluation_are_tried(tmp_path):
  config = tiny.config(ood__sets=("folder:/one", "digits", "folder:/two"))
  found = check.check(config, tmp_path / "run")
  assert len(found) == 2
  assert "'/one'" in found[0] and "'/two'" in found[1]


def test_all_wrong_fields_are_listed(tmp_path):
  config = tiny.config(data__crop="middle", train__batch_size=0)
  assert [x.split(":")[0] for x in check.check(config, tmp_path / "run")] == [
    "config.train.batch_size=0",
    "config.data.crop='middle'",
  ]
  assert config_lib.problems(tiny.config()) == []


def test_a_run_with_another_config_is_a_problem(tmp_path):
  from hatebm_jax.run import workdir

  path = tmp_path / "run"
  workdir.write_config(path, tiny.config())
  (path / "checkpoints" / "2").mkdir(parents=True)
  (found,) = check.check(tiny.config(model__width=16), path)
  assert "model.width" in found


def test_too_few_images_are_a_problem(tmp_path):
  config = tiny.config(train__batch_size=1440, generator__bank_size=2880)
  (found,) = check.check(config, tmp_path / "run")
  assert "expected at least a batch of 1440 images, found 1437" in found


def test_too_small_a_disk_is_a_problem(tmp_path):
  config = tiny.config(
    train__num_steps=10**9, train__checkpoint_every=1, train__keep_every=1
  )
  (found,) = check.check(config, tmp_path / "run")
  assert "expected room for 1000000004 checkpoints" in found


def test_bytes_of_a_state():
  mesh = sharding.make_mesh()
  place = lambda *axes: NamedSharding(mesh, P(*axes))
  state = {
    # 60 bytes on each device.
    "w": jax.ShapeDtypeStruct((3, 5), jnp.float32, sharding=place()),
    # 64 bytes, 8 of them on each of the 8 devices.
    "bank": jax.ShapeDtypeStruct(
      (16, 4), jnp.uint8, sharding=place(sharding.AXIS)
    ),
  }
  assert check.state_bytes(state) == (124, 68)


@pytest.mark.parametrize("keep_every, expected", [(0, 4), (20, 9)])
def test_number_of_checkpoints(keep_every, expected):
  config = tiny.config(train__num_steps=100, train__keep_every=keep_every)
  assert config.train.keep_checkpoints == 3
  assert check.num_checkpoints(config.train) == expected


def test_hours_and_images():
  group = tiny.config(train__num_steps=7200, train__batch_size=100).train
  hours, images = check.times(
    group, {"compiler_estimate": {"seconds_per_step": 0.5}}
  )
  assert hours.startswith("1.0 hours for 7,200 training steps")
  assert images == "200 images a second must be read"


# What `aot.report.make` says of a step that does not fit.
REPORT = {
  "peak_memory_per_chip": 20 * 2**30,
  "memory_per_chip": 16 * 2**30,
  "fits": False,
  "compiler_estimate": {"seconds_per_step": 0.5},
}


def compiled(config, **changes):
  """Returns the problems that a report of the compilation makes."""
  found = check.Findings()
  check._check_compiled(found, config, REPORT | changes)
  return found.problems


def test_a_step_that_does_not_fit_is_a_problem(capsys):
  config = tiny.config(train__num_steps=7200)
  (problem,) = compiled(config)
  assert "needs 20.00 GiB on each chip, and a chip has 16.00 GiB" in problem
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "memory      20.00 GiB of 16.00 GiB in a training step"
  assert lines[1].startswith("time        1.0 hours for 7,200 training steps")
  assert lines[2] == "time        16 images a second must be read"
  assert compiled(config, fits=True) == []


def check_slice(path, *flags):
  """Runs the command for a slice of four chips; returns status and output."""
  # conftest.py sets these for CPUs, and the TPU compiler would obey them too.
  unset = "-u", "XLA_FLAGS", "-u", "JAX_COMPILATION_CACHE_DIR"
  process = child.start(
    path, "--mode=check", "--topology=v5e:2x2", *flags, prefix=("env", *unset)
  )
  output, _ = process.communicate()
  assert "devices     4 x TPU v5 lite, " in output
  assert "Compiling the training step." in output and not path.exists()
  return process.returncode, output


@needs.libtpu
def test_a_slice_is_compiled_for(tmp_path):
  status, output = check_slice(tmp_path / "run")
  assert status == 0 and "by the compiler's estimate" in output, output
  used = re.search(
    r"memory +([\d.]+) MiB of 16.00 GiB in a training step", output
  )
  assert 1 < float(used[1]) < 1000


@needs.libtpu
def test_a_bank_that_no_chip_can_hold(tmp_path):
  # Its images alone have hundreds of GiB on each chip.
  bank = "--config.generator.bank_size=1000000000"
  status, output = check_slice(tmp_path / "run", bank)
  assert status == 1 and "the memory is too small" in output, output
  assert "exceeds available HBM (15.75G)" in output
  assert "Traceback" not in output


def test_the_command_lists_problems_and_fails(tmp_path):
  path = tmp_path / "run"
  process = child.start(
    path,
    "--mode=check",
    "--config.data.source=folder:/none",
    "--config.train.batch_size=12",
  )
  output, _ = process.communicate()
  assert process.returncode == 1, output
  assert output.count("error: ") == 2
  assert "'/none'" in output and "expected a multiple of 8" in output
  assert "2 problems found." in output
  assert not path.exists()


def test_a_slice_goes_with_a_check_alone(tmp_path):
  process = child.start(tmp_path, "--topology=v5e:4x4")
  output, _ = process.communicate()
  assert process.returncode == 1
  assert "error: --topology=v5e:4x4 goes with --mode=check." in output
