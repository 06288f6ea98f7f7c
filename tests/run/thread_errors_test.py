"""What the threads of orbax and TensorStore print when they fail."""

import os
import subprocess
import sys

import child

BEGIN = """
import asyncio, logging, threading
import tensorstore
from hatebm_jax.run import thread_errors

logging.basicConfig()
thread_errors.hide()
"""
# An event loop is closed, then TensorStore tells it of a result.
CLOSED_LOOP = """
class Bad:
  def __del__(self):
    raise ValueError("another error")

async def wait(future):
  await asyncio.wait([asyncio.ensure_future(future)], timeout=0)

promise, future = tensorstore.Promise.new()
loop = asyncio.new_event_loop()
loop.run_until_complete(wait(future))
loop.close()
thread = threading.Thread(target=promise.set_result, args=(1,))
thread.start()
thread.join()
Bad()
"""
# Two tasks fail, and only the first one's error is raised.
TWO_FAIL = """
async def fail(name):
  raise ValueError(name)

async def wait_for_one():
  tasks = [asyncio.ensure_future(fail(x)) for x in ("first", "second")]
  asyncio.get_running_loop().call_soon(int, "another error")
  await asyncio.sleep(0.01)
  await tasks[0]

try:
  asyncio.run(wait_for_one())
except ValueError as error:
  print("raised:", error)
"""


def run(code):
  """Returns what a program prints, errors included."""
  result = subprocess.run(
    [sys.executable, "-c", BEGIN + code],
    env={**os.environ, "PYTHONPATH": ":".join([str(child.ROOT), *sys.path])},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert result.returncode == 0, result.stdout
  assert "another error" in result.stdout
  return result.stdout


def test_a_closed_event_loop_is_no_news():
  assert "Event loop is closed" not in run(CLOSED_LOOP)


def test_only_one_of_many_tasks_that_fail_is_news():
  output = run(TWO_FAIL)
  assert "raised: first" in output
  assert "second" not in output
