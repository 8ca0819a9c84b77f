#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# The drive is removed while it is mounted and written to: calls fail, none hangs, umount ends.
. /vm/lib.sh
dev=$(drive 1)
works "mount" serve "$dev" /mnt
mkdir /mnt/steps
works "steps before the removal" vmio steps /mnt/steps 1 40
say "STEP 40"
want ok "a file to overwrite" vmio write /mnt/over 0 1048576 1048576 1 create,fsync
exec 3</mnt/data
# Loads of all kinds while it happens. Each ends by itself, with an error.
(while vmio write /mnt/over 0 1048576 4096 1 direct; do :; done) >/tmp/load.direct 2>&1 &
(while vmio read /mnt/over 0 1048576 4096 1 direct; do :; done) >/tmp/load.read 2>&1 &
vmio steps /mnt/steps 41 1000000 >/tmp/load.steps 2>&1 &
sleep 1.5
echo 1 >/sys/class/nvme/nvme0/device/remove
works "the drive is gone" until_true 20 no_device "$dev"
works "everybody gets an error" until_true 30 no_load
say "$(grep STEP /tmp/load.steps | tail -n 1)"
for load in direct read steps; do
	want "*:E*" "what the $load load got: $(tail -n 1 /tmp/load.$load)" \
		tail -n 1 /tmp/load.$load
done
want "read:EIO" "direct read" vmio read /mnt/data 0 4096 4096 1 direct
want "*:E*" "direct overwrite" vmio write /mnt/over 0 4096 4096 2 direct
want "*:E*" "durable overwrite" vmio write /mnt/over 0 4096 4096 2 direct,dsync
want "*:E*" "buffered write with fsync" vmio write /mnt/over 0 4096 4096 2 fsync
want "*:E*" "a new file with fsync" vmio write /mnt/new 0 4096 4096 2 create,fsync
if [ "$(vmio mkdir /mnt/newdir)" = ok ]; then # may succeed in memory
	want "EIO" "fsync of the directory in which a directory was made" vmio fsync /mnt
fi
want "E*" "create" vmio create /mnt/new2
want "E*" "mkdir" vmio mkdir /mnt/newdir2
want "E*" "getxattr where the attributes have not been read yet" vmio getxattr /mnt/attr user.large
want "ok" "stat of what is in memory" vmio stat /mnt
exec 3<&-
works "umount" limited 60 umount /mnt
works "the daemon ends" until_true 30 no_daemon
