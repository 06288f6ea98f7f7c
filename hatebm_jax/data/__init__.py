"""Image sources, and the batches of a training run.

Images are uint8 on the host. `hatebm_jax.pixels.to_float` brings a batch to
[-1, 1] on the device, so that a transfer takes a quarter of the bytes.

Images of the configured size are used as they are. Other images are resized
bilinearly with antialias: crop='center' resizes the centre square;
crop='random' resizes the short side and cuts a square at a random place of the
long side, at another place in every visit. There are no flips.
"""

from hatebm_jax.data.base import DataError, Source
from hatebm_jax.data.batching import batch_indices, batches, check_batch
from hatebm_jax.data.decode import resize
from hatebm_jax.data.digits import digits_labels
from hatebm_jax.data.folder import check_workdir
from hatebm_jax.data.sources import (
  classes,
  decoder,
  labels,
  native_size,
  open_native,
  open_source,
)
from hatebm_jax.data.splits import (
  choose_images,
  in_order,
  load_all,
  load_images,
  open_split,
)

__all__ = [
  "DataError",
  "Source",
  "batch_indices",
  "batches",
  "check_batch",
  "check_workdir",
  "choose_images",
  "classes",
  "decoder",
  "digits_labels",
  "in_order",
  "labels",
  "load_all",
  "load_images",
  "native_size",
  "open_native",
  "open_source",
  "open_split",
  "resize",
]
