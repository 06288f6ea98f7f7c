"""The record of slow tests, in a small repository of its own."""

import json
import os
import shutil
import subprocess
import sys

import child
import pytest

TESTS = """
import os
import pathlib
import signal

import pytest

pytestmark = pytest.mark.slow


def test_one():
  pass


@pytest.mark.parametrize("how", ["with spaces", "b"])
def test_two(how):
  if pathlib.Path("runs/kill").exists():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def repository(tmp_path):
  for name in ("pyproject.toml", ".gitignore", "tests/slow.py"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(child.ROOT / name, tmp_path / name)
  (tmp_path / "tests/some_test.py").write_text(TESTS)
  (tmp_path / "tests/readme_test.py").write_text(
    TESTS.split("@pytest.mark.param")[0]
  )
  git(tmp_path, "init", "-q")
  commit(tmp_path)
  return tmp_path


def git(folder, *arguments):
  who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
  subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def commit(folder):
  git(folder, "add", ".")
  git(folder, "commit", "-q", "-m", "A change")


def slow(folder, *arguments):
  """Runs the command; returns its exit status and what it printed."""
  inherited = {k: v for k, v in os.environ.items() if "PYTEST" not in k}
  result = subprocess.run(
    [sys.executable, "tests/slow.py", *arguments],
    cwd=folder,
    env=inherited,
    **child.STDERR_TOO,
    text=True,
  )
  return result.returncode, result.stdout


def record(folder):
  lines = (folder / "tests/slow_record.jsonl").read_text().splitlines()
  return {line["test"]: line for line in map(json.loads, lines)}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(repository):
  (repository / "runs").mkdir()
  (repository / "runs/kill").touch()
  status, output = slow(repository)
  assert status == 1 and "4 of 4 slow tests are left" in output
  assert "not run: tests/some_test.py::test_two[with spaces]" in output
  assert "tests/some_test.py::test_one" in record(repository)
  assert not [name for name in record(repository) if "test_two" in name]

  (repository / "runs/kill").unlink()
  status, output = slow(repository)
  assert status == 0, output
  assert "4 of 4 slow" not in output
  assert "is whole and green" in output and "4 passed" in output
  line = record(repository)["tests/some_test.py::test_one"]
  assert line["result"] == "passed" and line["seconds"] >= 0
  assert {"commit", "python", "versions", "machine"} <= set(line)

  # The record's own commit, documents and other tests change nothing.
  (repository / "README.md").write_text("A text")
  (repository / "tests/other_test.py").write_text("A = 1\n")
  commit(repository)
  status, output = slow(repository, "--check")
  assert status == 1 and "not run: tests/readme_test.py::test_one" in output
  assert "3 passed" in output and "1 not run" in output

  # A failure is recorded and tried again.
  tests = repository / "tests/some_test.py"
  tests.write_text(tests.read_text().replace("  pass", "  assert False"))
  assert "Commit these changes first" in slow(repository)[1]
  commit(repository)
  status, output = slow(repository)
  assert status == 1 and "failed: tests/some_test.py::test_one" in output
  assert "3 passed" in output and "1 failed" in output
  assert "1 of 4 slow tests are left" in slow(repository)[1]
