"""Defaults that every experiment starts from: the paper's synthesis recipe.

An experiment's file changes what differs. Every field can be overridden on the
command line: `--config.group.field=value`. What each field means stands here.
"""

from ml_collections import config_dict


def get_config() -> config_dict.ConfigDict:
  """Returns the default configuration, unlocked."""
  config = config_dict.ConfigDict()
  # What is learned: a file of hatebm_jax/objectives/.
  config.objective = "synthesis"
  config.seed = 0

  config.train = config_dict.create(
    num_steps=50_000,  # training steps
    batch_size=128,  # images, and chains, over all devices
    average_decay=0.9999,  # of the averaged weights, a step
    log_every=50,  # training steps between lines of metrics
    image_every=500,  # training steps between image grids
    checkpoint_every=1_000,  # training steps between checkpoints
    checkpoint_minutes=30.0,  # and minutes; whichever comes first
    keep_checkpoints=3,  # newest ones; older ones are deleted
    # Training steps between losses on the test split, of an autoencoder; 0:
    # never.
    test_every=0,
    # When training diverges (config.divergence): warn; or rollback, to the last
    # good checkpoint with other random numbers, max_rollbacks times, and then
    # stop. A metric that is not finite stops a run that only warns.
    on_divergence="warn",
    max_rollbacks=3,
    profile_at=0,  # training step to profile for TensorBoard; 0: never
    # Training steps that run on the device before Python is back: worth it
    # where one takes milliseconds. Divides log_every, image_every
    # and checkpoint_every.
    steps_per_dispatch=1,
  )
  # The rules by which training has diverged; a rule is broken when the means of
  # `patience` logs in a row are beyond its bound. hatebm_jax/divergence.py.
  config.divergence = config_dict.create(
    max_energy_gap=100.0,  # of the hat's energies, in absolute value
    max_clip_rate=0.95,  # share of Langevin steps whose drift of y is clipped
    max_drift_z=5.0,  # L2 norm a Langevin step; of a joint run, never clipped
    max_saturation=0.5,  # share of sample pixels outside [-1, 1]
    patience=3,  # logs
  )
  config.data = config_dict.create(
    source="tfds:cifar10",  # tfds:NAME, folder:PATH or digits
    image_size=32,  # height and width in pixels: 16, 32, 64 or 128
    channels=3,  # 1 or 3
    crop="center",  # center, or random (training split, along the long side)
    data_dir="",  # where tfds keeps prepared data; empty: tfds's default
    cache_gib=8.0,  # decoded images up to this size are kept in memory
  )
  config.model = config_dict.create(
    width=256,  # base width of both networks
    latent_size=128,  # dimension of z
    dtype="float32",  # of the computation, or bfloat16; parameters: float32
  )
  # The chains that train the hat: hatebm_jax/langevin.py.
  config.langevin = config_dict.create(
    num_steps=50,
    step_size_y=5e-4,
    step_size_z=0.0,  # of a joint run; elsewhere z stays
    temperature=1e-8,
    tau=0.0,
    max_drift_y=config_dict.placeholder(float),  # None: no clip
    init_scale_z=1.0,
    init_scale_y=0.0,
  )
  config.langevin.max_drift_y = 2.5
  config.hat = config_dict.create(
    learning_rate=1e-4,
    learning_rate_drops=(),  # ((first step, rate from there on), ...)
    max_grad_norm=config_dict.placeholder(float),  # a tensor; None: no clip
    data_epsilon=1e-3,  # noise added to real images
  )
  config.generator = config_dict.create(
    learning_rate=1e-4,
    learning_rate_drops=(),
    max_grad_norm=config_dict.placeholder(float),
    out_factor=2.0,  # images are out_factor * tanh(...)
    bank_size=10_000,  # pairs (z, x), of synthesis
    kind="generator",  # from latent vectors, or decoder: from latent images
    width=config_dict.placeholder(int),  # None: config.model.width
    norm_epsilon=1e-3,  # of batch norm; torch-mimicry's generators: 1e-5
    # What a joint run puts its hat on: the workdir of a run, or an .npz of
    # python -m hatebm_jax.convert.
    source="",
  )
  config.autoencoder = config_dict.create(
    latent_epsilon=0.02,  # noise added to latents
  )
  config.sngan = config_dict.create(
    discriminator_width=128,  # base width
    discriminator_steps=5,  # a training step, each on a batch of its own
    discriminator_learning_rate=2e-4,
    decay_steps=100_000,  # training steps in which the rates fall to 0
  )
  config.sharding = config_dict.create(
    chains="shard_map",  # how chains are split over devices; or pmap
    split_optimizer=False,  # split optimizers and averages over devices too
  )
  config.sample = config_dict.create(
    num_images=1_000,
    batch_size=128,  # chains at a time, over all devices
    weights="raw",  # raw, or averaged
    # Training step of the checkpoint; None: the newest.
    checkpoint=config_dict.placeholder(int),
  )
  # The chains of sampling and evaluation; None: as in training.
  config.evaluate = config_dict.create(
    num_steps=125,
    step_size_y=config_dict.placeholder(float),
    step_size_z=config_dict.placeholder(float),
    temperature=config_dict.placeholder(float),
    tau=config_dict.placeholder(float),
    max_drift_y=config_dict.placeholder(float),  # None: no clip
    init_scale_z=config_dict.placeholder(float),
    init_scale_y=0.01,
  )
  # What --mode=evaluate measures and against what: hatebm_jax/evaluate.py.
  config.metrics = config_dict.create(
    # Weights of the Inception network of 2015, for FID; empty: the small
    # networks that ship with the package.
    inception="",
    split="train",  # of the data: the reference images
    num_references=config_dict.placeholder(int),  # None: the whole split
    # An .npz with mu and sigma of reference images, as the usual tools write,
    # in place of the split; empty: none.
    statistics="",
    # An .npz with images to measure in place of drawn ones; empty: none.
    samples="",
    repeats=1,  # sets of config.sample.num_images, to see the spread over them
  )
  # Out-of-distribution detection by the energy: hatebm_jax/detect.py.
  config.ood = config_dict.create(
    sets=(),  # sources as in config.data.source, e.g. ("tfds:svhn_cropped",)
    num_images=1_000,  # of each set at most
    bootstraps=1_000,  # resamples, for 95 % intervals
  )
  # Parallel chains to look at: hatebm_jax/diagnose.py.
  config.chains = config_dict.create(
    num_chains=32,  # 0: none
    multiple=1,  # of the chains that train; 10 or 100: long runs
  )
  return config
