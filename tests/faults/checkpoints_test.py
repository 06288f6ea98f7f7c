"""Checkpoints that are damaged, of another network, or cannot be written."""

import json
import shutil
import subprocess

import child
import numpy as np
import pytest
import tensorstore
import tiny

from hatebm_jax import objectives, restore, sample, sharding, train
from hatebm_jax.run import checkpoint, workdir
from hatebm_jax.run import files as run_files


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of four steps with checkpoints at 2 and 4."""
  path = tmp_path_factory.mktemp("run")
  assert train.train(tiny.config(), path) is None
  return path


@pytest.fixture
def run(trained, tmp_path):
  """A copy of it, to damage."""
  return shutil.copytree(trained, tmp_path / "run")


def files(folder):
  return sorted(p for p in (folder / "default").rglob("*") if p.is_file())


def values(folder):
  """Returns the largest file, of arrays."""
  return max(files(folder), key=lambda file: file.stat().st_size)


def truncate(folder):
  file = values(folder)
  file.write_bytes(file.read_bytes()[:-100])


def remove(folder):
  values(folder).unlink()


def flip(folder):
  file = values(folder)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def lose_checksums(folder):
  (folder / "default" / "checksums.json").unlink()


def break_checksums(folder):
  (folder / "default" / "checksums.json").write_text("[")


DAMAGES = {
  truncate: "is not what was written",
  flip: "is not what was written",
  remove: "is missing",
  empty: "it is empty",
  lose_checksums: "checksums.json is missing",
  break_checksums: "checksums.json: ",
}


def final_arrays(path):
  config, mesh = tiny.config(), sharding.make_mesh()
  objective = objectives.make(config, mesh)
  with checkpoint.Checkpoints(path) as saved:
    return restore.restore_or_init(config, objective, mesh, saved)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_one_is_found_and_nothing_is_deleted(
  run, damage, capsys
):
  damage(run / "checkpoints" / "4")
  evidence = sorted(p.name for p in files(run / "checkpoints" / "4"))
  with checkpoint.Checkpoints(run, read_only=True) as saved:
    assert saved.newest_whole() == 2
  assert (run / "checkpoints" / "4").exists()
  with checkpoint.Checkpoints(run) as saved:
    assert saved.newest_whole() == saved.latest_step() == 2
  message = capsys.readouterr().err
  assert "the checkpoint of training step 4" in message
  assert DAMAGES[damage] in message and "broken_checkpoints" in message
  moved = run / "broken_checkpoints" / "4.0"
  assert sorted(p.name for p in files(moved)) == evidence


def test_a_flipped_byte_of_any_file_is_noticed(run):
  folder = run / "checkpoints" / "4"
  checked = 0
  with checkpoint.Checkpoints(run, read_only=True) as saved:
    saved.check(4)
    for file in files(folder):
      content = file.read_bytes()
      if file.name == "commit_success.txt":  # Orbax's, written last of all.
        continue
      for place in {0, len(content) // 3, len(content) - 1}:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(checkpoint.CheckpointError, match="is broken"):
          saved.check(4)
        checked += 1
      file.write_bytes(content)
    saved.check(4)
  assert checked > 20


@pytest.mark.parametrize(
  "damage", [truncate, pytest.param(empty, marks=pytest.mark.slow)]
)
def test_a_resumed_run_ends_as_if_nothing_had_happened(
  trained, run, damage, capsys
):
  damage(run / "checkpoints" / "4")
  assert train.train(tiny.config(), run) is None
  assert "Resuming at step 2" in capsys.readouterr().out
  (expected, _), (found, step) = final_arrays(trained), final_arrays(run)
  assert step == 4
  np.testing.assert_array_equal(found.bank.x, expected.bank.x)
  assert (run / "broken_checkpoints" / "4.0").exists()


@pytest.mark.slow
def test_twice_damaged_is_twice_kept(run):
  for _ in range(2):
    flip(run / "checkpoints" / "4")
    assert train.train(tiny.config(), run) is None
  kept = sorted(p.name for p in (run / "broken_checkpoints").iterdir())
  assert kept == ["4.0", "4.1"]


def test_sampling_takes_the_one_before_and_moves_nothing(run, capsys):
  flip(run / "checkpoints" / "4")
  assert sample.restore(tiny.config(), run).step == 2
  assert "Going on with that of step 2" in capsys.readouterr().err
  assert (run / "checkpoints" / "4").exists()
  assert not (run / "broken_checkpoints").exists()


def test_a_broken_one_that_is_asked_for_is_refused(run):
  flip(run / "checkpoints" / "2")
  config = tiny.config(sample__checkpoint=2)
  with pytest.raises(checkpoint.CheckpointError, match="2 is broken"):
    sample.restore(config, run)


def test_all_broken_is_an_error_and_they_stay(run):
  for step in ("2", "4"):
    flip(run / "checkpoints" / step)
  with pytest.raises(
    checkpoint.CheckpointError, match=r"found 2 broken \(step 4: default/"
  ):
    train.train(tiny.config(), run)
  with pytest.raises(checkpoint.CheckpointError, match="found 2 broken"):
    sample.restore(tiny.config(), run)
  assert (run / "checkpoints" / "4").exists()


@pytest.mark.slow
def test_checkpoints_of_another_network_are_refused(run, tmp_path):
  other = tmp_path / "other"
  config = tiny.config(model__width=16)
  assert train.train(config, other) is None
  shutil.rmtree(run / "checkpoints")
  shutil.copytree(other / "checkpoints", run / "checkpoints")
  # Samples take the raw weights, so that the averages are not looked at.
  for use, part in ((train.train, "average"), (sample.restore, "params")):
    first = rf"generator/{part}/.* has the shape .*, expected "
    with pytest.raises(checkpoint.CheckpointError, match=first):
      use(tiny.config(), run)
  with pytest.raises(workdir.WorkdirError, match=r"config\.model\.width=8"):
    train.train(config, run)


def test_chunks_larger_than_their_array_are_refused(run):
  # A packed chunk of zeros is small, and fills the memory when it is read.
  folder = run / "checkpoints" / "4" / "default"
  database = {"driver": "ocdbt", "base": f"file://{folder}/"}
  store = tensorstore.KvStore.open(database).result()
  key = b"hat.params.head.kernel/.zarray"
  metadata = json.loads(store.read(key).result().value)
  metadata["chunks"] = [2**20, 2**20]
  store.write(key, json.dumps(metadata)).result()
  (folder / "checksums.json").write_text(
    json.dumps(
      {
        str(file.relative_to(folder)): run_files.sha256(file)
        for file in files(folder.parent)
        if file.name != "checksums.json"
      }
    )
  )
  message = r"hat/params/head/kernel in chunks of at most its shape \(8, 1\)"
  with pytest.raises(checkpoint.CheckpointError, match=message):
    sample.restore(tiny.config(), run)


FILE_LIMIT = 60_000  # bytes; the largest file of a checkpoint has more


@pytest.mark.slow
def test_files_that_cannot_be_written_end_a_run_with_one_message(run):
  assert values(run / "checkpoints" / "4").stat().st_size > FILE_LIMIT
  process = child.start(
    run,
    "--config.train.num_steps=8",
    "--config.train.keep_checkpoints=1",
    prefix=("prlimit", f"--fsize={FILE_LIMIT}"),
  )
  output = child.finish(process, 1)
  (message,) = [x for x in output.splitlines() if x.startswith("error: ")]
  assert message.startswith("error: A checkpoint could not be written")
  assert "File too large" in message
  assert message.endswith("the same command resumes the run.")
  with checkpoint.Checkpoints(run, read_only=True) as saved:
    assert saved.newest_whole() == 4


@pytest.mark.slow
@pytest.mark.parametrize("kib", [600, 1_000, 1_500, 2_500])
def test_a_full_disk(tmp_path, trained, kib):
  mount = tmp_path / "mount"
  mount.mkdir()
  options = f"size={kib + used_kib(trained)}k"
  command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
  if subprocess.run(command, capture_output=True).returncode:
    pytest.skip("mounting a file system takes the rights to")
  try:
    run = shutil.copytree(trained, mount / "run")
    flags = "--config.train.num_steps=1000", "--config.train.image_every=1"
    output = child.finish(child.start(run, *flags), 1)
    (message,) = [x for x in output.splitlines() if x.startswith("error: ")]
    assert "No space left on device" in message
    with checkpoint.Checkpoints(run, read_only=True) as saved:
      step = saved.newest_whole()
    assert step >= 4
    subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
    flags = f"--config.train.num_steps={step + 4}", "--mode=train"
    output = child.finish(child.start(run, *flags))
    assert f"Resuming at step {step}:" in output
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(1, step + 5))
  finally:
    subprocess.run(["umount", str(mount)], check=True)


def used_kib(path):
  return sum(-(-p.stat().st_size // 4096) * 4 for p in path.rglob("*"))
