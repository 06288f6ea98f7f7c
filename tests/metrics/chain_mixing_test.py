"""Tests mixing against ArviZ, by hand and on chains with a known answer."""

import numpy as np
import pytest

from hatebm_jax.metrics import chain_mixing


def recursion(phi, num_chains, num_frames, seed):
  """Returns stationary chains x' = phi x + sqrt(1 - phi^2) n of variance 1."""
  rng = np.random.default_rng(seed)
  x = np.empty((num_chains, num_frames))
  x[:, 0] = rng.normal(size=num_chains)
  for t in range(1, num_frames):
    noise = rng.normal(size=num_chains)
    x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * noise
  return x


ARRAYS = {
  "mixed": recursion(0.5, 4, 100, 0),
  "slow": recursion(0.95, 8, 61, 1),
  "levels": recursion(0.5, 4, 40, 2) + 3 * np.arange(4)[:, None],
  "heavy_tails": recursion(0.3, 6, 25, 3) ** 3,
}


# These numbers were made with arviz 0.23.4, which shares no code with
# arviz-stats, by arviz.ess(array, method="bulk") and
# arviz.rhat(array, method="rank").
@pytest.mark.parametrize(
  "name, ess, r_hat",
  [
    ("mixed", 158.7887294835537, 1.011027341761343),
    ("slow", 23.561034459075227, 1.3027900233763023),
    ("levels", 5.7504768444365455, 2.862369854897928),
    ("heavy_tails", 94.79745770507346, 1.0288870139954418),
  ],
)
def test_figures_are_those_of_arviz(name, ess, r_hat):
  found = chain_mixing.mixing(ARRAYS[name])
  np.testing.assert_allclose(found.ess, ess, rtol=1e-6)
  np.testing.assert_allclose(found.r_hat, r_hat, rtol=1e-6)
  assert found.stuck == 0


def test_r_hat_of_balanced_halves_by_hand():
  # The halves of all chains have the same mean of normal scores, 0, and so do
  # their distances from the median. Then B = 0 and R-hat = sqrt((n - 1) / n)
  # with n = 4.
  halves = [[8, -8, 1, -1], [7, -7, 2, -2], [6, -6, 3, -3], [5, -5, 4, -4]]
  found = chain_mixing.mixing(np.reshape(halves, (2, 8)))
  np.testing.assert_allclose(found.r_hat, np.sqrt(3 / 4), rtol=1e-12)
  assert found.ess is None  # of 8 frames


def test_ess_of_alternating_chains_by_hand():
  # Their autocorrelations cancel, so the estimate is cut off at n log10(n).
  found = chain_mixing.mixing(np.tile([1.0, -1.0], (2, 10)))
  np.testing.assert_allclose(found.ess, 40 * np.log10(40), rtol=1e-12)


def test_ess_depends_on_the_order_of_energies_alone():
  energies = ARRAYS["mixed"]
  np.testing.assert_allclose(
    chain_mixing.mixing(np.exp(energies)).ess,
    chain_mixing.mixing(energies).ess,
    rtol=1e-12,
  )


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_ess_of_a_recursion(phi):
  """The integrated autocorrelation time of phi^t is (1 + phi) / (1 - phi)."""
  found = chain_mixing.mixing(recursion(phi, 8, 3_000, 4))
  expected = 8 * 3_000 * (1 - phi) / (1 + phi)
  np.testing.assert_allclose(found.ess, expected, rtol=0.15)
  assert found.r_hat < 1.01


def test_chains_at_levels_of_their_own_move_but_do_not_mix():
  # The chains are 1,000 times as far apart as they move. They are not stuck,
  # but they do not mix.
  levels = 1_000 * np.arange(8)[:, None]
  found = chain_mixing.mixing(recursion(0.5, 8, 100, 5) + levels)
  assert found.stuck == 0 and found.r_hat > 2.5 and found.ess < 16
  # One chain of eight lags behind, or all chains share a drift.
  one = recursion(0.5, 8, 100, 5) + 5 * (np.arange(8) == 3)[:, None]
  assert chain_mixing.mixing(one).r_hat > 1.1
  drift = recursion(0.5, 8, 100, 5) + 0.1 * np.arange(100)
  assert chain_mixing.mixing(drift).r_hat > 1.5


def test_all_stuck_at_one_value_is_not_perfect():
  # R-hat would be 0/0, and the effective sample size would be all 80 frames.
  energies = np.full((4, 20), 0.7)
  assert chain_mixing.mixing(energies) == (None, None, 4)
  assert chain_mixing.mixing(energies + np.arange(4)[:, None]) == (
    None,
    None,
    4,
  )
  assert chain_mixing.mixing(np.zeros((4, 20))) == (None, None, 4)
  assert chain_mixing.mixing(energies[:1]) == (None, None, 1)


def test_few_and_many_stuck_chains_are_counted():
  energies = recursion(0.5, 8, 50, 6)
  for num_stuck in range(1, 9):
    energies[num_stuck - 1] = energies[num_stuck - 1, 0]
    assert chain_mixing.mixing(energies) == (None, None, num_stuck)


@pytest.mark.parametrize("scale, stuck", [(0.005, 2), (0.02, 0)])
def test_a_chain_that_hardly_moves_is_stuck(scale, stuck):
  # A share of 1e-4 of the variance is 1 % of the deviation.
  energies = recursion(0.0, 8, 200, 7)
  energies[[2, 5]] *= scale
  assert chain_mixing.mixing(energies).stuck == stuck


def test_rounding_is_no_movement():
  noise = np.random.default_rng(8).normal(size=(4, 50))
  rounded = (100 + 1e-6 * noise).astype(np.float32)
  assert len(np.unique(rounded)) == 1
  # Energies of 100 are 8e-6 apart in float32.
  jitter = (100 + 8e-6 * np.sign(noise)).astype(np.float32)
  assert len(np.unique(jitter)) > 1
  for energies in (rounded, jitter):
    assert chain_mixing.mixing(energies) == (None, None, 4)
  moving = (100 + 1e-3 * noise).astype(np.float32)
  assert chain_mixing.mixing(moving).stuck == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_chain_leaves_no_figure(value):
  energies = recursion(0.5, 4, 20, 9)
  energies[1, 15:] = value
  assert chain_mixing.mixing(energies) == (None, None, 0)
  energies[2] = 0.5
  assert chain_mixing.mixing(energies) == (None, None, 1)
  assert chain_mixing.mixing(np.full((4, 20), value)) == (None, None, 0)


def test_few_frames_leave_no_figure():
  energies = recursion(0.9, 8, 12, 10)
  for num_frames in range(1, 4):
    assert chain_mixing.mixing(energies[:, :num_frames]) == (None, None, 0)
  for num_frames in range(4, 10):
    found = chain_mixing.mixing(energies[:, :num_frames])
    assert found.ess is None and found.r_hat > 1
  # With more frames, slow chains are told from shuffled ones.
  shuffled = np.random.default_rng(0).permutation(energies[:, :10].ravel())
  slow = chain_mixing.mixing(energies[:, :10]).ess
  assert slow < 0.5 * chain_mixing.mixing(shuffled.reshape(8, 10)).ess


def test_one_chain_has_no_r_hat():
  found = chain_mixing.mixing(recursion(0.5, 1, 200, 11))
  assert found.r_hat is None and 30 < found.ess < 140


def test_chains_that_stop_between_two_levels_give_no_infinity():
  # Each half stands still, so that there is no variance within it.
  energies = np.repeat([[0.0, 1.0], [2.0, 3.0]], 10, axis=1)
  found = chain_mixing.mixing(energies)
  assert found.r_hat is None and found.ess < 5


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 5), (5, 0)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(ValueError, match="expected energies"):
    chain_mixing.mixing(np.zeros(shape))


@pytest.mark.parametrize("batch_size", [1, 4, 1_000])
def test_nearest_by_brute_force(batch_size):
  rng = np.random.default_rng(0)
  samples, references = (
    rng.integers(0, 256, (n, 3, 2, 3), np.uint8) for n in (5, 11)
  )
  found = chain_mixing.nearest(samples, references, 3, batch_size)
  difference = np.float64(samples[:, None]) - np.float64(references)
  expected = np.sqrt(np.square(difference).mean((2, 3, 4)))
  order = expected.argsort(1)[:, :3]
  np.testing.assert_array_equal(found.indices, order)
  np.testing.assert_allclose(
    found.distances, np.take_along_axis(expected, order, 1), rtol=1e-6
  )


def test_a_copy_is_found_at_distance_zero():
  references = np.random.default_rng(1).integers(
    0, 256, (50, 16, 16, 1), np.uint8
  )
  found = chain_mixing.nearest(references[[7, 31]], references, batch_size=20)
  np.testing.assert_array_equal(found.indices, [[7], [31]])
  np.testing.assert_array_equal(found.distances, [[0.0], [0.0]])
  # All pixels are 3 grey levels off, and the difference does not wrap at 255.
  off = np.where(references[:1] < 128, references[:1] + 3, references[:1] - 3)
  found = chain_mixing.nearest(off.astype(np.uint8), references)
  assert found.indices == 0
  np.testing.assert_allclose(found.distances, 3.0, rtol=1e-12)


def test_nearest_refuses():
  images = np.zeros((3, 2, 2, 1), np.uint8)
  with pytest.raises(ValueError, match="one shape"):
    chain_mixing.nearest(images, images[:, :1])
  for count in (0, 4):
    with pytest.raises(ValueError, match="expected 1 to 3"):
      chain_mixing.nearest(images, images, count)
