import pytest
import tiny

from hatebm_jax import workdir


def test_claim_writes_the_config_and_reads_it_back(tmp_path):
  config = tiny.config()
  workdir.claim(tmp_path, config, write=True)
  assert workdir.read_config(tmp_path).model.width == 8
  workdir.claim(tmp_path, config, write=True)


def test_another_config_is_refused_by_its_first_difference(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  with pytest.raises(
    workdir.WorkdirError, match=r"config\.model\.width=8, the command says 16"
  ):
    workdir.claim(tmp_path, tiny.config(model__width=16), write=True)


def test_cadence_and_sampling_may_change(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  config = tiny.config(train__num_steps=99, evaluate__num_steps=7)
  workdir.claim(tmp_path, config, write=True)
  merged = workdir.run_config(tmp_path, tiny.config(sample__num_images=3))
  assert merged.train.num_steps == 99
  assert merged.sample.num_images == 3 and merged.evaluate.num_steps == 4


def test_missing_and_broken_config(tmp_path):
  with pytest.raises(workdir.WorkdirError, match="holds no run"):
    workdir.read_config(tmp_path)
  (tmp_path / "config.json").write_text('{"seed": ')
  with pytest.raises(workdir.WorkdirError, match="not valid JSON"):
    workdir.read_config(tmp_path)
