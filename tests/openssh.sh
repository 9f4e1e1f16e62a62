#!/bin/sh
# Puts Debian's OpenSSH server into the cache, without installing it: tests of sweeps over SFTP use it where the system
# has none. Needs apt-get and dpkg; nothing else on the machine changes.
set -eu
root="${XDG_CACHE_HOME:-$HOME/.cache}/fediwarden/openssh"
[ -x "$root/usr/sbin/sshd" ] && exit 0
mkdir -p "$root"
cd "$root"
apt-get download openssh-server openssh-sftp-server libwrap0
for package in *.deb; do dpkg -x "$package" .; done
rm -f ./*.deb
