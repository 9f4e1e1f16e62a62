#!/bin/sh
# Puts Debian's OpenSSH server into the cache, without installing it: tests of sweeps over SFTP use it where the system
# has none. Needs apt-get and dpkg; nothing else on the machine changes.
set -eu
root="${XDG_CACHE_HOME:-$HOME/.cache}/fediwarden/openssh"
for sshd in /usr/sbin/sshd "$root/usr/sbin/sshd"; do [ -x "$sshd" ] && exit 0; done
mkdir -p "$root"
cd "$root"
packages="openssh-server openssh-sftp-server libwrap0"
# shellcheck disable=SC2086  # a list of words
apt-get -qq download $packages 2>/dev/null || { apt-get -qq update && apt-get -qq download $packages; }
for package in *.deb; do dpkg -x "$package" .; done
rm -f ./*.deb
