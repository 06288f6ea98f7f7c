"""Recipes of the race: what each changes in the published recipe."""

import types
from collections.abc import Mapping
from typing import NamedTuple


class Recipe(NamedTuple):
  """A recipe.

  Attributes:
    settings: Overrides of the config, `config.` left out.
    patches: Names of files in `patches/` that change the package, one after
      the other.
    hat_rate: Learning rate of the hat, as a multiple of that of the course.
    generator_rate: The same of the generator.
    replay_from: Share of the training steps after which chains go on from the
      bank, where `langevin.replay_share` lets them.
  """

  settings: Mapping[str, object] = types.MappingProxyType({})
  patches: tuple[str, ...] = ()
  hat_rate: float = 1.0
  generator_rate: float = 1.0
  replay_from: float = 0.0

  def overrides(self, num_steps: int, rate: float) -> dict[str, object]:
    """Returns the overrides of a run.

    Args:
      num_steps: Number of training steps.
      rate: Learning rate of the course.
    """
    return {
      **_rates("hat", self.hat_rate * rate, num_steps),
      **_rates("generator", self.generator_rate * rate, num_steps),
      **self.settings,
      "langevin.replay_from": int(self.replay_from * num_steps),
      "train.num_steps": num_steps,
    }


def _rates(group: str, rate: float, num_steps: int) -> dict[str, object]:
  """Returns the learning rates of a network.

  They are a third after half of the steps, and a tenth in the last quarter.
  """
  drops = (num_steps // 2, rate / 3), (3 * num_steps // 4, rate / 10)
  return {f"{group}.learning_rate": rate, f"{group}.learning_rate_drops": drops}


# A training step with a quarter of the images, so there are about four times as
# many.
_SMALL_BATCHES = {"train.batch_size": 8}
# With half of the images, there are about twice as many.
_HALF_BATCH = {"train.batch_size": 16}
# With a quarter of the images and half of the Langevin steps, there are five to
# six times as many.
_MANY_UPDATES = {**_SMALL_BATCHES, "langevin.num_steps": 10}
# Half the width of the colour courses, so a step costs about a quarter.
_NARROW = {"model.width": 32, "train.batch_size": 16}
# Annealed chains bear less noise on the data.
_ANNEALED = {"langevin.annealing": 10.0, "hat.data_epsilon": 0.01}


def _fast(
  settings: dict[str, object], replay_share: float = 0.0, **others: object
) -> Recipe:
  """Returns settings at twice the rates, where chains may be replayed."""
  settings = {**settings, "langevin.replay_share": replay_share}
  return Recipe(settings, hat_rate=2.0, generator_rate=2.0, **others)


RECIPES = {
  "published": Recipe(),
  "short_chains": Recipe({"langevin.num_steps": 10}),
  "long_chains": Recipe({"langevin.num_steps": 40}),
  "large_steps": Recipe({"langevin.step_size_y": 1e-3}),
  "energy_penalty": Recipe({"hat.energy_penalty": 10.0}),
  "clip_1": Recipe({"hat.max_grad_norm": 1.0}),
  "slow_hat": Recipe(hat_rate=0.5),
  "fast_generator": Recipe(generator_rate=2.0),
  "annealed": Recipe(_ANNEALED),
  "annealed_replay_at_end": Recipe(
    {**_ANNEALED, "langevin.replay_share": 0.75}, replay_from=0.75
  ),
  "half_batch": Recipe(_HALF_BATCH),
  "fast_half_batch_replay_at_end": _fast(_HALF_BATCH, 0.75, replay_from=0.75),
  "fast_half_batch_short_chains_replay_at_end": _fast(
    {**_HALF_BATCH, "langevin.num_steps": 10}, 0.75, replay_from=0.75
  ),
  "quarter_batch": Recipe(_SMALL_BATCHES),
  "many_updates": Recipe(_MANY_UPDATES),
  "fast_small_batches": _fast(_SMALL_BATCHES),
  "fast_small_batches_replay_at_end": _fast(
    _SMALL_BATCHES, 0.75, replay_from=0.75
  ),
  "fast_small_batches_annealed": _fast(_SMALL_BATCHES | _ANNEALED),
  "fast_small_batches_annealed_replay_at_end": _fast(
    _SMALL_BATCHES | _ANNEALED, 0.75, replay_from=0.75
  ),
  "fast_small_batches_annealed_penalty_replay_at_end": _fast(
    _SMALL_BATCHES | _ANNEALED | {"hat.energy_penalty": 0.05},
    0.75,
    replay_from=0.75,
  ),
  "narrow_small_batches_annealed_slow_hat": Recipe(
    {**_NARROW, **_SMALL_BATCHES, **_ANNEALED}, hat_rate=0.5
  ),
  "narrow_small_batches_annealed_noise": Recipe(
    {**_NARROW, **_SMALL_BATCHES, **_ANNEALED, "hat.data_epsilon": 0.02},
    generator_rate=2.0,
  ),
  "narrow_annealed_replay_at_end": _fast(
    _NARROW | _ANNEALED, 0.75, replay_from=0.75
  ),
  "many_fast_updates": _fast(_MANY_UPDATES),
  "many_fast_updates_replay_25": _fast(_MANY_UPDATES, 0.25),
  "many_fast_updates_replay_50": _fast(_MANY_UPDATES, 0.5),
  "many_fast_updates_replay_75": _fast(_MANY_UPDATES, 0.75),
  "many_fast_updates_replay_at_end": _fast(
    _MANY_UPDATES, 0.75, replay_from=0.75
  ),
  # Wider latents at the start of the chains of evaluation, not of training.
  "many_fast_updates_replay_at_end_wide_latents": _fast(
    {**_MANY_UPDATES, "evaluate.init_scale_z": 1.2}, 0.75, replay_from=0.75
  ),
  "many_fast_updates_persistent_25": _fast(
    _MANY_UPDATES, 0.25, patches=("persistent",)
  ),
  # With the patch a step runs chains for a third of its images.
  "three_hat_updates": Recipe(
    {"train.batch_size": 96}, patches=("three_hat_updates",)
  ),
  "replay_25": Recipe({"langevin.replay_share": 0.25}),
  "replay_50": Recipe({"langevin.replay_share": 0.5}),
  "small_bank": Recipe({"generator.bank_size": 100}),
  "noised_start": Recipe({"langevin.init_scale_y": 0.1}),
  **{
    name: Recipe(patches=(name,))
    for name in (
      *("silu", "leaky_relu", "trimmed_negatives"),
      *("three_generator_updates", "nearest_pairs", "noise_on_samples"),
      *("spectral_norm", "momentum", "warm_up", "shifts", "more_pairs"),
    )
  },
}
