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


def _detection(folder, *aurocs):
  scores = [
    {"scores": {"energy": {"auroc": {"value": x}}, "png_size": {"auroc": y}}}
    for x, y in zip(aurocs, [{"value": 0.5}, {"value": 1.0}], strict=True)
  ]
  names = f"folder:{folder}/turned", "svhn test"
  return {"ood": {"sets": dict(zip(names, scores, strict=True))}}


def test_aurocs_of_sets_in_folders_of_each_seed():
  results = [_detection("a", 0.75, 0.25), _detection("b", 0.75, 0.75)]
  # The deviations of 0.25 and 0.75 are a quarter; 1/16 + 1/16 is 0.354 squared.
  assert seeds.ood_table(results).splitlines() == [
    "| AUROC of | turned | svhn test |",
    "|---|---|---|",
    "| energy | 0.750 | 0.500 ± 0.354 |",
    "| png size | 0.500 | 1.000 |",
  ]


def test_scores_that_an_older_result_lacks_are_left_out():
  new, old = (_detection("a", 0.75, 0.25) for _ in range(2))
  for one in new["ood"]["sets"].values():
    one["scores"]["drift"] = {"auroc": {"value": 0.5}}
  assert seeds.ood_table([new, old]) == seeds.ood_table([old, new])
