"""The files of docs/recipes name what exists. They do not start anything."""

import math
import pathlib
import re
import shlex

import yaml
from absl import flags

import hatebm_jax.main  # noqa: F401  It defines the flags.
from hatebm_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = ROOT / "docs/recipes"


def check_flags(arguments):
  """Checks that `main` knows the flags, and the config its fields."""
  given = dict(a.removeprefix("--").split("=", 1) for a in arguments)
  assert {"config", "workdir"} <= given.keys()
  name = pathlib.Path(given["config"]).stem
  assert (ROOT / "configs" / f"{name}.py").exists()
  config = config_lib.default()
  for flag in given:
    if flag.startswith("config."):
      for part in flag.split(".")[1:]:
        config = config[part]
    else:
      assert flag in flags.FLAGS, flag


def test_jobset():
  (job,) = yaml.safe_load((RECIPES / "jobset.yaml").read_text())["spec"][
    "replicatedJobs"
  ]
  job = job["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  check_flags(container["args"])
  # Each host of the slice is a pod.
  topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  chips = int(container["resources"]["limits"]["google.com/tpu"])
  hosts = math.prod(map(int, topology.split("x"))) // chips
  assert hosts == job["completions"] == job["parallelism"]


def test_slurm_script():
  text = (RECIPES / "slurm.sh").read_text()
  (command,) = re.findall(r"^srun (.*)$", text, re.M)
  words = shlex.split(command)
  assert words[:3] == ["python", "-m", "hatebm_jax.main"]
  check_flags(words[3:])


def test_dockerfile():
  text = (RECIPES / "Dockerfile").read_text()
  for line in re.findall(r"^COPY (.*)$", text, re.M):
    for name in line.split()[:-1]:
      assert (ROOT / name).exists(), name
  assert '"-m", "hatebm_jax.main"' in text
