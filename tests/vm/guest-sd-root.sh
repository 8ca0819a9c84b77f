#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# Makes the root directory of a guest with systemd, in a tmpfs because the initial file system can
# be neither pivoted nor shared, and enables the unit in it.
. /vm/lib.sh
mkdir -p /root
mount -t tmpfs -o mode=755 root /root
cp -a /bin /etc /lib /lib64 /usr /sbin /vm /root/ 2>/dev/null
mkdir -p /root/dev /root/mnt /root/proc /root/run /root/srv/db /root/srv/bad /root/srv/gone \
	/root/sys /root/tmp /root/var /root/etc/fusedio
printf 'DEVICE=%s\nOPTIONS=noatime\n' "$(drive 1)" >/root/etc/fusedio/srv-db.conf
printf 'DEVICE=%s\nOPTIONS=noatime\n' "$(drive 2)" >/root/etc/fusedio/srv-bad.conf
printf 'DEVICE=/dev/nothing\nOPTIONS=noatime\n' >/root/etc/fusedio/srv-gone.conf
mkdir -p /root/etc/systemd/system/local-fs.target.wants
ln -s /lib/systemd/system/fusedio@.service \
	/root/etc/systemd/system/local-fs.target.wants/fusedio@srv-db.service
echo guest >/root/etc/hostname
: >/root/etc/machine-id
