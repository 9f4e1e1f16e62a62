#!/bin/sh
# The account that fediwarden runs as in its images, and the folders that it may write to. By hand, because useradd writes
# the day into /etc/shadow.
set -eu
echo "fediwarden:x:10001:10001:fediwarden:/tmp:/usr/sbin/nologin" >>/etc/passwd
echo "fediwarden:x:10001:" >>/etc/group
# A new volume takes over the owner and the mode of the folder that it is put on.
install -d -o 10001 -g 10001 -m 0700 /data /audit
install -d -o 10001 -g 10001 -m 0755 /cache
install -d -m 0755 /etc/fediwarden
