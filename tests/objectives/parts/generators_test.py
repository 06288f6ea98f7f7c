import inspect

import pytest
import tiny

from hatebm_jax import errors, models
from hatebm_jax.objectives.parts import generators


@pytest.mark.parametrize(
  ("name", "kind", "latent_shape"),
  [
    ("digits", models.generator.Generator, None),
    ("digits_retrofit", models.decoder.Decoder, (8, 8, 1)),
  ],
)
def test_kind_is_a_module_of_models(name, kind, latent_shape):
  config = tiny.config(name)
  module, shape = generators.make(config)
  assert type(module) is kind
  assert shape == (latent_shape or (config.model.latent_size,))


def test_generators_have_one_face():
  for name in ("make", "latent_shape"):
    faces = [
      [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(
          getattr(module, name)
        ).parameters.values()
      ]
      for module in (models.generator, models.decoder)
    ]
    assert faces[0] == faces[1]


# The last ones are what a config.json of a stranger could say.
@pytest.mark.parametrize(
  "kind", ["hat", "sizes", "none", "__init__", "..main", "os", "x" * 999]
)
def test_other_kinds_are_refused(kind):
  config = tiny.config(generator__kind=kind)
  with pytest.raises(errors.ConfigError, match="has make and latent_shape"):
    generators.make(config)
