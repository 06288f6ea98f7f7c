"""Tests the command that makes a row of the paper's tables."""

import concurrent.futures
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import published
from experiments.paper import __main__ as paper
from experiments.paper import manifest, rows, stages
from hatebm_jax import config_flag, models
from hatebm_jax.run import weights, workdir

_ROOT = pathlib.Path(__file__).parents[2]
# If a flag is given twice, the last one counts: a row has one device.
_ONE_DEVICE = os.environ | {
  "XLA_FLAGS": os.environ["XLA_FLAGS"]
  + " --xla_force_host_platform_device_count=1"
}
_TABLES = {
  "synthesis": published.SYNTHESIS,
  "refinement": published.REFINEMENT,
  "retrofit": published.RETROFIT,
}


def command(*arguments):
  return [sys.executable, "-m", "experiments.paper", *map(str, arguments)]


def run(*arguments):
  """Runs the command in a process of its own and returns what it prints."""
  done = subprocess.run(
    command(*arguments),
    cwd=_ROOT,
    env=_ONE_DEVICE,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  assert done.returncode == 0, done.stdout[-3000:]
  return done.stdout


def refused(*arguments):
  """Returns the message with which the command refuses its arguments."""
  with pytest.raises(SystemExit) as error:
    paper.main([str(x) for x in arguments])
  return error.value.args[0]


def test_without_a_row_the_rows_are_listed(capsys):
  paper.main([])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines[1:-1]] == list(rows.ROWS)
  expected = "  refinement-celeba64         tfds:celeb_a and --inception=FILE"
  assert expected in lines


def test_every_published_column_has_a_row():
  names = {f"{t}-{c}" for t, x in _TABLES.items() for c in x.columns}
  twins = {f"{table}-digits" for table in (*_TABLES, "ood")}
  assert names | twins | {"ood-cifar10"} == set(rows.ROWS)


@pytest.mark.parametrize("budget", ["full", "tiny"])
@pytest.mark.parametrize("name", rows.ROWS)
def test_the_commands_of_a_row_are_sound(name, budget, tmp_path):
  row = rows.ROWS[name]
  options = rows.Options(tmp_path, budget, seed=3, inception="inception.pth")
  search = tmp_path / name / "ddls" / "search.json"
  search.parent.mkdir(parents=True)
  search.write_text('{"best": {"num_steps": 40, "step_size": 0.1}}')
  plan = stages.plan(row, options)
  assert list(plan.train) == list(row.configs)
  for stage in plan.stages().values():
    assert importlib.util.find_spec(stage.command[1]), stage.command
  for stage in plan.train.values():
    assert config_flag.load(stage.fields).seed == 3
  for stage in plan.measure.values():
    if stage.command[1] == "hatebm_jax.main":
      config = config_flag.load(["--config=default", *stage.fields])
      is_paper = budget == "full" and not row.is_twin and row.table != "ood"
      assert config.metrics.protocol == ("paper" if is_paper else "quick")


def test_the_commands_of_refinement_are_printed(capsys):
  paper.main(["refinement-cifar10", "--inception=FILE", "--commands"])
  main = "python -m hatebm_jax.main"
  measure = "--config.metrics.protocol=paper --config.metrics.inception=FILE"
  out = "runs/paper/refinement-cifar10"
  assert capsys.readouterr().out.splitlines() == [
    f"{main} --config=cifar10_sngan --workdir=runs/paper/cifar10_sngan "
    "--config.seed=0",
    f"{main} --config=cifar10_refine --workdir=runs/paper/cifar10_refine "
    "--config.seed=0 --config.generator.source=runs/paper/cifar10_sngan "
    "--config.generator.norm_epsilon=1e-05",
    f"{main} --workdir=runs/paper/cifar10_refine --mode=evaluate --out={out} "
    f"--config.chains.num_chains=0 {measure}",
    "python -m experiments.ddls_search --workdir=runs/paper/cifar10_sngan "
    f"--out={out}/ddls/search.json --steps=20,40,80,160 "
    "--step_sizes=0.01,0.03,0.1,0.3 --config.metrics.inception=FILE "
    "--config.sample.num_images=1000",
    f"{main} --workdir=runs/paper/cifar10_sngan --mode=evaluate "
    f"--out={out}/ddls --config.ddls.num_steps=N --config.ddls.step_size=EPS "
    f"{measure}",
    "python -m experiments.table_refinement.table "
    f"cifar10=runs/paper/cifar10_refine,{out} "
    f"cifar10=runs/paper/cifar10_sngan,{out}/ddls > {out}/table.md",
  ]


def test_missing_weights_and_data_are_said_before_training(tmp_path):
  path = tmp_path / "runs"
  missing = refused("synthesis-cifar10", f"--workdir={path}")
  assert missing.startswith(
    "error: The row synthesis-cifar10 needs the weights of the Inception "
    "network of 2015. Name their file with --inception=FILE."
  )
  options = f"--workdir={path}", f"--inception={tmp_path / 'none.pth'}"
  assert "none.pth': expected the weights" in refused(
    "retrofit-cifar10", *options
  )
  no_data = refused(
    "ood-cifar10", f"--workdir={path}", f"--config.data.data_dir={tmp_path}"
  )
  assert no_data.startswith("error: ") and "cifar10" in no_data
  no_run = refused("ood-digits", f"--take=digits={path}")
  assert "holds no run" in no_run
  assert not path.exists()


def test_wrong_arguments_are_named(tmp_path):
  assert "'cifar10' is no row: expected one of synth" in refused("cifar10")
  assert "--take=digits=x: expected CONFIG=FOLDER" in refused(
    "refinement-digits", "--take=digits=x"
  )
  assert "'--sed=1': expected an option" in refused("ood-digits", "--sed=1")
  unknown = refused(
    "ood-digits", f"--workdir={tmp_path}", "--config.train.steps=1"
  )
  assert "steps" in unknown and not list(tmp_path.iterdir())


def released(path, epsilon, *arrays):
  """Writes a release of an SN-GAN with these arrays."""
  config = config_flag.load(
    ["--config=cifar10_sngan", f"--config.generator.norm_epsilon={epsilon}"]
  )
  path.mkdir()
  workdir.write_config(path, config)
  weights.save(path, 7, {name: np.zeros(2, np.float32) for name in arrays})
  return str(path)


def test_a_release_takes_the_place_of_a_run(tmp_path):
  row = rows.ROWS["refinement-cifar10"]
  sngan = released(tmp_path / "sngan", 1e-3, "generator/w", "discriminator/w")
  options = rows.Options(tmp_path, taken={"cifar10_sngan": sngan})
  plan = stages.plan(row, options)
  assert list(plan.train) == ["cifar10_refine"]
  fields = plan.train["cifar10_refine"].fields
  assert f"--config.generator.source={sngan}" in fields
  # The paper's own SN-GAN has another epsilon than torch-mimicry's.
  assert "--config.generator.norm_epsilon=0.001" in fields
  assert "evaluate DDLS" in plan.measure
  alone = released(tmp_path / "alone", 1e-3, "generator/w")
  plan = stages.plan(row, options._replace(taken={"cifar10_sngan": alone}))
  assert list(plan.measure) == ["evaluate", "table"]
  # A hat that was taken needs no SN-GAN.
  plan = stages.plan(row, options._replace(taken={"cifar10_refine": "hat"}))
  assert not plan.train and list(plan.measure) == ["evaluate", "table"]
  assert "--workdir=hat" in plan.measure["evaluate"].command


@pytest.mark.parametrize("row", rows.ROWS.values(), ids=lambda row: row.name)
def test_tiny_networks_have_widths_that_their_images_allow(row, tmp_path):
  plan = stages.plan(row, rows.Options(tmp_path, "tiny"))
  for stage in plan.train.values():
    config = config_flag.load(stage.fields)
    size, width = config.data.image_size, config.model.width
    assert size == row.image_size
    models.hat.make(size, width)
    models.generator.make(size, width)
    models.discriminator.make(size, config.sngan.discriminator_width)


def test_a_failed_stage_is_one_message(tmp_path):
  out = (tmp_path / "out",)
  fails = stages.Stage("train x", ("-c", "raise SystemExit(3)"), out)
  with pytest.raises(paper.StageError, match="'train x' has ended with stat"):
    paper._run("row", fails)
  # The command has ended well, but what it should leave is not there.
  ends = stages.Stage("train x", ("-c", "pass"), out)
  with pytest.raises(paper.StageError, match=f"ended with no {out[0]}"):
    paper._run("row", ends)


def test_a_stage_may_end_in_order_when_the_command_is_stopped(tmp_path):
  out = tmp_path / "saved"
  code = (
    "import os, pathlib, signal, time\n"
    f"save = lambda *x: (pathlib.Path({str(out)!r}).touch(), os._exit(0))\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "os.kill(os.getppid(), signal.SIGTERM)\n"
    "time.sleep(60)"
  )
  record = paper._run("row", stages.Stage("train x", ("-c", code), (out,)))
  assert record["name"] == "train x" and not record["resumed"]
  assert record["command"] == shlex.join(("python", "-c", code))
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_differences_of_figures_are_named():
  old = {"evaluate": {"sets": {"hat": {"mean": 1.5}}, "ood": 1}}
  new = {"evaluate": {"sets": {"hat": {"mean": 1.25}}}}
  assert list(manifest.differences(old, new)) == [
    "evaluate/ood: 1 there, None here",
    "evaluate/sets/hat/mean: 1.5 there, 1.25 here",
  ]
  assert not list(manifest.differences(old, old))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Returns a workdir that the tiny rows of all tests share."""
  return tmp_path_factory.mktemp("paper")


def check_manifest(path, name):
  """Checks what a row has left, and returns its manifest."""
  found = manifest.read(path / name / "manifest.json")
  row = rows.ROWS[name]
  options = rows.Options(path, "tiny")
  plan = stages.plan(row, options).stages()
  assert [x["name"] for x in found["stages"]] == list(plan)
  assert [x["command"] for x in found["stages"]] == [
    manifest.shown(x) for x in plan.values()
  ]
  assert list(found["runs"]) == list(row.configs)
  for one in found["runs"].values():
    assert one["step"] == 4 and len(one["weights_sha256"]) == 64
    assert one["config"]["train"]["num_steps"] == 4
  figures = found["figures"]
  assert all(len(x) == 64 for x in found["reference_sha256"].values())
  assert figures["evaluate"]["sets"]["hat"]["frechet_distance"]["mean"] > 0
  assert (row.table == "ood") == ("ood" in figures["evaluate"])
  assert (row.table == "refinement") == ("evaluate DDLS" in figures)
  table = (path / name / "table.md").read_text()
  model = "DDLS" if row.table == "refinement" else ""
  pattern = rf"^\| {model}.*\| measured here \|.* (FID|FD-\S+|AUROC) \d"
  assert re.search(pattern, table, re.M), table
  return found


@pytest.fixture(scope="module")
def tiny_rows(request, place):
  """Returns the rows that the tests ask for, which are run two at a time.

  Rows of one image size share images and runs, and come one after another.
  """
  asked = [
    item.callspec.params["name"]
    for item in request.session.items
    if getattr(item, "originalname", "") == "test_a_tiny_row_runs_end_to_end"
  ]
  ended = {name: concurrent.futures.Future() for name in asked}

  def run_all(names):
    for name in names:
      try:
        printed = run(name, "--budget=tiny", f"--workdir={place}")
        ended[name].set_result(printed)
      except BaseException as error:
        ended[name].set_exception(error)

  size = lambda name: rows.ROWS[name].image_size
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    for _, names in itertools.groupby(sorted(asked, key=size), size):
      pool.submit(run_all, list(names))
    yield ended


@pytest.mark.slow
@pytest.mark.parametrize("name", rows.ROWS)
def test_a_tiny_row_runs_end_to_end(name, tiny_rows, place):
  tiny_rows[name].result()
  check_manifest(place, name)


@pytest.fixture(scope="module")
def twin(place):
  """Returns the folder of a tiny row on the digits."""
  run("synthesis-digits", "--budget=tiny", f"--workdir={place}")
  return place / "synthesis-digits"


@pytest.mark.slow
def test_what_is_done_is_not_done_again(twin, place):
  before = check_manifest(place, "synthesis-digits")
  printed = run("synthesis-digits", "--budget=tiny", f"--workdir={place}")
  assert printed.count("done before") == 3
  assert check_manifest(place, "synthesis-digits") == before
  (twin / "evaluation.json").unlink()
  printed = run("synthesis-digits", "--budget=tiny", f"--workdir={place}")
  assert printed.count("done before") == 2
  after = check_manifest(place, "synthesis-digits")
  assert after["figures"] == before["figures"]
  # Another row uses the same hat.
  plan = stages.plan(rows.ROWS["ood-digits"], rows.Options(place, "tiny"))
  known = manifest.done(rows.Options(place))
  assert manifest.shown(plan.train["digits"]) in known


@pytest.mark.slow
def test_a_killed_row_goes_on_and_has_the_same_figures(twin, tmp_path):
  again = f"--again={twin / 'manifest.json'}", f"--workdir={tmp_path}"
  process = subprocess.Popen(
    command(*again),
    cwd=_ROOT,
    env=_ONE_DEVICE,
    start_new_session=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while not (tmp_path / "digits/checkpoints/2").exists():
    assert process.poll() is None
    time.sleep(0.02)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  printed = run(*again)
  assert f"All figures equal those of {twin / 'manifest.json'}." in printed
  old, new = (
    manifest.read(x / "manifest.json")
    for x in (twin, tmp_path / "synthesis-digits")
  )
  assert [x["resumed"] for x in new["stages"]] == [True, False, False]
  for key in ("runs", "reference_sha256", "figures"):
    assert old[key] == new[key], json.dumps([old[key], new[key]])[:2000]
