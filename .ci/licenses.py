"""Writes THIRD_PARTY_LICENSES.md of the tested set; CONTRIBUTING.md says how.

pip-licenses --from=all --with-system --format=json | python .ci/licenses.py
"""

import json
import pathlib
import re
import sys

_ROOT = pathlib.Path(__file__).parents[1]
_FIELDS = ("License-Expression", "License-Classifier", "License-Metadata")
# Their metadata name no licence; this is what their licence file is.
_BY_HAND = {"namex": "Apache-2.0"}
_COPYLEFT = re.compile(r"\b([AL]?GPL|MPL|EPL|EUPL|CDDL|Mozilla|GNU|Eclipse)\b")
_HEAD = """\
# Licences of the packages that are used

What the packages of [requirements-tested.txt](requirements-tested.txt) say of
themselves; the text of each licence is in the package. None of them is part of
this repository. Made by the command in [CONTRIBUTING.md](CONTRIBUTING.md).

**Copyleft** is marked. Beside that, wheels hold compiled code under licences of
its own, among them: GCC's run-time libraries in NumPy, SciPy and scikit-learn
(GPL-3.0 with GCC's run-time library exception; libquadmath LGPL-2.1), libzmq in
pyzmq (MPL-2.0), and Eigen in jaxlib and TensorFlow (MPL-2.0).

| package | version | licence |
|---|---|---|
"""


def _canonical(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def _license(name: str, entry: dict[str, str]) -> str:
  """Returns a package's licence, bold where it is copyleft."""
  # Some give the whole text: its first line is the name.
  found = [entry[field].strip().split("\n")[0] for field in _FIELDS]
  known = [text for text in found if text not in ("", "UNKNOWN")]
  if not known and name not in _BY_HAND:
    sys.exit(f"{name} names no licence: look it up and add it to {__file__}")
  known = known or [_BY_HAND[name]]
  return f"**{known[0]}**" if _COPYLEFT.search(" ".join(known)) else known[0]


def main() -> None:
  """Reads the output of pip-licenses from stdin."""
  entries = {_canonical(entry["Name"]): entry for entry in json.load(sys.stdin)}
  pins = (_ROOT / "requirements-tested.txt").read_text()
  rows = []
  for name, version in re.findall(r"^([\w.-]+)==(\S+)", pins, re.M):
    found = entries.get(_canonical(name), {"Version": "nothing"})
    if found["Version"] != version:
      sys.exit(
        f"{name}: expected {version}, found {found['Version']}: install "
        "requirements-tested.txt in the environment that pip-licenses looks at"
      )
    rows.append(f"| {name} | {version} | {_license(name, found)} |\n")
  (_ROOT / "THIRD_PARTY_LICENSES.md").write_text(_HEAD + "".join(rows))


if __name__ == "__main__":
  main()
