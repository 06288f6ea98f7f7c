"""Tests long chains against the sampler and formulas, and when they fail."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hatebm_jax import chains as chains_lib
from hatebm_jax import (
  data,
  errors,
  objectives,
  pixels,
  sample,
  sharding,
)
from hatebm_jax import networks as networks_lib
from hatebm_jax import rng as rng_lib
from hatebm_jax.evaluation import console, long_chains, plots, temperatures

SHAPE = (4, 4, 1)  # of an image of the analytic chains
CURVE = {"step", "energy", "frechet_distance", "saturation"}
FIGURES = {
  "num_chains",
  "num_steps",
  "training_steps",
  "sampling_steps",
  "best_steps",
  "ess",
  "r_hat",
  "stuck",
  "energy_gap",
  "drift_norm_y",
  "drift_norm_z",
  "curve",
}
REFERENCES = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), np.uint8)


def brightness(shown):
  """Stands in for a Frechet distance: it maps uint8 images to a float."""
  assert shown.dtype == np.uint8
  return float(shown.mean())


def on_devices(restored, count):
  mesh = sharding.make_mesh(jax.devices()[:count])
  variables = jax.device_put(
    jax.device_get(restored.variables),
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
  )
  return restored._replace(mesh=mesh, variables=variables)


# The hat H = c |x|^2 / 2 in place of a network; its parameters are c.
QUADRATIC = networks_lib.Hat(
  init=lambda rng, images: jnp.float32(1),
  apply=lambda c, x: 0.5 * c * jnp.square(x).sum((1, 2, 3)),
)


def analytic(devices=1, objective="joint", **overrides):
  """Returns chains of the hat |x|^2 / 2 on the generator x = z / 2."""
  config = tiny.config(
    **{
      "langevin__num_steps": 2,
      "langevin__temperature": 1.0,
      "langevin__step_size_y": 0.2,
      "langevin__step_size_z": 0.1,
      "chains__num_chains": 8,
      "chains__multiple": 10,
      **overrides,
    }
  )
  config.objective = objective
  generator = networks_lib.Generator(lambda _, z: 0.5 * z, SHAPE)
  networks = networks_lib.Networks(QUADRATIC, generator, None, SHAPE, SHAPE)
  variables = (jnp.float32(1), jnp.zeros(0))
  restored = sample.Restored(config, 0, networks, variables, None, None)
  return on_devices(restored, devices)


def cells(picture, columns, size):
  """Returns the cells of a strip, `[columns, rows, size, size, channels]`."""
  zoom = max(1, 32 // size)
  edge = zoom * size + 1
  rows = (picture.shape[0] - 1) // edge
  inner = picture[1:, 1:].reshape(rows, edge, columns, edge, -1)
  return inner[:, :-1:zoom, :, :-1:zoom].transpose(2, 0, 1, 3, 4)


def assert_close(found, expected, leave_out=()):
  """Compares figures that differ only by rounding."""
  for name in FIGURES - {"curve", *leave_out}:
    np.testing.assert_allclose(
      found[name] or 0, expected[name] or 0, rtol=1e-3, atol=1e-5, err_msg=name
    )
  for one, other in zip(found["curve"], expected["curve"], strict=True):
    for name in CURVE:
      # The brightness moves if one of many pixels is rounded differently.
      np.testing.assert_allclose(
        one[name], other[name], rtol=1e-3, atol=1e-5, err_msg=name
      )


@pytest.fixture(scope="module")
def restored():
  """Returns the networks of the digits as they are before training."""
  # At T = 1 the chain does not amplify rounding.
  config = tiny.config(
    langevin__temperature=1.0,
    langevin__step_size_y=0.1,
    langevin__num_steps=2,
    chains__num_chains=8,
    chains__multiple=5,
  )
  mesh = sharding.make_mesh()
  objective = objectives.make(config, mesh)
  state = jax.jit(objective.init)(jax.random.key(0))
  variables = objective.networks.variables(state, "raw")
  return sample.Restored(config, 0, objective.networks, variables, None, mesh)


@pytest.fixture(scope="module")
def digits(restored):
  return data.load_all(data.open_source(restored.config.data))


@pytest.fixture(scope="module")
def measured(restored, digits):
  return long_chains.measure(restored, digits, brightness)


@pytest.fixture(scope="module")
def expected():
  return long_chains.measure(analytic(), REFERENCES, brightness)


def test_figures_and_pictures_of_a_run(measured):
  result, pictures = measured
  assert result.keys() == FIGURES
  assert json.loads(json.dumps(result, allow_nan=False)) == result
  assert (result["num_chains"], result["num_steps"]) == (8, 10)
  assert result["training_steps"] == 2 and result["stuck"] == 0
  assert result["ess"] is None and result["r_hat"] > 0  # of 6 frames
  assert result["drift_norm_y"] > 0 and result["drift_norm_z"] == 0
  steps = [point["step"] for point in result["curve"]]
  assert steps == [0, 1, 2, 3, 4, 5, 7, 10]
  assert all(point.keys() == CURVE for point in result["curve"])
  assert pictures.keys() == {"chains", "long_run", "nearest"}
  assert all(picture.dtype == np.uint8 for picture in pictures.values())
  assert "8 chains of 10 Langevin steps (2 in training)" in console.table(
    {"sets": {}, "protocol": {}, "chains": result}
  )


@pytest.mark.parametrize("objective", ["joint", "synthesis"])
def test_chains_are_those_of_the_sampler(objective):
  """`draw_paths` runs the same chains in one piece, from step 0 to 10."""
  restored = analytic(8, objective, chains__multiple=5, evaluate__num_steps=10)
  references = np.random.default_rng(1).integers(
    0, 256, (1_500, *SHAPE), np.uint8
  )
  result, pictures = long_chains.measure(restored, references, brightness)
  paths = sample.draw_paths(restored)
  hat_fn = lambda x: 0.5 * np.square(x).sum((-3, -2, -1)).mean()
  strip = cells(pictures["long_run"], len(result["curve"]), 4)
  energies = {}
  for shown, point in zip(strip, result["curve"], strict=True):
    x = paths.generated[point["step"]] + paths.residuals[point["step"]]
    difference = np.int16(shown) - np.int16(pixels.to_uint8(x))
    assert np.abs(difference).max() <= 1  # rounding
    energies[point["step"]] = hat_fn(x)
    np.testing.assert_allclose(
      [point[name] for name in ("energy", "frechet_distance", "saturation")],
      [hat_fn(x), pixels.to_uint8(x).mean(), (np.abs(x) > 1).mean()],
      rtol=1e-3,
      atol=1e-6,
    )
  assert list(energies) == [0, 1, 2, 3, 4, 5, 7, 10]
  # 1,000 of many images stand for all. Samples have taken 2 steps, as in
  # training.
  chosen = references[np.linspace(0, 1_499, 1_000).round().astype(int)]
  gap = hat_fn(pixels.to_float(chosen)) - energies[2]
  np.testing.assert_allclose(result["energy_gap"], gap, rtol=1e-4)


def test_chains_start_as_samples_do():
  restored = analytic(8, evaluate__init_scale_z=0.5, evaluate__init_scale_y=0.0)
  _, pictures = long_chains.measure(restored, REFERENCES)
  columns = (pictures["long_run"].shape[1] - 1) // 33
  start = cells(pictures["long_run"], columns, 4)[0]
  np.testing.assert_array_equal(start, sample.draw(restored).generated[:8])


def test_neighbours_are_beside_their_samples(digits, measured):
  result, pictures = measured
  samples, *neighbours = cells(pictures["nearest"], 4, 16)
  steps = [point["step"] for point in result["curve"]]
  strip = cells(pictures["long_run"], len(steps), 16)
  np.testing.assert_array_equal(samples, strip[steps.index(2)])
  distances = np.square(
    np.float32(digits)[None] - np.float32(samples)[:, None]
  ).sum((2, 3, 4))
  for column, order in zip(neighbours, distances.argsort(1).T, strict=False):
    np.testing.assert_array_equal(column, digits[order])


def test_one_device_finds_what_eight_find(restored, digits, measured):
  found, pictures = long_chains.measure(
    on_devices(restored, 1), digits, brightness
  )
  assert_close(found, measured[0])
  difference = np.int16(pictures["long_run"]) - measured[1]["long_run"]
  assert np.abs(difference).max() <= 1


def test_batches_do_not_matter():
  # Either 16 chains run at once to fill eight devices, or three batches of 4.
  eight, one = (
    long_chains.measure(
      analytic(devices, chains__num_chains=11, sample__batch_size=batch_size),
      REFERENCES,
      brightness,
    )
    for devices, batch_size in ((8, 16), (1, 4))
  )
  # The chains that fill up the devices count only for the drift.
  drifts = ("drift_norm_y", "drift_norm_z")
  assert_close(one[0], eight[0], leave_out=drifts)
  for name in drifts:
    np.testing.assert_allclose(one[0][name], eight[0][name], rtol=0.2)


def test_pmap_runs_the_same_chains(expected):
  restored = analytic(8, sharding__chains="pmap")
  found, _ = long_chains.measure(restored, REFERENCES, brightness)
  assert_close(found, expected[0])


def test_chains_are_at_least_as_long_as_those_of_sampling():
  config = tiny.config(langevin__num_steps=3, chains__multiple=2)
  config.evaluate.num_steps = 7
  assert long_chains.length(config) == 7
  config.chains.multiple = 3
  assert long_chains.length(config) == 9


def chain_lines(distance, **overrides):
  """Returns the figures of 100 chains, and what is printed of them."""
  overrides = {"chains__num_chains": 100, **overrides}
  result, _ = long_chains.measure(analytic(**overrides), REFERENCES, distance)
  figures = {"sets": {}, "protocol": {}, "chains": result}
  return result, console.table(figures).splitlines()[1:]


def test_too_many_steps_of_sampling_are_named():
  """Chains that brighten are best at their start, if bright means far."""
  growing = iter([8.0, 5.0, 4.0, 4.1, 4.2, 4.3, 4.5, 9.0])
  result, lines = chain_lines(
    lambda _: next(growing), chains__multiple=5, evaluate__num_steps=10
  )
  steps = [point["step"] for point in result["curve"]]
  assert steps == [0, 1, 2, 3, 4, 5, 7, 10]
  assert (result["sampling_steps"], result["best_steps"]) == (10, 2)
  assert lines[-2:] == [
    "Distance of these 100 chains: 9 after the 10 steps of "
    "config.evaluate.num_steps, 4 after 2, where it is smallest.",
    "warning: config.evaluate.num_steps=10 is too long for this run. Measure "
    "it with --config.evaluate.num_steps=2 too.",
  ]


@pytest.mark.parametrize(
  "distances",
  [
    [8.0, 5.0, 4.0, 4.1, 4.2, 4.3, 4.5, 4.3],  # within the noise
    [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],  # longer is better
  ],
)
def test_steps_that_suit_get_no_warning(distances):
  found = iter(distances)
  _, lines = chain_lines(
    lambda _: next(found), chains__multiple=5, evaluate__num_steps=10
  )
  assert lines[-1].startswith("Distance of these 100 chains: ")


def test_few_chains_say_nothing_of_their_length():
  result, lines = chain_lines(brightness, chains__num_chains=99)
  assert result["best_steps"] is None
  assert result["curve"][0]["frechet_distance"] is not None
  assert not any("Distance" in line for line in lines)


def test_chains_without_distances_say_nothing_of_their_length():
  result, lines = chain_lines(None)
  assert result["best_steps"] is None
  assert not any("Distance" in line for line in lines)


def test_a_long_chain_forgets_its_start_and_mixes():
  """Its law is known: y' = (1 - a) y + eps n if H = |y|^2 / 2 and G(z) = 0."""
  eps, num_chains = 0.8, 64
  restored = analytic(
    objective="synthesis",
    langevin__step_size_y=eps,
    evaluate__init_scale_z=0.0,
    chains__num_chains=num_chains,
    chains__multiple=200,
  )
  result, _ = long_chains.measure(restored, REFERENCES)
  # There are 201 frames, 2 steps apart.
  assert result["num_steps"] == 400 and result["stuck"] == 0
  variance = eps**2 / (1 - (1 - eps**2 / 2) ** 2)
  # H is a sum of 16 squares, so its deviation is variance * sqrt(8).
  deviation = variance * np.sqrt(8)
  error = deviation / np.sqrt(num_chains)
  assert abs(result["curve"][-1]["energy"] - 8 * variance) < 4 * error
  assert result["r_hat"] < 1.05
  # The correlation of squares decays by (1 - a)^4 = 0.21 per frame. A chain has
  # 101 frames.
  expected = 101 * num_chains * (1 - 0.68**4) / (1 + 0.68**4)
  np.testing.assert_allclose(result["ess"], expected, rtol=0.25)
  # The norm of the drift a y, a = eps^2 / 2, is chi with 16 degrees of freedom.
  # Its mean is 3.938.
  np.testing.assert_allclose(
    result["drift_norm_y"], eps**2 / 2 * np.sqrt(variance) * 3.938, rtol=0.02
  )
  assert result["drift_norm_z"] == 0
  assert {point["frechet_distance"] for point in result["curve"]} == {None}
  # The data's energy is exact.
  data_energy = (
    0.5 * np.square(pixels.to_float(REFERENCES)).sum((1, 2, 3)).mean()
  )
  steps = [point["step"] for point in result["curve"]]
  np.testing.assert_allclose(
    result["energy_gap"],
    data_energy - result["curve"][steps.index(2)]["energy"],
    rtol=1e-5,
  )


def test_the_joint_chain_moves_z(expected):
  result, _ = expected
  assert result["drift_norm_z"] > 0 and result["drift_norm_y"] > 0
  assert result["num_steps"] == 20 and result["r_hat"] > 0


@pytest.mark.filterwarnings("error")
def test_diverging_chains_leave_none():
  restored = analytic(langevin__step_size_y=1e3, chains__multiple=30)
  result, pictures = long_chains.measure(restored, REFERENCES, brightness)
  text = json.dumps(result, allow_nan=False)
  assert "NaN" not in text and "Infinity" not in text
  assert result["ess"] is None and result["r_hat"] is None
  assert result["drift_norm_y"] is None
  last = result["curve"][-1]
  assert last["energy"] is None and last["frechet_distance"] is None
  assert last["saturation"] == 1
  assert result["curve"][0]["energy"] > 0
  assert pictures["chains"].any()
  assert "R-hat none" in console.table(
    {"sets": {}, "protocol": {}, "chains": result}
  )


def test_chains_that_stand_still_are_stuck():
  restored = analytic(langevin__step_size_y=0.0, langevin__step_size_z=0.0)
  result, _ = long_chains.measure(restored, REFERENCES, brightness)
  assert (result["ess"], result["r_hat"], result["stuck"]) == (None, None, 8)
  assert result["drift_norm_y"] == 0


def test_one_chain_has_no_distance():
  result, pictures = long_chains.measure(
    analytic(chains__num_chains=1), REFERENCES, brightness
  )
  assert {point["frechet_distance"] for point in result["curve"]} == {None}
  assert result["r_hat"] is None and result["ess"] > 0
  assert cells(pictures["nearest"], 4, 4).shape == (4, 1, *SHAPE)


@pytest.mark.parametrize(
  "num_steps, expected",
  [
    (1, [0, 1]),
    (3, [0, 1, 2, 3]),
    (400, np.arange(0, 401, 2)),
    (401, [*np.arange(0, 401, 3), 401]),
  ],
)
def test_steps_of_frames(num_steps, expected):
  np.testing.assert_array_equal(long_chains.frame_steps(num_steps), expected)
  assert len(expected) <= 201


@pytest.mark.parametrize(
  "num_steps, cycle, every",
  [(200, 20, 1), (600, 20, 4), (2_000, 20, 10), (9_000, 30, 60), (700, 7, 7)],
)
def test_the_ends_of_annealed_cycles_are_frames(num_steps, cycle, every):
  found = long_chains.frame_steps(num_steps, cycle)
  np.testing.assert_array_equal(found, np.arange(0, num_steps + 1, every))


def test_images_of_annealed_chains_are_those_at_the_ends_of_cycles():
  overrides = {"langevin__num_steps": 3, "langevin__annealing": 4.0}
  run = analytic(chains__multiple=4, evaluate__num_steps=6, **overrides)
  result, _ = long_chains.measure(run, REFERENCES)
  assert [point["step"] for point in result["curve"]] == [0, 3, 6, 9, 12]


@pytest.mark.parametrize(
  "num_frames, wanted, expected",
  [
    (2, [1, 1], [0, 1]),
    (201, [200], [0, 1, 2, 5, 10, 21, 44, 94, 200]),
    (201, [20], [0, 1, 2, 5, 10, 20, 44, 94, 200]),
    (201, [2], [0, 1, 2, 5, 10, 21, 44, 94, 200]),
    (201, [1], [0, 1, 2, 5, 10, 21, 44, 94, 200]),
    (201, [20, 125], [0, 1, 2, 5, 10, 20, 44, 125, 200]),
    (201, [20, 22], [0, 1, 2, 5, 10, 20, 22, 44, 94, 200]),
    (5, [2, 4], [0, 1, 2, 3, 4]),
  ],
)
def test_frames_of_images(num_frames, wanted, expected):
  found = long_chains.image_frames(num_frames, wanted)
  np.testing.assert_array_equal(found, expected)


def test_curves_have_a_second_panel_for_distances():
  point = {"step": 0, "energy": 1.0, "frechet_distance": 2.0, "saturation": 0.0}
  steps, energies = np.arange(5), np.random.default_rng(0).normal(size=(5, 3))
  energies[3:, 1] = np.nan, np.inf
  two = plots.chains(steps, energies, 0.5, 2, [point])
  one = plots.chains(
    steps, energies, np.nan, 2, [point | {"frechet_distance": None}]
  )
  assert two.dtype == np.uint8 and two.shape[2] == 3
  assert two.shape[0] == 2 * one.shape[0] and two.shape[1] == one.shape[1]


@pytest.mark.parametrize("field", ["num_chains", "multiple"])
def test_no_chains_are_a_clear_error(field):
  with pytest.raises(errors.ConfigError, match=f"config.chains.{field}=0"):
    long_chains.measure(analytic(**{f"chains__{field}": 0}), REFERENCES)


def test_another_way_to_split_chains_is_refused():
  with pytest.raises(errors.ConfigError, match=r"config\.sharding\.chains"):
    long_chains.measure(analytic(sharding__chains="none"), REFERENCES)


def test_a_hat_tells_at_which_temperature_it_was_trained():
  """The first drift of the hat |x|^2 / 2 is (eps^2 / 2) |x| / T by hand."""
  overrides = {
    "objective": "synthesis",
    "langevin__num_steps": 1,
    "langevin__step_size_y": 1.0,
    "langevin__max_drift_y": 50.0,
    "chains__temperatures": (1e5, 1e-5, 1.0),
  }
  asked = analytic(8, **overrides)
  found = temperatures.measure(asked, data_energy=3.0)
  plan = chains_lib.training_plan(asked.config)
  rng = rng_lib.stream(jax.random.key(asked.config.seed), "sample")
  rngs = rng_lib.per_index(rng, jnp.arange(8))
  x = 0.5 * np.asarray(chains_lib.start(asked.networks, plan, rngs).z)
  drift = 0.5 * np.sqrt(np.square(x).sum((1, 2, 3))).mean()
  assert [one["temperature"] for one in found] == [1.0, 1e5, 1e-5]
  np.testing.assert_allclose(
    [one["drift_norm_y"] for one in found], [drift, drift / 1e5, 50], 1e-5
  )
  # The noise of 16 pixels at eps = 1 has a norm of 4.
  assert {one["noise_norm_y"] for one in found} == {4.0}
  assert [one["clip_rate_y"] for one in found] == [0, 0, 1]
  assert [one["plausible"] for one in found] == [True, False, False]
  # Halving x leaves a quarter of the energy; noise is the same everywhere.
  gaps = [one["energy_gap"] for one in found]
  assert gaps[1] < gaps[0] < 3 and gaps[2] < gaps[1]
  lines = console.table(
    {
      "sets": {},
      "chains": long_chains.measure(asked, REFERENCES)[0],
    }
  ).splitlines()
  assert f"At temperature 1 a step drifts by {drift:.3g} (noise 4" in lines[-3]
  assert lines[-3].endswith(": plausible.")
  assert "100% clipped" in lines[-1] and lines[-1].endswith("not plausible.")
