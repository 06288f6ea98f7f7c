"""Recipes of the race: what each changes in the published recipe."""

import types
from collections.abc import Mapping
from typing import NamedTuple

# Both rates are for the first half of a run. They fall to a third of it there,
# and to a tenth in the last quarter.
_RATE = 6e-4


class Recipe(NamedTuple):
  """A recipe.

  Attributes:
    settings: Overrides of the config, `config.` left out.
    patches: Names of files in `patches/` that change the package.
    hat_rate: Learning rate of the hat at the start.
    generator_rate: Learning rate of the generator at the start.
  """

  settings: Mapping[str, object] = types.MappingProxyType({})
  patches: tuple[str, ...] = ()
  hat_rate: float = _RATE
  generator_rate: float = _RATE

  def overrides(self, num_steps: int) -> dict[str, object]:
    """Returns the overrides of a run.

    Args:
      num_steps: Number of training steps.
    """
    drops = lambda rate: (
      (max(num_steps // 2, 1), rate / 3),
      (max(3 * num_steps // 4, 2), rate / 10),
    )
    return {
      "hat.data_epsilon": 0.03,
      "hat.learning_rate": self.hat_rate,
      "hat.learning_rate_drops": drops(self.hat_rate),
      "generator.learning_rate": self.generator_rate,
      "generator.learning_rate_drops": drops(self.generator_rate),
      **self.settings,
      "train.num_steps": num_steps,
    }


RECIPES = {
  "published": Recipe(),
  "short_chains": Recipe({"langevin.num_steps": 10}),
  "long_chains": Recipe({"langevin.num_steps": 40}),
  "large_steps": Recipe({"langevin.step_size_y": 1e-3}),
  "clip_1": Recipe({"hat.max_grad_norm": 1.0}),
  "slow_hat": Recipe(hat_rate=3e-4),
  "fast_generator": Recipe(generator_rate=1.2e-3),
  "half_batch": Recipe({"train.batch_size": 16}),
  "small_bank": Recipe({"generator.bank_size": 100}),
  **{
    name: Recipe(patches=(name,))
    for name in (
      *("silu", "leaky_relu", "energy_penalty", "trimmed_negatives"),
      *("three_generator_updates", "replay_25", "replay_50", "nearest_pairs"),
    )
  },
}
