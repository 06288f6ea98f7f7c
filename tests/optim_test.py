import jax.numpy as jnp
import numpy as np

from hatebm_jax import optim


def test_piecewise_constant_changes_at_its_steps():
  schedule = optim.piecewise_constant(5e-5, ((230, 1e-5), (260, 1e-6)))
  rates = [float(schedule(step)) for step in (0, 229, 230, 259, 260, 999)]
  np.testing.assert_allclose(rates, [5e-5, 5e-5, 1e-5, 1e-5, 1e-6, 1e-6])


def test_clip_looks_at_each_tensor_by_itself():
  clip = optim.clip_by_tensor_norm(5.0)
  gradients = {"a": jnp.array([30.0, 40.0]), "b": jnp.array([3.0, 4.0])}
  clipped, _ = clip.update(gradients, clip.init(gradients))
  np.testing.assert_allclose(clipped["a"], [3.0, 4.0], rtol=1e-6)
  np.testing.assert_array_equal(clipped["b"], [3.0, 4.0])


def test_adam_by_hand():
  optimizer = optim.adam(0.1)
  params = jnp.array([1.0])
  state = optimizer.init(params)
  m = v = 0.0
  for step, gradient in enumerate([2.0, -1.0, 1e-6], 1):
    updates, state = optimizer.update(jnp.array([gradient]), state, params)
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    expected = (
      -0.1 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-7)
    )
    np.testing.assert_allclose(updates, [expected], rtol=1e-4)


def test_adam_clips_first():
  plain, clipped = optim.adam(0.1), optim.adam(0.1, max_grad_norm=1.0)
  params = jnp.zeros(2)
  gradient = jnp.array([30.0, 40.0])
  states = plain.init(params), clipped.init(params)
  # Adam's first step does not depend on the gradient's scale. The second does.
  for first in (gradient, jnp.array([0.6, 0.8])):
    step_plain, state_plain = plain.update(first, states[0], params)
    step_clipped, state_clipped = clipped.update(first, states[1], params)
    states = state_plain, state_clipped
  np.testing.assert_allclose(step_clipped, [-0.1, -0.1], rtol=1e-4)
  assert np.all(np.abs(step_plain) < 0.08)


def test_average_by_hand():
  average = optim.update_average(
    {"w": jnp.array(1.0)}, {"w": jnp.array(3.0)}, 0.9
  )
  np.testing.assert_allclose(average["w"], 0.9 * 1 + 0.1 * 3)
