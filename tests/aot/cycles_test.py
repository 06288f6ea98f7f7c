"""Checks sums of the TPU compiler's estimates against sums by hand."""

import pytest

from hatebm_jax.aot import cycles

# libtpu writes such text. The tables above the computations name the lines of
# the code. The number that is written as the parent of a frame is one too high.
_TEXT = """
HloModule jit_run, is_scheduled=true

FileNames
1 "/home/me/hatebm_jax/energy.py"
2 "/usr/lib/flax/linear.py"
3 "/home/me/hatebm_jax/bank.py"

FunctionNames
1 "energy"
2 "conv"
3 "draw"

FileLocations
1 {file_name_id=1 function_name_id=1 line=27 end_line=27 column=1 end_column=9}
2 {file_name_id=2 function_name_id=2 line=99 end_line=99 column=1 end_column=9}
3 {file_name_id=3 function_name_id=3 line=5 end_line=5 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=1}

%fused (p0: f32[4,8], p1: bf16[8,2]) -> f32[4,2] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = bf16[8,2]{1,0} parameter(1)
  %twice = f32[4,8]{1,0} add(%p0, %p0)
  ROOT %conv = f32[4,2]{1,0} convolution(%twice, %p1), dim_labels=bf_io->bf
}

%body (p: (s32[], f32[4,8], bf16[8,2])) -> (s32[], f32[4,8], bf16[8,2]) {
  %p = (s32[], f32[4,8]{1,0}, bf16[8,2]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %k = bf16[8,2]{1,0} get-tuple-element(%p), index=2
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = f32[4,2]{1,0} fusion(%x, %k), kind=kOutput, calls=%fused, \
metadata={op_name="a" stack_frame_id=2}, \
backend_config={"window_config":{"estimated_cycles":"9000"}}
  %z = f32[8,4]{1,0} transpose(%x), dimensions={1,0}, \
backend_config={"window_config":{"estimated_cycles":"2000"}}
  ROOT %t = (s32[], f32[4,8], bf16[8,2]) tuple(%next, %x, %k)
}

%condition (q: (s32[], f32[4,8], bf16[8,2])) -> pred[] {
  %q = (s32[], f32[4,8]{1,0}, bf16[8,2]{1,0}) parameter(0)
  %n = s32[] constant(7)
  %j = s32[] get-tuple-element(%q), index=0
  ROOT %lt = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (x: f32[4,8], k: bf16[8,2]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0} parameter(0)
  %k.1 = bf16[8,2]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %t.1 = (s32[], f32[4,8], bf16[8,2]) tuple(%zero, %x.1, %k.1)
  %loop = (s32[], f32[4,8], bf16[8,2]) while(%t.1), condition=%condition, \
body=%body
  %r = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %s = f32[4]{0} reduce(%r, %zero), dimensions={1}, to_apply=%sum, \
metadata={op_name="b" stack_frame_id=3}, \
backend_config={"window_config":{"estimated_cycles":"5000"}}
  ROOT %out = f32[4,8]{1,0} multiply(%r, %r), \
backend_config={"window_config":{"estimated_cycles":"1500"}}
}
"""


def test_cycles_are_added_up_with_trip_counts_by_kind_and_place():
  total = 7 * (9000 + 2000) + 5000 + 1500
  found = cycles.summary(_TEXT, 1.5e9, total / 4, loop=7)
  assert found["cycles_per_step"] == total
  assert found["seconds_per_step"] == pytest.approx(total / 1.5e9)
  assert found["over_peak"] == 4
  assert found["langevin_step"] == {
    "cycles": 11_000,
    "convolution": 9000,
    "copy": 2000,
    "instructions": 2,
    "of_which_launch": 2 * 1800,
  }
  assert found["outside_the_chain"] == {
    "cycles": 6500,
    "elementwise": 1500,
    "reduce": 5000,
    "instructions": 2,
    "of_which_launch": 1800 + 1500,
  }


def test_instructions_are_named_with_the_line_of_this_package():
  found = cycles.summary(_TEXT, 1.5e9, 1, loop=7)["most_expensive"]
  assert [row["cycles"] for row in found] == [63_000, 14_000, 5000, 1500]
  assert found[0] == {
    "cycles": 63_000,
    "times": 7,
    "kind": "convolution",
    "name": "y",
    "result": [[4, 2]],
    "operands": [[4, 8], [8, 2]],
    # The innermost frame is flax's; the one around it is ours.
    "source": "hatebm_jax/energy.py:27",
  }
  assert found[1]["source"] == ""
  assert found[2]["source"] == "hatebm_jax/bank.py:5"


def test_instructions_without_an_estimate_are_counted():
  # The counter of the loop and its comparison; fused parts do not count.
  assert cycles.summary(_TEXT, 1.5e9, 1, loop=7)["without_estimate"] == {
    "add": 1,
    "compare": 1,
  }


def test_a_program_of_a_compiler_without_estimates():
  text = _TEXT.replace("estimated_cycles", "something_else")
  found = cycles.summary(text, 1.5e9, 1000, loop=7)
  assert found["cycles_per_step"] == 0
  assert found["without_estimate"]["fusion"] == 1
