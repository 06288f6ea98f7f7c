"""Trains for hours in one process and records what the process holds.

python experiments/reliability/soak.py WORKDIR OUT.json [--minutes 120]

Every half minute the script notes the training step, the resident memory, the
open files and the threads of the run. It reads them from /proc, so it needs
Linux. At the end it stops the run with SIGTERM. Logs, images and checkpoints
are written far more often than usual, so that a leak in any of them shows.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time

from matplotlib.figure import Figure

from hatebm_jax.run import workdir

_INTERVAL = 30  # seconds
_FLAGS = (
  "--config=configs/digits.py",
  "--config.train.num_steps=1000000",
  "--config.train.log_every=10",
  "--config.train.image_every=100",
  "--config.train.checkpoint_every=100",
)
_TITLES = {
  "memory_mib": "resident memory [MiB]",
  "files": "open files",
  "threads": "threads",
}


def note(process: int, path: pathlib.Path) -> dict[str, float]:
  """Returns what a process holds now.

  Args:
    process: Number of the process (PID).
    path: Workdir of the run.

  Returns:
    The last logged training step, the resident memory in MiB, and the numbers
    of open files and threads.
  """
  proc = pathlib.Path("/proc") / str(process)
  status = dict(
    line.split(":", 1) for line in (proc / "status").read_text().splitlines()
  )
  lines = workdir.read_metrics(path)
  return {
    "step": lines[-1]["step"] if lines else 0,
    "memory_mib": int(status["VmRSS"].split()[0]) / 1024,
    "files": len(list((proc / "fd").iterdir())),
    "threads": int(status["Threads"]),
  }


def soak(path: pathlib.Path, seconds: float) -> list[dict[str, float]]:
  """Trains a run for a while and takes notes.

  Args:
    path: Workdir of the run, which must not exist yet.
    seconds: Length of the run, in seconds.

  Returns:
    The notes in the order of time. `minutes` is the time since the start.
  """
  path.mkdir(parents=True)
  command = [sys.executable, "-m", "hatebm_jax.main", f"--workdir={path}"]
  notes = []
  with (path / "output.txt").open("w") as output:
    run = subprocess.Popen(
      [*command, *_FLAGS], stdout=output, stderr=subprocess.STDOUT
    )
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
      if run.poll() is not None:
        sys.exit(f"the run ended early: {path / 'output.txt'}")
      notes.append({"minutes": elapsed / 60, **note(run.pid, path)})
      time.sleep(_INTERVAL)
    run.send_signal(signal.SIGTERM)
    if run.wait() != 128 + signal.SIGTERM:
      sys.exit(f"the run did not stop well: {path / 'output.txt'}")
  return notes


def plot(notes: list[dict[str, float]], out: pathlib.Path) -> None:
  """Draws memory, files and threads over time.

  Args:
    notes: Notes that `soak` returned.
    out: Path of the .png file to write.
  """
  figure = Figure(figsize=(9, 3), layout="constrained")
  axes = figure.subplots(1, len(_TITLES))
  for ax, (name, title) in zip(axes, _TITLES.items(), strict=True):
    ax.plot([x["minutes"] for x in notes], [x[name] for x in notes])
    ax.set(xlabel="minutes", title=title, ylim=(0, None))
  figure.savefig(out, dpi=100)


def main() -> None:
  """Runs the soak and writes the notes and their picture."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("workdir", type=pathlib.Path, help="a new workdir")
  parser.add_argument("out", type=pathlib.Path, help="the .json file to write")
  parser.add_argument("--minutes", type=float, default=120)
  args = parser.parse_args()
  notes = soak(args.workdir, 60 * args.minutes)
  args.out.write_text(json.dumps(notes, indent=1) + "\n")
  plot(notes, args.out.with_suffix(".png"))


if __name__ == "__main__":
  main()
