#!/bin/sh
# Compiles the Python below the folder $1, for images whose files nobody can write later. Unchecked, because the files bear no
# time; by force, because what is compiled already might go by one.
set -eu
python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "$1" >/dev/null 2>&1 || true # some packages ship templates
