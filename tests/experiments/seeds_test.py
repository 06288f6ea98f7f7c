from experiments import seeds


def _result(recognised, distance):
  means = {
    "recognised": recognised,
    "rarest": 0.5,
    "frechet_distance": distance,
  }
  return {"sets": {"hat": {k: {"mean": v} for k, v in means.items()}}}


def test_mean_and_spread_by_hand():
  # The deviations of 1, 2 and 6 are -2, -1 and 3. Their squares sum to 14, and
  # 14 / 2 is 7.
  results = [_result(0.25, 1.0), _result(0.25, 2.0), _result(0.25, 6.0)]
  assert seeds.table(results).splitlines() == [
    "| images of | recognised | rarest digit | FD-digits |",
    "|---|---|---|---|",
    "| hat | 25.0% | 50.0% | 3.0 ± 2.6 |",
  ]


def test_one_seed_has_no_spread():
  assert "| hat | 12.5% | 50.0% | 4.2 |" in seeds.table([_result(0.125, 4.2)])
