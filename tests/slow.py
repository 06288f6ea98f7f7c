"""Runs the slow tests and keeps a record of their results.

`python tests/slow.py` runs each slow test whose result at this code is not in
tests/slow_record.jsonl yet. Stopped and started again, it goes on with the
tests that are left. A test that was killed leaves no line. At the end it says
whether the record is whole and green. `--check` says only that.

A line of the record has the test, its result (passed, failed or skipped), the
commit, the seconds, the versions and the machine. The line holds as long as
nothing changes that the test depends on. That is everything but the record,
this file, the other test files, the race's results and, for most tests,
Markdown files and the rest of the race.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata

ROOT = pathlib.Path(__file__).parents[1]
RECORD = ROOT / "tests" / "slow_record.jsonl"
_NOT_RECORD = f":!{RECORD.relative_to(ROOT)}"
_NOT_TESTS = ":!tests/*_test.py"
_NOT_RESULTS = ":!experiments/race/results.jsonl"  # No test reads them.
_TESTS_OF_THIS = "tests/slow_test.py"
_READS_MARKDOWN = ("tests/readme_test.py", "tests/install_test.py")
_USES_RACE = ("tests/experiments/race_test.py", *_READS_MARKDOWN)
_PYTEST = (sys.executable, "-m", "pytest", "-m", "slow")
_NO_XDIST = "--import-mode=importlib"
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


class Recorder:
  """A pytest plugin that writes the result of each test that has ended."""

  def __init__(self):
    self.results = {}

  def pytest_runtest_logreport(self, report):
    """Gathers a test's phases; its last phase completes it."""
    result, seconds = self.results.get(report.nodeid, ("passed", 0.0))
    if report.outcome != "passed":
      result = report.outcome
    self.results[report.nodeid] = result, seconds + report.duration
    # The report about a test whose process died has another name.
    if report.when == "teardown":
      write(report.nodeid, *self.results[report.nodeid])


def pytest_configure(config):
  """Registers the recorder in the first process only."""
  if not hasattr(config, "workerinput"):
    config.pluginmanager.register(Recorder())


def read():
  """Returns the lines of the record by test."""
  lines = RECORD.read_text().splitlines() if RECORD.exists() else []
  return {line["test"]: line for line in map(json.loads, lines)}


def save(lines):
  """Replaces the record, with its lines in the order of the tests' names."""
  text = "".join(f"{json.dumps(lines[test])}\n" for test in sorted(lines))
  new = RECORD.with_suffix(".new")
  new.write_text(text)
  new.replace(RECORD)


def write(test, result, seconds):
  """Adds a result to the record, in place of the test's earlier one."""
  line = {
    "test": test,
    "result": result,
    "commit": git("rev-parse", "HEAD"),
    "seconds": round(seconds, 1),
    "python": platform.python_version(),
    "versions": {name: metadata.version(name) for name in _PACKAGES},
    "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
  }
  save(read() | {test: line})


def git(*arguments):
  """Returns what a git command prints. Its failure ends the program."""
  result = subprocess.run(
    ["git", *arguments], cwd=ROOT, capture_output=True, text=True
  )
  if result.returncode:
    sys.exit(f"git {' '.join(arguments)}: {result.stderr.strip()}")
  return result.stdout.strip()


@functools.cache
def is_same(commit, *paths):
  """Returns whether files of the working tree are those of a commit."""
  command = ["git", "diff", "--quiet", commit, "--", *paths]
  return not subprocess.run(command, cwd=ROOT, capture_output=True).returncode


def holds(line):
  """Returns whether a line of the record is about this code."""
  file = line["test"].partition("::")[0]
  ignored = [_NOT_RECORD, _NOT_TESTS, _NOT_RESULTS]
  if file not in _READS_MARKDOWN:
    ignored.append(":!*.md")
  if file not in _USES_RACE:
    ignored.append(":!experiments/race")
  if file != _TESTS_OF_THIS:
    ignored.append(":!tests/slow.py")
  commit = line["commit"]
  return is_same(commit, ".", *ignored) and is_same(commit, file)


def slow_tests():
  """Returns the names of all slow tests."""
  result = subprocess.run(
    [*_PYTEST, "--collect-only", "-q", "-o", f"addopts={_NO_XDIST}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  if result.returncode:
    sys.exit(f"pytest cannot collect the slow tests:\n{result.stdout}")
  return [x for x in result.stdout.splitlines() if x.startswith("tests/")]


def run(tests):
  """Runs tests, two files at a time, and records their results."""
  folders = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
  subprocess.run(
    [*_PYTEST, "-p", "slow", *tests],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
  )


def summarise(tests):
  """Prints a summary. Returns whether the record is whole and green."""
  lines = {t: line for t, line in read().items() if holds(line)}
  counts = {"passed": 0, "skipped": 0, "failed": 0, "not run": 0}
  for test in tests:
    result = lines[test]["result"] if test in lines else "not run"
    counts[result] += 1
    if result != "passed":
      print(f"{result}: {test}")
  found = ", ".join(f"{n} {result}" for result, n in counts.items())
  good = not counts["failed"] and not counts["not run"]
  state = "whole and green" if good else "not whole or not green"
  commit = git("rev-parse", "--short", "HEAD")
  print(
    f"The record of {commit} is {state}: {found}, of {len(tests)} slow tests."
  )
  return good


def main():
  """Runs what is missing. Exits with 0 if the record is whole and green."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--check", action="store_true", help="Run no test.")
  only_check = parser.parse_args().check
  changes = git("status", "--porcelain", "--", ".", _NOT_RECORD)
  if changes:
    sys.exit(f"Commit these changes first, or remove them:\n{changes}")
  tests = slow_tests()
  if not only_check:
    save({t: line for t, line in read().items() if t in tests})
    done = {
      t for t, x in read().items() if holds(x) and x["result"] == "passed"
    }
    left = [test for test in tests if test not in done]
    print(f"{len(left)} of {len(tests)} slow tests are left to run.")
    if left:
      run(left)
  sys.exit(0 if summarise(tests) else 1)


if __name__ == "__main__":
  main()
