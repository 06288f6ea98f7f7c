"""Flags of several processes that do not fit together, in one line each."""

import socket

import child
import pytest

from hatebm_jax.run import distributed


@pytest.mark.parametrize(
  "flags, message",
  [
    (("host:1234", None, None), "--num_processes, --process_id is missing"),
    (("host:1234", 2, None), "--process_id is missing"),
    (("", 2, 0), "--coordinator is missing"),
    ((None, None, 0), "--coordinator, --num_processes is missing"),
    ((None, 4, 3), "--coordinator is missing"),
    (("host", 2, 0), "expected HOST:PORT"),
    ((":1234", 2, 0), "expected HOST:PORT"),
    (("host:", 2, 0), "expected HOST:PORT"),
    (("host:http", 2, 0), "expected HOST:PORT"),
    (("host:0", 2, 0), "a port from 1 to 65535"),
    (("host:70000", 2, 0), "a port from 1 to 65535"),
    (("host:1234", 0, 0), "--num_processes=0: expected"),
    (("host:1234", 2, 2), "--process_id=2: expected a number from 0 to 1"),
    (("host:1234", 2, -1), "--process_id=-1: expected a number from 0 to 1"),
  ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, message):
  with pytest.raises(distributed.ProcessError, match=message):
    distributed.start(*flags)


def test_one_process_needs_no_flags():
  distributed.start(None, None, None)


def test_a_port_in_use_is_an_error_of_one_line():
  code = """
import socket
from hatebm_jax.run import distributed
taken = socket.socket()
taken.bind(("127.0.0.1", 0))
taken.listen()
try:
  distributed.start(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0)
except distributed.ProcessError as error:
  print(error)
"""
  (line,) = child.python(code).splitlines()
  assert "cannot listen at port" in line and "another port" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_coordinator_that_does_not_answer_is_named(monkeypatch, host):
  monkeypatch.setattr(distributed, "_START_SECONDS", 0.5)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"{host}:{free.getsockname()[1]}"
  with pytest.raises(distributed.ProcessError, match="did not answer at") as e:
    distributed.start(address, 2, 1)
  assert address in str(e.value)
