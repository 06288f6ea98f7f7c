#!/bin/bash
# Times all forms of the convolutions on this machine's first device and writes
# a table into a folder:
#
#   bash experiments/speed/gpu.sh --out=DIR [--seconds=330] [--sizes=32,128,64]
#
# experiments/speed/gpu.py describes the flags. The folder gets forms.json and
# forms.md, which are written again after each row.
set -eu
cd "$(dirname "$0")/../.."
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" \
  experiments/speed/gpu.py "$@"
