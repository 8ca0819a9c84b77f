#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# On each drive another request fails, once or for good. Whatever it hits: steps end with an error
# or with all done, what was announced is announced to the host ("DRIVE N STEP M"), reads go on,
# umount ends.
. /vm/lib.sh
n=0
for d in /sys/block/nvme*; do
	[ -e "$d/nsid" ] || continue
	n=$((n + 1))
	id=$(cat "$d/nsid")
	if ! serve "/dev/${d##*/}" /mnt; then
		# The daemon writes before it serves: that may be what fails.
		say "DRIVE $id STEP 0 MOUNT-FAILED"
		continue
	fi
	mkdir /mnt/steps
	vmio steps /mnt/steps 1 40 >/tmp/steps
	say "DRIVE $id STEP $(grep -c STEP /tmp/steps) $(tail -n 1 /tmp/steps)"
	want ok "drive $id: reads go on" vmio read /mnt/data 0 65536 65536 1 direct
	works "drive $id: umount" timeout 30 umount /mnt
	works "drive $id: the daemon ends" until_true 20 no_daemon
done
