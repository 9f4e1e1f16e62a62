#!/bin/sh
# promtool, out of Debian's package prometheus: unpacked into the folder named, not installed (that starts a server).
set -eu
folder=$1
[ ! -x "$folder/promtool" ] || exit 0
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
cd "$download"
apt-get -qq download prometheus 2>/dev/null || { apt-get -qq update && apt-get -qq download prometheus; }
dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
cd "$OLDPWD"
mkdir -p "$folder"
mv "$download/usr/bin/promtool" "$folder/promtool"
