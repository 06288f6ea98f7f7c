"""Checks counts of FLOPs, bytes and collectives against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hatebm_jax import sharding
from hatebm_jax.aot import costs, hlo

# libtpu writes such text: only the condition has the trip count, the chip's own
# memory has the mark S(1), and a slice arrives asynchronously.
_TPU_TEXT = """
HloModule jit_step, is_scheduled=true

%fused (p0: f32[4,8], p1: bf16[8,2]) -> f32[4,2] {
  %p0 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %p1 = bf16[8,2]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %conv = f32[4,2]{1,0:T(8,128)S(1)} convolution(%p0, %p1), \
dim_labels=bf_io->bf
}

%body (p: (s32[], f32[4,8], bf16[8,2])) -> (s32[], f32[4,8], bf16[8,2]) {
  %p = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, bf16[8,2]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %k = bf16[8,2]{1,0} get-tuple-element(%p), index=2
  %start = ((f32[4,8]{1,0}), f32[1,8]{1,0:S(1)}, s32[]{:S(2)}) \
slice-start(%x), slice={[0:1], [0:8]}
  %done = f32[1,8]{1,0:S(1)} slice-done(%start)
  %y = f32[4,2]{1,0:T(8,128)S(1)} fusion(%x, %k), kind=kOutput, calls=%fused
  ROOT %t = (s32[], f32[4,8], bf16[8,2]) tuple(%i, %x, %k)
}

%condition (q: (s32[], f32[4,8], bf16[8,2])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[4,8]{1,0}, bf16[8,2]{1,0}) parameter(0)
  %n = s32[]{:T(128)} constant(7)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %n), direction=LT
}

ENTRY %main (x: f32[4,8], k: bf16[8,2]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %k.1 = bf16[8,2]{1,0:T(8,128)(2,1)} parameter(1)
  %two = s32[]{:T(128)} constant(2)
  %copied = s32[]{:T(128)S(1)} copy(%two)
  %t.1 = (s32[], f32[4,8], bf16[8,2]) tuple(%copied, %x.1, %k.1)
  %loop = (s32[], f32[4,8], bf16[8,2]) while(%t.1), condition=%condition, \
body=%body, metadata={op_name="jit(step)/while" stack_frame_id=8}
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def compile_run(fn, *shapes):
  arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  compiled = jax.jit(fn).lower(*arguments).compile()
  return list(hlo.walk(hlo.parse(compiled.as_text()))), compiled


def scan(fn, x, length):
  return jax.lax.scan(lambda x, _: (fn(x), None), x, None, length=length)[0]


def test_a_loop_counts_its_trips():
  run, compiled = compile_run(
    lambda x, k: scan(lambda x: jnp.tanh(x @ k), x, 7), (16, 32), (32, 32)
  )
  product = 2 * 16 * 32 * 32
  assert costs.flops(run) == 7 * product
  assert costs.flops(run, loops_once=True) == product
  assert hlo.trip_counts(run) == [(7,)]
  np.testing.assert_allclose(
    compiled.cost_analysis()["flops"], product, rtol=0.02
  )


def test_nested_loops_multiply():
  def fn(x, k):
    inner = lambda x: scan(lambda x: jnp.tanh(x @ k), x, 5)
    return scan(inner, x @ k, 3)

  run, _ = compile_run(fn, (4, 8), (8, 8))
  assert costs.flops(run) == (1 + 3 * 5) * 2 * 4 * 8 * 8
  assert (3, 5) in hlo.trip_counts(run)


def test_batched_product():
  run, _ = compile_run(
    lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (3, 8, 4), (3, 4, 6)
  )
  assert costs.flops(run) == 2 * 3 * 8 * 4 * 6


@pytest.mark.parametrize(
  ("settings", "taps"),
  [
    # The pairs of a pixel and a tap that meets the image, along an axis of 8.
    (dict(window_strides=(1, 1), padding="VALID"), 6 * 3),
    (dict(window_strides=(1, 1), padding="SAME"), 8 * 3 - 2),
    (dict(window_strides=(2, 2), padding=((1, 1), (1, 1))), 4 * 3 - 1),
    (
      dict(
        window_strides=(1, 1), padding=((1, 1), (1, 1)), lhs_dilation=(2, 2)
      ),
      8 + 7 * 2,  # 8 pixels meet one element, the 7 between them two.
    ),
    (
      dict(window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)),
      4 * 3,
    ),
  ],
)
def test_convolution_counts_real_elements(settings, taps):
  run, compiled = compile_run(
    lambda x, k: jax.lax.conv_general_dilated(
      x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings
    ),
    (2, 8, 8, 4),
    (3, 3, 4, 6),
  )
  expected = 2 * 2 * 4 * 6 * taps**2
  assert costs.flops(run) == expected
  assert compiled.cost_analysis()["flops"] == expected


def test_grouped_convolution():
  run, _ = compile_run(
    lambda x, k: jax.lax.conv_general_dilated(
      x,
      k,
      (1, 1),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=2,
    ),
    (2, 8, 8, 4),
    (3, 3, 2, 6),
  )
  assert costs.flops(run) == 2 * 2 * 36 * 9 * 2 * 6


def test_bytes_of_operands_and_results():
  run, _ = compile_run(lambda x, k: x @ k, (16, 32), (32, 8))
  moved = costs.traffic(run)
  assert moved.all == moved.main_memory == 4 * (16 * 32 + 32 * 8 + 16 * 8)


def test_a_fusion_reads_the_slices_that_it_takes():
  run, _ = compile_run(lambda x: x[:2] * x[50:52], (100, 8))
  (fusion,) = [e for e in run if e.instruction.opcode == "fusion"]
  assert fusion.operands[0].dims == (100, 8)
  assert costs.traffic(run).all == 3 * 2 * 8 * 4


def test_collectives_in_and_outside_a_loop():
  mesh = sharding.make_mesh()

  def local(x):
    psum = lambda x: jax.lax.psum(jnp.tanh(x), sharding.AXIS)
    return psum(scan(psum, x, 5))

  run, _ = compile_run(
    jax.shard_map(
      local,
      mesh=mesh,
      in_specs=P(sharding.AXIS),
      out_specs=P(),
      check_vma=False,
    ),
    (8, 16),
  )
  assert costs.collectives(run) == (6, 6 * 16 * 4)
  assert costs.collectives(run, in_loops=True) == (5, 5 * 16 * 4)


def test_text_of_the_tpu_compiler():
  run = list(hlo.walk(hlo.parse(_TPU_TEXT)))
  assert hlo.trip_counts(run) == [(5,)]  # from 2 to 7
  assert costs.flops(run) == 5 * 2 * 4 * 8 * 2
  # The fusion reads x and k, and the slice reads a row of x. The comparison
  # reads two numbers and writes a pred. The copy reads one number.
  main = 5 * (4 * 8 * 4 + 8 * 2 * 2 + 8 * 4 + 4 + 4 + 1) + 4
  assert costs.traffic(run).main_memory == main
  # The fusion's result, the row and the copied number are on the chip.
  assert costs.traffic(run).all == main + 5 * (4 * 2 * 4 + 8 * 4) + 4


def test_unknown_trip_count_is_an_error():
  def fn(x):
    return jax.lax.while_loop(lambda x: x.sum() < 5, lambda x: x + 1, x)

  compiled = jax.jit(fn).lower(jnp.zeros(3)).compile()
  with pytest.raises(ValueError, match="trip count"):
    list(hlo.walk(hlo.parse(compiled.as_text())))


def test_text_that_is_no_module_is_an_error():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("nothing")
