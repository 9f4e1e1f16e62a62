#!/bin/sh
# Installs Synapse from PyPI into a virtual environment of its own in the cache, once, with the hashes of requirements.lock.
# Prints the environment's folder.
#
#   sh tests/synapse/install.sh UV PYTHON
set -eu

uv=$1
python=$2
here=$(dirname "$0")
version=$(sed -n 's/^matrix-synapse==\([0-9.]*\).*/\1/p' "$here/requirements.lock")
root="${XDG_CACHE_HOME:-$HOME/.cache}/fediwarden/synapse-$version"
mark="$root/.installed-$(cksum <"$here/requirements.lock" | cut -d' ' -f1)"

if [ ! -e "$mark" ]; then
    rm -rf "$root"
    "$uv" venv --quiet --python "$python" "$root"
    "$uv" pip install --quiet --python "$root/bin/python" --require-hashes -r "$here/requirements.lock"
    touch "$mark"
fi
printf '%s\n' "$root"
