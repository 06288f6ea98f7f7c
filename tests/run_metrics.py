"""Compares what two runs have logged."""

import numpy as np

from hatebm_jax.run import logs, workdir


def assert_same(path, expected, num_steps, rtol=0, atol=0):
  """Compares the metrics of two runs step by step, but for times.

  Args:
    path: Workdir of a run with a line for each step.
    expected: Workdir of the run that it is compared with.
    num_steps: Number of their training steps.
    rtol: Relative tolerance.
    atol: Absolute tolerance.
  """
  runs = [workdir.read_metrics(x) for x in (path, expected)]
  for lines in runs:
    assert [line["step"] for line in lines] == list(range(1, num_steps + 1))
  for name in runs[1][0].keys() - set(logs.TIMES):
    values = [[line[name] for line in lines] for lines in runs]
    np.testing.assert_allclose(*values, rtol=rtol, atol=atol, err_msg=name)
