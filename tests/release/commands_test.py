"""Other people's files become releases that every command takes.

The networks that other implementations wrote (tests/fixtures/parity) stand in
for the files that people have published.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from hatebm_jax import (
  config_flag,
  convert,
  networks,
  release,
  sample,
  sharding,
)
from hatebm_jax.run import weights, workdir

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "parity"
TINY = ("--config.evaluate.num_steps=3", "--config.train.num_steps=7")
EIGHT = ("--config.sample.num_images=8", "--config.sample.batch_size=8")
# Config, folder of the files, flags, and out_factor of the published network.
EXPERIMENTS = {
  "cifar10": ("sngan32", ("--config.model.width=16",), 2.0),
  "celeba64": ("sngan64", ("--config.model.width=64",), 2.0),
  "imagenet128": ("sngan128", ("--config.model.width=64",), 2.0),
  "cifar10_refine": (
    "sngan32",
    ("--config.model.width=16",),
    1.0,
  ),
  "celeba64_refine": (
    "sngan64",
    ("--config.model.width=64",),
    1.0,
  ),
  "cifar10_retrofit": ("decoder32", ("--config.model.width=16",), 2.0),
}
MIMICRY = {
  "cifar10_sngan": ("mimicry32", 16),
  "celeba64_sngan": ("mimicry64", 64),
}


def command(module, *arguments, status=0):
  """Runs a command of the package; returns what it printed."""
  result = subprocess.run(
    [sys.executable, "-m", f"hatebm_jax.{module}", *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert result.returncode == status, result.stdout
  return result.stdout


def files_of(name):
  """Returns the files of an experiment and the flags that name them."""
  folder = FIXTURES / EXPERIMENTS[name][0]
  paths = {"hat": folder / "ebm.ckpt", "generator": folder / "gen.ckpt"}
  return paths, [f"--{kind}={path}" for kind, path in paths.items()]


def make(name, out):
  """Makes a release of an experiment by the command."""
  _, flags, _ = EXPERIMENTS[name]
  arguments = (f"--config=configs/{name}.py", *TINY, *flags, f"--out={out}")
  return command("convert", "release", *arguments, *files_of(name)[1])


def drawn_by_python(name, path):
  """Draws with the networks of the files and not with those of the release."""
  config = workdir.read_config(path)
  config.sample.num_images = config.sample.batch_size = 8
  restored = sample.restore(config, path)
  paths, _ = files_of(name)
  hat, hat_variables = convert.from_tf2(paths["hat"])
  out_factor = EXPERIMENTS[name][2]
  generator, variables = convert.from_tf2(paths["generator"], out_factor)
  model = restored.networks._replace(
    hat=networks.linen_hat(hat), generator=generator
  )
  place = jax.sharding.NamedSharding(
    sharding.make_mesh(), jax.sharding.PartitionSpec()
  )
  variables = jax.device_put((hat_variables["params"], variables), place)
  restored = restored._replace(networks=model, variables=variables)
  return sample.draw(restored)


@pytest.mark.slow
def test_files_become_a_release_with_the_same_samples(tmp_path):
  config = config_flag.load(
    ["--config=cifar10", *TINY, *EXPERIMENTS["cifar10"][1]]
  )
  paths, _ = files_of("cifar10")
  path = release.from_files(config, tmp_path / "out", paths)
  expected = drawn_by_python("cifar10", path)
  config = workdir.read_config(path)
  config.sample.num_images = config.sample.batch_size = 8
  restored = sample.restore(config, path)
  assert restored.step == 7
  drawn = sample.draw(restored)
  np.testing.assert_array_equal(drawn.samples, expected.samples)
  np.testing.assert_array_equal(drawn.generated, expected.generated)
  card = (path / "README.md").read_text()
  assert "`ebm.ckpt` (the hat), `gen.ckpt` (the generator)" in card
  assert str(FIXTURES) not in card + (path / "config.json").read_text()


def test_the_epsilon_of_other_code_is_refused(tmp_path):
  config = config_flag.load(
    [
      "--config=cifar10_refine",
      "--config.model.width=16",
      "--config.generator.norm_epsilon=1e-5",  # torch-mimicry's
    ]
  )
  with pytest.raises(
    ValueError, match=r"expected norm_epsilon 1e-05; found norm_epsilon 0.001"
  ):
    release.from_files(config, tmp_path / "out", files_of("cifar10_refine")[0])


@pytest.mark.parametrize(
  ("arguments", "status", "message"),
  [
    (
      ("--config=cifar10", *files_of("cifar10")[1]),
      1,
      "hat/params/block_0/conv_0/bias: expected the shape (256,), found (16,)",
    ),
    (("--config=cifar10",), 2, "expected the workdir of a run, or --config"),
    (("runs/x", "--config=cifar10"), 2, "expected the workdir of a run, or"),
    ((), 2, "expected the workdir of a run, or --config and the files"),
    (
      ("--config=cifar10", *files_of("cifar10")[1], "--averaged_only"),
      2,
      "--checkpoint and --averaged_only need a run's workdir",
    ),
    (("runs/nothing",), 1, "holds no run: config.json is missing"),
    (
      ("--config=cifar10", "--hat=none.ckpt", "--generator=none.ckpt"),
      1,
      "found no file none.ckpt.index",
    ),
  ],
)
def test_commands_that_make_no_release(tmp_path, arguments, status, message):
  out = tmp_path / "out"
  printed = command(
    "convert", "release", f"--out={out}", *arguments, status=status
  )
  assert message in printed and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_samples_of_a_release_by_command(name, tmp_path):
  path, out = tmp_path / "release", tmp_path / "out"
  make(name, path)
  assert "are equal" in command("convert", "check", path)
  command("main", f"--workdir={path}", "--mode=sample", f"--out={out}", *EIGHT)
  expected = drawn_by_python(name, path)
  with np.load(out / "samples" / "00000007_raw.npz") as file:
    np.testing.assert_array_equal(file["images"], expected.samples)
    np.testing.assert_array_equal(file["generator"], expected.generated)
  printed = command(
    *("main", f"--workdir={path}", "--mode=sample", f"--out={out}"),
    "--config.sample.weights=averaged",
    status=1,
  )
  assert "no averaged weights" in printed and "Traceback" not in printed


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  """Returns a folder of 64 training and 32 test images, 32 pixels large."""
  folder = tmp_path_factory.mktemp("images")
  rng = np.random.default_rng(0)
  for split, number in (("train", 64), ("test", 32)):
    (folder / split).mkdir()
    for i in range(number):
      image = rng.integers(0, 256, (32, 32, 3), np.uint8)
      Image.fromarray(image).save(folder / split / f"{i:02d}.png")
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["cifar10", "cifar10_refine", "cifar10_retrofit"]
)
def test_evaluation_of_a_release_by_command(name, images, tmp_path):
  path = tmp_path / "release"
  make(name, path)
  command(
    *("main", f"--workdir={path}", "--mode=evaluate", *EIGHT),
    f"--config.data.source=folder:{images}",
    f"--config.ood.sets=('folder:{images / 'train'}',)",
    "--config.ood.bootstraps=10",
    "--config.chains.num_chains=8",
  )
  figures = json.loads((path / "evaluation.json").read_text())
  assert figures["sets"]["hat"]["frechet_distance"]["mean"] > 0
  (found,) = figures["ood"]["sets"].values()
  assert 0 <= found["scores"]["energy"]["auroc"]["value"] <= 1
  assert figures["chains"]["num_chains"] == 8
  assert figures["protocol"]["checkpoint_step"] == 7
  command("report", path)
  assert "without training state" in (path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", MIMICRY)
def test_a_released_sngan_is_refined_by_command(name, images, tmp_path):
  folder, width = MIMICRY[name]
  path, run = tmp_path / "release", tmp_path / "run"
  net = FIXTURES / folder
  command(
    *("convert", "release", f"--config=configs/{name}.py", f"--out={path}"),
    f"--generator={net / 'netG.pth'}",
    f"--discriminator={net / 'netD.pth'}",
    f"--config.model.width={width}",
    f"--config.sngan.discriminator_width={width}",
  )
  assert "are equal" in command("convert", "check", path)
  shapes = weights.Release(path).shapes(100_000)
  assert "discriminator/params/head/kernel" in shapes
  assert "spectral/head/u" in shapes
  refine = name.replace("sngan", "refine")
  command(
    *("main", f"--config=configs/{refine}.py", f"--workdir={run}", *EIGHT),
    "--config.generator.norm_epsilon=1e-5",
    f"--config.generator.source={path}",
    f"--config.model.width={width}",
    f"--config.data.source=folder:{images}",
    "--config.train.num_steps=1",
    "--config.train.batch_size=8",
    "--config.langevin.num_steps=2",
    "--config.evaluate.num_steps=2",
    "--config.chains.num_chains=0",
  )
  restored = sample.restore(workdir.read_config(run), run)
  _, expected = convert.from_mimicry(net / "netG.pth")
  jax.tree.map(np.testing.assert_array_equal, restored.variables[1], expected)


@pytest.mark.slow
def test_training_in_a_release_and_from_it_by_command(images, tmp_path):
  path, run = tmp_path / "release", tmp_path / "run"
  make("cifar10", path)
  flags = (
    f"--config.data.source=folder:{images}",
    "--config.train.num_steps=1",
    "--config.train.batch_size=8",
    "--config.generator.bank_size=16",
    "--config.chains.num_chains=0",
    *EIGHT,
  )
  printed = command("main", f"--workdir={path}", *flags, status=1)
  assert f"--config.train.start_from={path}" in printed
  assert printed.startswith("error: ") and "Traceback" not in printed
  command(
    *("main", f"--config={path}", f"--workdir={run}", *flags),
    f"--config.train.start_from={path}",
  )
  assert sample.restore(workdir.read_config(run), run).step == 1
