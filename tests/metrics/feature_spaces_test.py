import needs
import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import errors
from hatebm_jax.evaluation import image_quality
from hatebm_jax.metrics import feature_spaces

NETWORK = feature_spaces.EFFICIENTNET


def test_the_default_is_the_network_of_the_package():
  config = tiny.config()
  assert config.metrics.network == "automatic"
  assert image_quality.choose_space(config).name == "FD-digits"


def test_two_networks_are_refused():
  config = tiny.config(metrics__network=NETWORK, metrics__inception="x.pth")
  with pytest.raises(errors.ConfigError, match="found two"):
    image_quality.choose_space(config)


@pytest.mark.slow
@needs.efficientnet
def test_any_images_are_measured_in_efficientnet(tmp_path):
  rng = np.random.default_rng(0)
  (tmp_path / "train").mkdir()
  images = rng.integers(0, 256, (8, 20, 20, 1), np.uint8)
  for i, image in enumerate(images):
    Image.fromarray(image[..., 0]).save(tmp_path / "train" / f"{i}.png")
  config = tiny.config(
    data__source=f"folder:{tmp_path}",
    data__image_size=20,
    data__channels=1,
    metrics__network=NETWORK,
  )
  assert image_quality.has_network(config)
  result = image_quality.measure_sets(
    config, {"same": [images], "darker": [images // 2]}
  )
  assert result["protocol"]["network"] == "FD-EfficientNet-Lite0"
  same, darker = (
    {k: v["mean"] for k, v in result["sets"][name].items() if k != "num_images"}
    for name in ("same", "darker")
  )
  assert set(same) == {
    *("frechet_distance", "kernel_distance"),
    *("precision", "recall", "density", "coverage"),
  }
  assert same["frechet_distance"] < 1e-6
  assert darker["frechet_distance"] > 1 and darker["coverage"] < 1
