#!/bin/sh
# The table of one GPU, within ten minutes; what was measured by then is in the file named by --out.
cd "$(dirname "$0")/../.." || exit 1
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec timeout 600 "${PYTHON:-python}" benchmarks/gpu/measure.py "$@"
