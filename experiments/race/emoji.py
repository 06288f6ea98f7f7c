"""Splits the emoji of an npm package into training and test images.

python -m experiments.race.emoji PACKAGE/img/google/64 OUT

`npm pack emoji-datasource-google` fetches the package. A quarter of the
subjects become test images. All skin tones of a subject are on one side,
because they differ in their colour alone.
"""

import argparse
import pathlib
import shutil
import zlib

_SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
_PART = 4  # One subject of this number is in the test split.


def split(name: str) -> str:
  """Returns the split of an emoji, 'train' or 'test'.

  Args:
    name: Its Unicode code points, in hexadecimal, with dashes between them.
  """
  subject = "-".join(x for x in name.split("-") if x not in _SKIN_TONES)
  return "train" if zlib.crc32(subject.encode()) % _PART else "test"


def main() -> None:
  """Copies the images."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("source", type=pathlib.Path, help="folder of PNG files")
  parser.add_argument("out", type=pathlib.Path, help="folder to write")
  args = parser.parse_args()
  for name in ("train", "test"):
    (args.out / name).mkdir(parents=True, exist_ok=True)
  for file in sorted(args.source.glob("*.png")):
    shutil.copy(file, args.out / split(file.stem))
  for folder in sorted(args.out.iterdir()):
    print(f"{len(list(folder.iterdir())):,} images in {folder}")


if __name__ == "__main__":
  main()
