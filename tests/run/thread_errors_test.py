"""What the threads of orbax and TensorStore print when they fail."""

import os
import subprocess
import sys

import child

# An event loop is closed, then TensorStore tells it of a result.
CODE = """
import asyncio, threading
import tensorstore
from hatebm_jax.run import thread_errors

class Bad:
  def __del__(self):
    raise ValueError("another error")

async def wait(future):
  await asyncio.wait([asyncio.ensure_future(future)], timeout=0)

thread_errors.hide()
promise, future = tensorstore.Promise.new()
loop = asyncio.new_event_loop()
loop.run_until_complete(wait(future))
loop.close()
thread = threading.Thread(target=promise.set_result, args=(1,))
thread.start()
thread.join()
Bad()
"""


def test_a_closed_event_loop_is_no_news():
  result = subprocess.run(
    [sys.executable, "-c", CODE],
    env={**os.environ, "PYTHONPATH": ":".join([str(child.ROOT), *sys.path])},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert "another error" in result.stderr
  assert "Event loop is closed" not in result.stderr
