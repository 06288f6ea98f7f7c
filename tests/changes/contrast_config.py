"""The config of the objective `contrast`, small enough for a test."""

from hatebm_jax.configs import digits


def get_config():
  """Returns the locked configuration."""
  config = digits.get_config()
  with config.unlocked():
    config.objective = "contrast"
    config.hat.kind = "small_hat"
    config.data.source = "stripes:40"
    config.data.image_size, config.data.channels = 32, 3
    config.train.num_steps = 4
    config.train.batch_size = 8
    config.train.log_every = 2
    config.train.image_every = 4
    config.model.width = 8
    config.langevin.temperature = 1.0
    config.evaluate.num_steps = 4
    config.evaluate.step_size_y = 0.5
    config.sample.num_images = 16
    config.sample.batch_size = 16
    config.chains.num_chains = 8
  return config
