"""Fields that make a run what it is: the objective, the data, the learning.

The defaults are the paper's synthesis recipe.
"""

from hatebm_jax.config import images, rules
from hatebm_jax.config.rules import Field

_START = rules.OnResume.START
_RECORDED = rules.OnResume.RECORDED
_FREE = rules.OnResume.FREE
_DROPS_HELP = (
  "Drops of the learning rate are pairs (first training step, rate from there "
  "on)."
)
_CLIP_HELP = (
  "The gradient of each parameter tensor is clipped to this L2 norm. None "
  "means that it is not clipped."
)

# The fields of the group "" stand alone.
HELP = {
  "": "These fields stand alone.",
  "train": (
    "These fields set the length, the batches and the outputs of the training "
    "loop."
  ),
  "data": "These fields say which images are learned.",
  "model": "These fields set what the networks have in common.",
  "langevin": "These fields set the Langevin chains that train the hat.",
  "hat": "These fields set how the hat learns.",
  "generator": "These fields describe the generator and how it learns.",
  "autoencoder": "These fields are those of the objective `autoencoder`.",
  "sngan": "These fields are those of the objective `sngan`.",
}

GROUPS = {
  "": {
    "objective": Field(
      "synthesis",
      rules.OBJECTIVE,
      "The objective is a module of hatebm_jax/objectives/. It says what is "
      "learned.",
    ),
    "seed": Field(
      0,
      rules.SEED,
      "The seed determines all random numbers of the run.",
      in_use=True,
    ),
  },
  "train": {
    "num_steps": Field(
      50_000,
      rules.STEPS,
      "Training ends after this many training steps.",
      _FREE,
    ),
    "batch_size": Field(
      128,
      rules.BATCH,
      "A batch has this many images, and as many chains, over all devices.",
    ),
    "average_decay": Field(
      0.9999,
      rules.below(0, 1),
      "The averaged weights decay by this factor in each training step.",
      _RECORDED,
    ),
    "start_from": Field(
      "",
      rules.TEXT,
      "A new run starts from the weights in this folder, a release or the "
      "workdir of a run, with new optimizer states. Empty means that it starts "
      "from random weights.",
      _START,
    ),
    "log_every": Field(
      50, rules.STEPS, "Metrics are logged every so many training steps.", _FREE
    ),
    "image_every": Field(
      500,
      rules.STEPS,
      "Image grids are written every so many training steps.",
      _FREE,
    ),
    "checkpoint_every": Field(
      1_000,
      rules.STEPS,
      "A checkpoint is saved every so many training steps.",
      _FREE,
    ),
    "checkpoint_minutes": Field(
      30.0,
      rules.SCALE,
      "A checkpoint is also saved after this many minutes without one.",
      _FREE,
    ),
    "keep_checkpoints": Field(
      3,
      rules.MILLION,
      "This many of the newest checkpoints are kept. Older ones are deleted.",
      _FREE,
    ),
    "keep_every": Field(
      0,
      rules.STEPS_OR_NEVER,
      "The checkpoints of all multiples of this number of training steps are "
      "kept besides the newest ones. It is a multiple of checkpoint_every. 0 "
      "means none.",
      _FREE,
    ),
    "test_every": Field(
      0,
      rules.STEPS_OR_NEVER,
      "An autoencoder's loss on the test split is computed every so many "
      "training steps. 0 means never.",
      _FREE,
    ),
    "on_divergence": Field(
      "warn",
      rules.choice("warn", "rollback"),
      "When training diverges, `warn` prints a warning and goes on, and "
      "`rollback` goes back to the last good checkpoint with other random "
      "numbers. With `warn`, a metric that is not finite stops the run.",
      _FREE,
    ),
    "max_rollbacks": Field(
      3,
      rules.MILLION,
      "A run that diverges again after this many rollbacks stops.",
      _FREE,
    ),
    "profile_at": Field(
      0,
      rules.STEPS_OR_NEVER,
      "Three training steps from this one on are profiled for TensorBoard. 0 "
      "means none. A resumed run that is past them profiles its next steps if "
      "there is no profile yet.",
      _FREE,
    ),
    "steps_per_dispatch": Field(
      1,
      rules.MILLION,
      "This many training steps run on the device in one call. More than one "
      "helps where a step takes milliseconds. The number must divide "
      "log_every, image_every and checkpoint_every.",
      _FREE,
    ),
  },
  "data": images.FIELDS,
  "model": {
    "width": Field(
      256, rules.WIDTH, "The base width of both networks, in channels."
    ),
    "latent_size": Field(
      128, rules.integer(1, 2**16), "The dimension of the latent z."
    ),
    "dtype": Field(
      "float32",
      rules.choice("float32", "bfloat16"),
      "Networks compute in this type. Parameters are always float32.",
      _RECORDED,
      in_use=True,
    ),
    "conv_form": Field(
      "auto",
      rules.choice("auto", "literal", "packed", "strided", "dense"),
      "Convolutions are computed in this form. All forms have the same "
      "parameters and, but for rounding, the same values. "
      "hatebm_jax/models/conv_ops.py describes them. `auto` takes the form "
      "that suits the device.",
      _FREE,
      in_use=True,
    ),
  },
  "langevin": {
    "num_steps": Field(
      50,
      rules.MILLION,
      "A chain takes this many Langevin steps.",
      _RECORDED,
      in_use=True,
    ),
    "step_size_y": Field(
      5e-4,
      rules.BOUND,
      "The step size epsilon of the residual image y.",
      _RECORDED,
      in_use=True,
    ),
    "step_size_z": Field(
      0.0,
      rules.BOUND,
      "The step size of the latent z in a joint run. In other runs z does not "
      "move.",
      _RECORDED,
      in_use=True,
    ),
    "annealing": Field(
      1.0,
      rules.real(1, 1_000),
      "In the course of a chain the squared step sizes fall geometrically. The "
      "first is this many times the last, and their mean is the square of the "
      "given step size. Longer chains of evaluation repeat this, so "
      "config.evaluate.num_steps must be a multiple of "
      "config.langevin.num_steps. 1 is the paper's: all steps are alike.",
      _RECORDED,
      in_use=True,
    ),
    "temperature": Field(
      1e-8,
      rules.TEMPERATURE,
      "The temperature T divides the hat's energy.",
      _RECORDED,
      in_use=True,
    ),
    "tau": Field(
      0.0,
      rules.SCALE,
      "The prior on the residual adds tau * ||y||^2 to the energy of y.",
      _RECORDED,
      in_use=True,
    ),
    "max_drift_y": Field(
      2.5,
      rules.MAX_NORM,
      "The drift of y in one step is clipped to this L2 norm for each image. "
      "None means that it is not clipped.",
      _RECORDED,
    ),
    "init_scale_z": Field(
      1.0,
      rules.SCALE,
      "The standard deviation of z at the start of a chain.",
      _RECORDED,
      in_use=True,
    ),
    "init_scale_y": Field(
      0.0,
      rules.SCALE,
      "The standard deviation of y at the start of a chain.",
      _RECORDED,
    ),
    "replay_share": Field(
      0.0,
      rules.below(0, 1),
      "In a synthesis run a chain of training goes on from a pair of the bank "
      "with this probability. Otherwise it starts anew. 0 is the paper's.",
      _RECORDED,
    ),
    "replay_from": Field(
      0,
      rules.FIRST_STEP,
      "Chains go on from the bank from this training step on. Before, all of "
      "them start anew.",
      _RECORDED,
    ),
  },
  "hat": {
    "learning_rate": Field(
      1e-4, rules.RATE, "The learning rate of Adam.", _RECORDED
    ),
    "learning_rate_drops": Field((), rules.DROPS, _DROPS_HELP, _RECORDED),
    "max_grad_norm": Field(None, rules.MAX_NORM, _CLIP_HELP, _RECORDED),
    "kind": Field(
      "hat",
      rules.NETWORK,
      "The hat is this module of hatebm_jax.models. The paper's is `hat`.",
    ),
    "data_epsilon": Field(
      1e-3,
      rules.SCALE,
      "Real images get Gaussian noise of this standard deviation.",
      _RECORDED,
    ),
    "energy_penalty": Field(
      0.0,
      rules.SCALE,
      "The mean squared energies of data and samples, times this number, are "
      "added to the mean energies in the hat's loss.",
      _RECORDED,
    ),
  },
  "generator": {
    "learning_rate": Field(
      1e-4, rules.RATE, "The learning rate of Adam.", _RECORDED
    ),
    "learning_rate_drops": Field((), rules.DROPS, _DROPS_HELP, _RECORDED),
    "max_grad_norm": Field(None, rules.MAX_NORM, _CLIP_HELP, _RECORDED),
    "out_factor": Field(
      2.0, rules.above(0, 1_000), "Images are out_factor * tanh(...)."
    ),
    "bank_size": Field(
      10_000,
      rules.COUNT,
      "The bank of a synthesis run holds this many pairs (z, x).",
    ),
    "kind": Field(
      "generator",
      rules.NETWORK,
      "The network is this module of hatebm_jax.models. A `generator` starts "
      "from latent vectors. A `decoder` starts from latent images.",
    ),
    "width": Field(
      None,
      rules.optional(rules.WIDTH),
      "The base width of the generator. None means config.model.width.",
    ),
    "norm_epsilon": Field(
      1e-3,
      rules.above(0, 1),
      "The epsilon of batch normalization. torch-mimicry's generators have "
      "1e-5.",
    ),
    "source": Field(
      "",
      rules.TEXT,
      "A joint run puts its hat on this generator. It is the workdir of a run, "
      "or an .npz file of python -m hatebm_jax.convert.",
      _START,
    ),
  },
  "autoencoder": {
    "latent_epsilon": Field(
      0.02,
      rules.SCALE,
      "Latents get Gaussian noise of this standard deviation.",
      _RECORDED,
    ),
  },
  "sngan": {
    "discriminator_width": Field(
      128, rules.WIDTH, "The base width of the discriminator, in channels."
    ),
    "discriminator_steps": Field(
      5,
      rules.integer(1, 1_000),
      "The discriminator takes this many steps in each training step, each on "
      "its own batch.",
    ),
    "discriminator_learning_rate": Field(
      2e-4,
      rules.RATE,
      "The learning rate of Adam for the discriminator.",
      _RECORDED,
    ),
    "decay_steps": Field(
      100_000,
      rules.STEPS,
      "The learning rates fall to 0 over this many training steps.",
      _RECORDED,
    ),
  },
}
