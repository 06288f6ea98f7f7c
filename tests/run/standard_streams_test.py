"""What is printed may be lost, but never the run that prints it."""

import os
import subprocess
import sys

import child
import pytest

from hatebm_jax.run import standard_streams

PROGRAM = """
import os, sys
from hatebm_jax.run import standard_streams
standard_streams.make_lasting()
print("first", flush=True)
sys.stdin.readline()
for _ in range(3):
  print("lost", flush=True)
  print("lost", file=sys.stderr, flush=True)
os.write(int(sys.argv[1]), b"all done")
print("not flushed")
"""


def run_without_readers(code):
  """Runs a program whose readers leave after its first line.

  Returns:
    Its exit status, and what it wrote to the descriptor of its argument.
  """
  read, write = os.pipe()
  process = subprocess.Popen(
    [sys.executable, "-c", code, str(write)],
    env={**os.environ, "PYTHONPATH": str(child.ROOT)},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    pass_fds=[write],
  )
  os.close(write)
  assert process.stdout.readline() == b"first\n"
  process.stdout.close()
  process.stderr.close()
  process.stdin.write(b"\n")
  process.stdin.close()
  status = process.wait(timeout=60)
  with os.fdopen(read, "rb") as file:
    return status, file.read()


def test_a_program_goes_on_when_its_readers_are_gone():
  assert run_without_readers(PROGRAM) == (0, b"all done")


def test_without_lasting_streams_it_would_end():
  code = PROGRAM.replace("standard_streams.make_lasting()", "")
  status, written = run_without_readers(code)
  assert status != 0 and written == b""


def test_a_full_disk_loses_lines_alone():
  with open("/dev/full", "w") as full:
    stream = standard_streams.Lasting(full)
    for _ in range(3):
      assert stream.write("line\n") == 5
      stream.flush()
    assert stream.fileno() == full.fileno() and not stream.isatty()
    with pytest.raises(OSError, match="No space"):
      full.flush()
    # Python would try to write the rest when it closes the file.
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), full.fileno())


def test_what_can_be_written_is_written(tmp_path):
  path = tmp_path / "log"
  with open(path, "w") as file:
    stream = standard_streams.Lasting(file)
    print("one", "two", file=stream, flush=True)
    assert path.read_text() == "one two\n"
