"""Checks that every config loads, is locked and has consistent shapes."""

import importlib
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from hatebm_jax import chains, objectives, sharding
from hatebm_jax import config as config_lib
from hatebm_jax.objectives.parts import learner

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  if path.stem != "__init__"
)

# The published settings of synthesis, in the order (size, width, steps, lr hat,
# lr generator, Langevin steps of evaluation).
PUBLISHED = {
  "cifar10": (32, 256, 50_000, 1e-4, 1e-4, 125),
  "celeba64": (64, 1024, 50_000, 1e-4, 1e-4, 100),
  "imagenet128": (128, 1024, 300_000, 1e-4, 5e-5, 150),
  "imagenet128_large": (128, 2048, 300_000, 1e-4, 5e-5, 125),
}


# The published settings of runs with a frozen generator, in the order (size,
# width, steps, lr hat, out_factor), (eps, eps_z, T, tau, data_epsilon,
# init_scale_y), (Langevin steps in training, in evaluation), and (T, tau,
# max_drift_y, init_scale_y) of evaluation.
JOINT = {
  "cifar10_refine": (
    (32, 256, 25_000, 1e-5, 1.0),
    (1e-4, 5e-3, 1e-3, 0.0, 1e-3, 0.0),
    (250, 350),
    (1e-3, 8.0, None, 0.0),
  ),
  "celeba64_refine": (
    (64, 1024, 25_000, 1e-5, 1.0),
    (1e-4, 5e-3, 1e-6, 0.0, 1e-3, 0.0),
    (100, 125),
    (1e-6, 0.0, None, 0.0),
  ),
  "cifar10_retrofit": (
    (32, 256, 25_000, 1e-4, 2.0),
    (5e-4, 1e-3, 1e-3, 50.0, 1e-2, 0.0),
    (100, 125),
    (1e-3, 50.0, None, 0.01),
  ),
}


# Their steps take about ten seconds to trace. imagenet128 is as large, and is
# not here: it stands for them in the fast tests.
LARGE = (
  *("cifar10_refine", "cifar10_refine_plus"),
  *("celeba64", "celeba64_plus", "celeba64_refine", "celeba64_refine_plus"),
  *("imagenet128_plus", "imagenet128_large", "imagenet128_large_plus"),
)


def slow_if_large(name):
  marks = [pytest.mark.slow] if name in LARGE else []
  return pytest.param(name, marks=marks)


def load(name):
  return importlib.import_module(f"hatebm_jax.configs.{name}").get_config()


@pytest.mark.parametrize("name", [slow_if_large(name) for name in NAMES])
def test_step_has_consistent_shapes_at_full_size(name):
  config = load(name)
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  objective = objectives.make(config, mesh)
  state = jax.eval_shape(objective.init, jax.random.key(0), *objective.frozen)
  batch_size = config.train.batch_size
  image = (config.data.image_size, config.data.image_size, config.data.channels)
  after, metrics, shown = jax.eval_shape(
    objective.step,
    state,
    jax.ShapeDtypeStruct(
      (batch_size * objective.batches_per_step, *image), jnp.uint8
    ),
    jax.random.key(0),
  )
  assert jax.tree.map(lambda a, b: a.shape == b.shape, state, after)
  assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}
  num_shown = 16 if config.objective == "autoencoder" else batch_size
  assert {leaf.shape for leaf in shown.values()} == {(num_shown, *image)}
  for part in state:
    if isinstance(part, learner.Learner):
      dtypes = {leaf.dtype for leaf in jax.tree.leaves(part.params)}
      assert dtypes == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", NAMES)
def test_config_is_locked_and_names_the_nearest_field(name):
  config = load(name)
  assert config.is_locked
  with pytest.raises(AttributeError, match="learning_rate"):
    config.hat.learning_rat = 1.0
  with pytest.raises(TypeError):
    config.train.num_steps = "many"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
  config = load(name)
  assert PUBLISHED[name] == (
    config.data.image_size,
    config.model.width,
    config.train.num_steps,
    config.hat.learning_rate,
    config.generator.learning_rate,
    config.evaluate.num_steps,
  )
  assert config.train.batch_size == 128
  assert config.langevin.to_dict() == {
    "num_steps": 50,
    "step_size_y": 5e-4,
    "annealing": 1.0,
    "step_size_z": 0.0,
    "temperature": 1e-8,
    "tau": 0.0,
    "max_drift_y": 2.5,
    "init_scale_z": 1.0,
    "init_scale_y": 0.0,
    "replay_share": 0.0,
    "replay_from": 0,
  }
  assert config.hat.data_epsilon == 1e-3
  assert config.generator.out_factor == 2.0
  assert config.generator.bank_size == 10_000
  assert config.evaluate.init_scale_y == 0.01
  assert config.evaluate.max_drift_y is None
  imagenet = name.startswith("imagenet")
  assert config.hat.max_grad_norm == (50.0 if imagenet else None)


def differences(name):
  """Returns the fields in which a plus config differs from the published."""
  published, plus = load(name), load(f"{name}_plus")
  config_lib.check(plus)
  return {
    field: value
    for field, _ in config_lib.fields()
    if (value := config_lib.get(plus, field))
    != config_lib.get(published, field)
  }


@pytest.mark.parametrize(
  ("name", "replay_from", "num_steps"),
  [
    ("cifar10", 37_500, 100),
    ("celeba64", 37_500, None),  # 100 as published.
    ("imagenet128", 225_000, None),  # 150 as published.
    ("imagenet128_large", 225_000, 100),
  ],
)
def test_settings_of_synthesis_that_are_not_published(
  name, replay_from, num_steps
):
  chain_length = {"evaluate.num_steps": num_steps} if num_steps else {}
  assert differences(name) == chain_length | {
    "langevin.annealing": 10.0,
    "langevin.replay_share": 0.75,
    "langevin.replay_from": replay_from,
    "sample.weights": "averaged",
  }


@pytest.mark.parametrize("name", JOINT)
def test_settings_of_joint_runs_that_are_not_published(name):
  assert differences(name) == {"sample.weights": "averaged"}


@pytest.mark.parametrize("name", JOINT)
def test_published_settings_of_joint_runs(name):
  config = load(name)
  network, chain, num_steps, evaluation = JOINT[name]
  train = chains.training_plan(config).settings
  evaluate = chains.evaluation_plan(config).settings
  assert network == (
    config.data.image_size,
    config.model.width,
    config.train.num_steps,
    config.hat.learning_rate,
    config.generator.out_factor,
  )
  assert chain == pytest.approx(
    (
      *(train.step_size_y, train.step_size_z, train.temperature, train.tau),
      *(config.hat.data_epsilon, config.langevin.init_scale_y),
    )
  )
  assert num_steps == (train.num_steps, evaluate.num_steps)
  assert evaluate[1:3] == train[1:3]
  assert evaluation == (
    *(evaluate.temperature, pytest.approx(evaluate.tau)),
    *(evaluate.max_drift_y, config.evaluate.init_scale_y),
  )
  assert train.update_z and evaluate.update_z
  assert config.train.batch_size == 128 and train.max_drift_y == 2.5
  assert config.hat.max_grad_norm is None
  assert config.langevin.init_scale_z == 1.0


@pytest.mark.parametrize("name", ["cifar10_sngan", "celeba64_sngan"])
def test_published_settings_of_an_sngan(name):
  config = load(name)
  assert config.train.num_steps == config.sngan.decay_steps == 100_000
  assert config.train.batch_size == 64
  assert config.sngan.discriminator_steps == 5
  widths = config.model.width, config.sngan.discriminator_width
  assert widths == ((1024, 1024) if name.startswith("celeba") else (256, 128))
  rates = (
    config.generator.learning_rate,
    config.sngan.discriminator_learning_rate,
  )
  assert rates == (2e-4, 2e-4)
  assert config.generator.norm_epsilon == 1e-5
  assert config.generator.out_factor == 1.0


def test_published_settings_of_the_autoencoder():
  config = load("cifar10_autoencoder")
  assert config.train.num_steps == 49_900 and config.train.test_every == 2_495
  assert config.train.batch_size == 128
  assert config.generator.learning_rate == 1e-4
  assert config.autoencoder.latent_epsilon == 0.02
  # The autoencoder learns the decoder that the retrofit expects.
  mesh = sharding.make_mesh()
  decoders = [
    objectives.make(load(name), mesh).networks.generator
    for name in ("cifar10_autoencoder", "cifar10_retrofit")
  ]
  assert decoders[0] == decoders[1]


@pytest.mark.parametrize("data", ["cifar10", "celeba64", "digits"])
def test_a_refinement_expects_the_generator_of_its_sngan(data):
  mesh = sharding.make_mesh()
  configs = [load(f"{data}_{name}") for name in ("sngan", "refine")]
  if data != "digits":  # The paper's SN-GANs have another epsilon than ours.
    assert configs[1].generator.norm_epsilon == 1e-3
    configs[1].generator.norm_epsilon = 1e-5
  generators = [objectives.make(c, mesh).networks.generator for c in configs]
  assert generators[0] == generators[1]


def test_wrong_override_ends_with_one_clear_error(tmp_path):
  result = subprocess.run(
    [
      sys.executable,
      "-m",
      "hatebm_jax.main",
      "--config=configs/digits.py",
      f"--workdir={tmp_path}",
      "--config.train.num_step=3",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode != 0
  assert "num_steps" in result.stderr
