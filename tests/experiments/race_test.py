import filecmp
import json
import subprocess
import sys

import child
import pytest

from experiments.race import __main__ as race
from experiments.race import courses, emoji, heat, recipes, settings, table
from hatebm_jax import config as config_lib
from hatebm_jax import main
from hatebm_jax.run import checkpoint


@pytest.mark.parametrize("course", courses.COURSES)
@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_settings_are_a_config(course, recipe):
  config = settings.config(course, recipe, 1_000)
  config_lib.check(config)
  assert config.hat.learning_rate_drops[0][0] == 500


@pytest.mark.parametrize(
  "recipe", [name for name, x in recipes.RECIPES.items() if x.patches]
)
def test_patches_change_the_package(recipe, tmp_path):
  # As in runs/, the copy lies in a repository.
  subprocess.run(["git", "init", "-q", tmp_path], check=True)
  tree = heat.make_tree(recipe, tmp_path / "code")
  assert filecmp.cmp(tree / "hatebm_jax/main.py", main.__file__, shallow=False)
  patch = heat.PATCHES / f"{recipes.RECIPES[recipe].patches[-1]}.patch"
  changed = [
    line.removeprefix("+++ b/")
    for line in patch.read_text().splitlines()
    if line.startswith("+++ b/")
  ]
  assert changed
  for file in changed:
    assert not filecmp.cmp(tree / file, child.ROOT / file, shallow=False)


def _row(recipe, seed, distance):
  return {
    **{"course": "fashion", "recipe": recipe, "seed": seed},
    **{"training_steps": 100, "langevin_steps": 20 + seed},
    "hat": {"frechet_distance": distance, "recall": 0.5, "coverage": 0.25},
    "generator": {"frechet_distance": 2 * distance},
    **{"lasting": 1.5 + seed, "nearest": 1.0},
  }


def test_table(tmp_path, monkeypatch):
  monkeypatch.setattr(table, "FILE", tmp_path / "results.jsonl")
  table.add(_row("published", 0, 2.0))
  table.add(_row("published", 1, 4.0))
  table.add(_row("clip_1", 0, 1.5))
  assert table.has("fashion", "published", 1)
  assert not table.has("digits", "published", 1)
  assert table.as_markdown("fashion").splitlines()[2:] == [
    "| clip_1 | 0 | 100 | 20 | 1.5 | 3 |  | 0.5 | 0.25 | 1.5 | 1.00 |",
    "| published | 0, 1 | 100, 100 | 20, 21 | 3 | 6 |  | 0.5 | 0.25 | 2 "
    "| 1.00 |",
  ]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["fashion", "published"], "digits takes no --data"),
    (["fashion", "published", "--data=missing"], "found no missing"),
  ],
)
def test_a_heat_without_its_data(arguments, message, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["race", *arguments])
  with pytest.raises(SystemExit):
    race.main()
  assert message in capsys.readouterr().err


def test_all_skin_tones_are_in_one_split():
  hand, tones = "1f44b", [f"1f3f{x}" for x in "bcdef"]
  names = [hand, *(f"{hand}-{tone}" for tone in tones)]
  assert [emoji.split(name) for name in names] == 6 * ["train"]
  assert emoji.split("1f301") == "test"


@pytest.mark.slow
def test_a_heat_goes_on_where_it_was(tmp_path, monkeypatch):
  tiny = courses.COURSES["digits"]._replace(
    settings={
      **{"model.width": 4, "train.batch_size": 4, "langevin.num_steps": 2},
      "train.image_every": 1_000,
    }
  )
  monkeypatch.setitem(courses.COURSES, "digits", tiny)
  # Fewer than 100 chains have no best number of Langevin steps.
  for name, field, number in (
    ("EVALUATION", "sample.num_images", 16),
    ("LONG_CHAINS", "chains.num_chains", 100),
  ):
    few = getattr(courses, name) | {field: number}
    monkeypatch.setattr(courses, name, few)
  folder = tmp_path / "digits_published_0"
  folder.mkdir()
  # With this cost a heat takes 6 training steps.
  (tmp_path / "digits_published.gflop").write_text("4500.0")
  row = heat.run("digits", "published", 0, folder, "")
  assert row["training_steps"] == 6
  assert checkpoint.steps(folder / "run")[-1] == 6
  assert json.loads(json.dumps(row)) == row
  assert row["hat"].keys() >= {"frechet_distance", "recall", "recognised"}
  assert row["curve"][-1][0] == 20 and row["nearest"] > 0
  again = heat.run("digits", "published", 0, folder, "")
  assert again == row
