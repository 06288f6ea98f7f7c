import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pytest
import tiny
from PIL import Image

from hatebm_jax import report
from hatebm_jax.report import __main__ as command
from hatebm_jax.report import curves, formatting, training
from hatebm_jax.run import files, sample_files, workdir

_VOID = {"meta", "img", "br", "link", "hr"}
_PANELS = ("energy_gap", "drift_norm_y", "saturation")


class _Page(html.parser.HTMLParser):
  """Reads text, tags and images of a page, and asserts that tags balance."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.images, self.texts = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open, f"never closed: {self.open}"

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag == "img":
      self.images.append(dict(attrs))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != "style":
      self.texts.append(data)

  @property
  def text(self):
    return " ".join(" ".join(self.texts).split())

  @property
  def titles(self):
    """Returns the titles of the sections from the links to them."""
    targets = {a["id"] for tag, a in self.tags if tag == "section"}
    links = [a["href"] for tag, a in self.tags if tag == "a"]
    assert [link.removeprefix("#") for link in links] == [
      a["id"] for tag, a in self.tags if tag == "section"
    ]
    return targets


def _figure(mean, std=None):
  return {"mean": mean, "std": std, "values": [mean]}


def _score(value, higher):
  rate = {"value": value, "low": value - 0.011, "high": value + 0.012}
  return {"higher_is_out": higher, "auroc": rate, "aupr": rate, "fpr95": rate}


def _evaluation():
  """Returns figures as --mode=evaluate writes them."""
  return {
    "protocol": {
      "checkpoint_step": 4000,
      "weights": "averaged",
      "seed": 7,
      "langevin": {"num_steps": 120, "max_drift_y": None, "update_z": False},
      "num_images": 1000,
      "repeats": 3,
      "samples": None,
      "data": "digits",
      "split": "train",
      "num_reference": 1437,
      "network": "FD-digits",
      "network_sha256": "ab12" * 16,
      "statistics": None,
      "device": "cpu",
    },
    "sets": {
      "hat": {
        "num_images": 1000,
        "frechet_distance": _figure(19.2334, 0.1512),
        "precision": _figure(0.70129, 0.0123),
        "recognised": _figure(0.624, 0.013),
      },
      "held_out": {"num_images": 360, "frechet_distance": _figure(6.400193)},
    },
    "ood": {
      "in_distribution": "digits test",
      "sets": {
        "folder:other": {
          "num_in": 360,
          "num_out": 500,
          "resized_to": 16,
          "scores": {
            "energy": _score(0.92, True),
            "gradient_norm": _score(0.25, True),
            "total_variation": _score(0.875, False),
          },
        }
      },
    },
    "chains": {
      "num_chains": 32,
      "num_steps": 1200,
      "training_steps": 120,
      "ess": 12.34,
      "r_hat": None,
      "stuck": 2,
      "energy_gap": -0.00125,
      "curve": [
        {"step": 0, "energy": 0.5, "frechet_distance": 61.25},
        {"step": 1200, "energy": 0.25, "frechet_distance": None},
      ],
    },
    "seconds": 12.3,
  }


def _picture(path, size=32):
  values = np.random.default_rng(0).integers(0, 256, (size, size, 1), np.uint8)
  files.write_png(path, values)


def _run(path, **overrides):
  """Writes all files of a run that a page can show."""
  config = tiny.config(train__num_steps=20, **overrides)
  workdir.claim(path, config, write=True)
  lines = [
    {"step": step, **{name: 0.01 * step for name in _PANELS}}
    for step in range(1, 11)
  ]
  (path / "metrics.jsonl").write_text(
    "".join(json.dumps(line) + "\n" for line in lines)
  )
  for step in range(1, 11):
    for name in ("data", "hat"):
      _picture(path / "images" / f"{step:08d}_{name}.png")
  for step in (5, 10):
    for name in ("grid", "generator", "paths", "split"):
      _picture(path / "samples" / f"{step:08d}_raw_{name}.png")
  (path / "evaluation.json").write_text(json.dumps(_evaluation()))
  for name in ("ood", "chains", "long_run", "nearest"):
    _picture(path / f"evaluation_{name}.png")
  records = [{"step": 7, "to": 4, "rule": "max_saturation", "value": 0.6125}]
  (path / "rollbacks.json").write_text(json.dumps(records))
  return path


def _page(path):
  return _Page(report.write(path).read_text())


def test_the_page_stands_alone(tmp_path):
  text = report.write(_run(tmp_path)).read_text()
  page = _Page(text)
  for tag, attributes in page.tags:
    assert tag not in ("script", "link", "iframe", "object"), tag
    for name in ("src", "href", "srcset", "action", "poster"):
      value = attributes.get(name, "#")
      assert value.startswith(("#", "data:image/")), (tag, name, value[:50])
    assert not any(name.startswith("on") for name in attributes)
  style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
  assert "url(" not in style and "@import" not in style
  assert "prefers-color-scheme: dark" in style
  assert ("html", {"lang": "en"}) in page.tags
  levels = [tag for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
  assert levels[0] == "h1" and levels.count("h1") == 1 and "h2" in levels


def test_every_image_decodes_and_says_what_it_shows(tmp_path):
  page = _page(_run(tmp_path))
  kinds = []
  for image in page.images:
    kind, content = re.fullmatch(
      r"data:image/(png|svg\+xml);base64,(.+)", image["src"]
    ).groups()
    content = base64.b64decode(content, validate=True)
    if kind == "png":
      with Image.open(io.BytesIO(content)) as decoded:
        decoded.load()
        assert decoded.size == (int(image["width"]), int(image["height"]))
    else:
      assert xml.etree.ElementTree.fromstring(content).tag.endswith("svg")
    assert len(image["alt"]) > 10
    kinds.append(kind)
  # There are curves, 6 of 10 steps of two grids, 4 pictures of samples and 4 of
  # the evaluation.
  assert kinds.count("svg+xml") == len(_PANELS)
  assert kinds.count("png") == 2 * 6 + 4 + 4


def test_sections_and_how_far_the_run_has_come(tmp_path):
  page = _page(_run(tmp_path))
  assert page.titles == {
    "settings",
    "curves",
    "rollbacks",
    "grids-over-time",
    "samples",
    "evaluation",
    "out-of-distribution-detection",
    "chains",
  }
  assert "synthesis on digits" in page.text
  assert f"Run {tmp_path.name} : 10 of 20 training steps, seed 0." in page.text
  assert "raw weights of training step 10" in page.text
  assert "training step 5" not in page.text


def test_samples_of_other_settings_stand_apart(tmp_path):
  path = _run(tmp_path)
  _picture(path / "samples" / "00000010_2_raw_grid.png")
  record = {"seed": 7, "langevin": {"num_steps": 40, "max_drift_y": None}}
  file = path / "samples" / "00000010_2_raw.npz"
  sample_files.save(file, record, images=np.zeros((2, 4, 4, 1), np.uint8))
  text = _page(path).text
  first, _, second = text.partition(
    "raw weights of training step 10, settings 2"
  )
  assert "raw weights of training step 10" in first
  assert "00000010_2_raw.npz: seed 7, num steps 40, max drift y None." in second


def test_figures_stand_with_their_spread_and_protocol(tmp_path):
  text = _page(_run(tmp_path)).text
  row = "FD-digits ↓ 19.23 ± 0.15 6.400 precision ↑ 0.701 ± 0.012 -"
  assert row in text
  assert "recognised ↑, % 62.4 ± 1.3 -" in text
  assert "images 1,000 360" in text
  assert "this is not FID" in text and "1,437 images" in text
  before_ood, _, after = text.partition("against digits test (360)")
  ood, _, chains = after.partition("R-hat")
  assert "checkpoint step 4000" in before_ood
  # The whole protocol also stands with the figures further down.
  for part in (ood, chains):
    assert "checkpoint step 4000; weights averaged; seed 7" in part
    assert "langevin: num steps 120; langevin: max drift y none" in part
    assert "ab12" * 16 in part and "repeats 3" in part


@pytest.mark.parametrize("network", ["FID", "FD-ResNet10"])
def test_a_distance_is_called_by_its_network(tmp_path, network):
  found = _evaluation()
  found["protocol"] |= {"network": network, "num_reference": None}
  _run(tmp_path)
  (tmp_path / "evaluation.json").write_text(json.dumps(found))
  text = _page(tmp_path).text
  assert f"{network} ↓ 19.23 ± 0.15" in text
  assert ("FID ↓" in text) == (network == "FID")
  assert ("this is not FID" in text) == (network != "FID")


def test_ood_has_its_baselines_beside_it_and_chains_their_curve(tmp_path):
  text = _page(_run(tmp_path)).text
  assert "folder:other (500 images) against digits test (360), at 16" in text
  interval = "0.920 [0.909, 0.932]"
  assert f"energy higher {interval} {interval} {interval}" in text
  assert "gradient norm higher 0.250 [0.239, 0.262]" in text
  assert "total variation (baseline) lower 0.875 [0.864, 0.887]" in text
  assert "second half 12.34 R-hat of the energy, second half; 1 at best -" in (
    text
  )
  assert "chains that do not move 2 H(data) - H(samples) -0.00125" in text
  assert "Langevin step energy FD-digits 0 0.5 61.25 1,200 0.25 -" in text


def test_a_common_encoding_of_both_sides_is_said(tmp_path):
  assert "JPEGs of quality" not in _page(_run(tmp_path)).text
  found = _evaluation()
  found["ood"]["jpeg_quality"] = 75
  (tmp_path / "evaluation.json").write_text(json.dumps(found))
  text = _page(tmp_path).text
  assert "Both sides were encoded as JPEGs of quality 75." in text


@pytest.mark.parametrize(
  ("mean", "std", "factor", "expected"),
  [
    (19.2334, 0.1512, 1, "19.23 ± 0.15"),
    (0.012345, 0.00041, 1, "0.01235 ± 0.00041"),
    (0.051, 0.004, 100, "5.10 ± 0.40"),
    (1234.6, 56.0, 1, "1235 ± 56"),
    (3.0, 0.0, 1, "3 ± 0"),
    (6.400193, None, 1, "6.400"),
  ],
)
def test_a_mean_is_shown_to_the_second_digit_of_its_spread(
  mean, std, factor, expected
):
  assert formatting.spread(_figure(mean, std), factor) == expected


def test_rollbacks_are_listed_and_marked_in_the_curves(tmp_path):
  page = _page(_run(tmp_path))
  assert "rule value 7 4 max_saturation 0.6125" in page.text
  lines = workdir.read_metrics(tmp_path)
  marked = curves.svg(lines, "saturation", [7])
  plain = curves.svg(lines, "saturation")
  assert marked.count("stroke-dasharray") == plain.count("stroke-dasharray") + 1
  shown = [
    base64.b64decode(image["src"].split(",")[1]).decode()
    for image in page.images
    if "svg" in image["src"][:20]
  ]
  assert marked in shown and plain not in shown
  (tmp_path / "rollbacks.json").unlink()
  again = _page(tmp_path)
  assert "rollbacks" not in again.titles and "Dashed" not in again.text


def test_what_a_file_says_stays_text(tmp_path):
  hostile = "</script><script>alert('1')</script>\"&amp;<b>"
  _run(tmp_path, data__source=hostile)
  found = _evaluation()
  found["protocol"]["device"] = hostile
  found["ood"]["sets"] = {hostile: found["ood"]["sets"]["folder:other"]}
  found["sets"] = {hostile: found["sets"]["hat"]}
  (tmp_path / "evaluation.json").write_text(json.dumps(found))
  record = {"step": 1, "to": 0, "rule": hostile, "value": hostile}
  (tmp_path / "rollbacks.json").write_text(json.dumps([record]))
  _picture(tmp_path / "images" / "00000001_<b>&.png")
  page = _page(tmp_path)
  assert not {"script", "b"} & {tag for tag, _ in page.tags}
  # It stands in title, heading and settings (as JSON), twice in the rollbacks
  # and three times in the rest.
  assert page.text.count(hostile) >= 7
  assert json.dumps(hostile) in page.text


def test_a_new_run_says_what_to_do_next(tmp_path):
  path = tmp_path / "a run"
  workdir.claim(path, tiny.config(train__num_steps=20), write=True)
  page = _page(path)
  assert page.titles == {"settings", "curves", "samples", "evaluation"}
  assert not page.images and "0 of 20 training steps" in page.text
  for mode in ("train", "sample", "evaluate"):
    assert f"--workdir='{path}' --mode={mode}" in page.text


def test_a_run_that_is_training(tmp_path):
  _run(tmp_path)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 11, "energy_gap": 0.1')
  whole = (tmp_path / "images" / "00000010_hat.png").read_bytes()
  (tmp_path / "images" / "00000011_hat.png").write_bytes(
    whole[: -len(whole) // 2]
  )
  page = _page(tmp_path)
  assert "10 of 20 training steps" in page.text
  captions = [image["alt"] for image in page.images]
  assert not any("step 11" in caption for caption in captions)
  assert len(workdir.read_metrics(tmp_path)) == 10


def test_figures_of_an_older_version(tmp_path):
  _run(tmp_path)
  (tmp_path / "evaluation.json").write_text('{"sets": {}}')
  page = _page(tmp_path)
  assert "written by an older version" in page.text
  assert "chains" not in page.titles


@pytest.mark.parametrize(
  "file, content, found",
  [
    ("evaluation", '{"protocol": {}}', "json does not hold what"),
    (
      "evaluation",
      '{"protocol": [], "sets": {"hat": 1}}',
      "json does not hold what",
    ),
    (
      "evaluation",
      '{"protocol": {}, "sets": {}, "ood": 1}',
      "json does not hold what",
    ),
    (
      "evaluation",
      '{"protocol": {}, "sets": {}, "chains": {"curve": 1}}',
      "json does not hold what",
    ),
    ("config", '{"train": {"num_steps": "x"}}', "config.train.num_steps='x'"),
    ("config", '{"data": 7}', "config.data=7: expected a group"),
  ],
)
def test_files_that_hold_something_else(tmp_path, file, content, found, capsys):
  _run(tmp_path)
  (tmp_path / f"{file}.json").write_text(content)
  assert command.main([str(tmp_path)]) == 1
  message = capsys.readouterr().err
  assert f"{tmp_path}/{file}.json" in message and found in message
  assert not (tmp_path / "report.html").exists()


def test_pictures_that_would_fill_the_memory_are_left_out(tmp_path):
  _run(tmp_path)
  # With one bit per pixel a file of 20 kB holds 10**8 or 10**9 pixels.
  for name, size in (("a", 10_000), ("b", 32_000)):
    file = tmp_path / "images" / f"00000010_{name}.png"
    Image.new("1", (size, size)).save(file)
    assert file.stat().st_size < 2e5
  page = _page(tmp_path)
  alts = [image["alt"] for image in page.images]
  assert any("Grid of hat" in alt for alt in alts)
  assert not any("Grid of a" in x or "Grid of b" in x for x in alts)


def test_first_and_last_steps_are_among_the_grids():
  steps = list(range(100))
  picked = training.evenly(steps)
  assert picked[0] == 0 and picked[-1] == 99 and len(picked) == 6
  assert set(np.diff(picked)) <= {19, 20}
  assert training.evenly([1, 2]) == [1, 2]


def test_large_pictures_are_shrunk_and_say_so(tmp_path):
  workdir.claim(tmp_path, tiny.config(), write=True)
  _picture(tmp_path / "images" / "00000001_hat.png", 1_120)
  _picture(tmp_path / "images" / "00000001_data.png", 560)
  page = _page(tmp_path)
  assert [image["width"] for image in page.images] == ["560", "560"]
  assert page.text.count("(shrunk; the file is larger)") == 1


def test_the_same_run_gives_the_same_page(tmp_path):
  _run(tmp_path)
  assert report.write(tmp_path).read_bytes() == report.make(tmp_path).encode(
    "ascii"
  )


def test_command_line(tmp_path, capsys):
  assert command.main([str(tmp_path)]) == 1
  assert "error: " in capsys.readouterr().err
  assert not (tmp_path / "report.html").exists()
  assert command.main([str(_run(tmp_path))]) == 0
  assert capsys.readouterr().out.startswith(f"{tmp_path}/report.html: ")
  (tmp_path / "evaluation.json").write_text('{"sets": ')
  assert command.main([str(tmp_path)]) == 1
  assert "evaluation.json is not valid JSON" in capsys.readouterr().err


# The report itself has no scripts. This page around it writes down what the
# browser made of the report.
_WRAPPER = """
<iframe src="report.html" style="width: 400px; height: 9000px"></iframe>
<pre id="found"></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument;
  document.getElementById("found").textContent = JSON.stringify({
    images: [...page.images].map(x => [x.complete, x.naturalWidth, x.width]),
    sections: [...page.querySelectorAll("section")].map(x => x.id),
    width: page.documentElement.scrollWidth,
  });
};
</script>
"""


@pytest.fixture
def chromium(tmp_path):
  """Returns a function that runs a headless browser."""
  names = ("chromium", "chromium-browser", "google-chrome")
  browser = next(filter(None, map(shutil.which, names)), None)
  if browser is None:
    pytest.skip(f"no browser: none of {', '.join(names)} is installed")
  profile = tmp_path / "profile"

  def run(*arguments):
    options = [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--allow-file-access-from-files",
      f"--user-data-dir={profile}",
      "--window-size=1000,3000",
    ]
    done = subprocess.run(
      [browser, *options, *arguments],
      capture_output=True,
      check=True,
      text=True,
      timeout=120,
    )
    return done.stdout

  return run


def test_a_browser_shows_it(tmp_path, chromium):
  run = _run(tmp_path / "run")
  file = report.write(run)
  (run / "wrapper.html").write_text(_WRAPPER)
  dom = chromium("--dump-dom", (run / "wrapper.html").as_uri())
  found = json.loads(re.search(r'<pre id="found">(.+)</pre>', dom)[1])
  page = _Page(file.read_text())
  assert set(found["sections"]) == page.titles
  assert len(found["images"]) == len(page.images)
  for complete, natural_width, shown_width in found["images"]:
    assert complete and natural_width > 0 and 0 < shown_width <= 400
  # On a phone, only tables scroll sideways.
  assert found["width"] <= 400
  picture = tmp_path / "screen.png"
  chromium(f"--screenshot={picture}", file.as_uri())
  with Image.open(picture) as screen:
    assert screen.size == (1000, 3000)
    pixels = np.asarray(screen.convert("L"))
  # Each third of the page shows something.
  assert all(part.std() > 5 for part in np.split(pixels, 3))
