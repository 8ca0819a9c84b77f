#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# On each drive a different request fails, once or from then on. In every case: the steps end, with
# an error or after the last one; the host is told the last announced step ("DRIVE N STEP M"); reads
# work; umount ends.
. /vm/lib.sh
n=0
for d in /sys/block/nvme*; do
	[ -e "$d/nsid" ] || continue
	n=$((n + 1))
	id=$(cat "$d/nsid")
	if ! serve "/dev/${d##*/}" /mnt; then
		# The daemon writes before it serves, so the mount may be what fails.
		say "DRIVE $id STEP 0 MOUNT-FAILED"
		continue
	fi
	mkdir /mnt/steps
	vmio steps /mnt/steps 1 40 >/tmp/steps
	say "DRIVE $id STEP $(grep -c STEP /tmp/steps) $(tail -n 1 /tmp/steps)"
	want ok "drive $id: reads go on" vmio read /mnt/data 0 65536 65536 1 direct
	works "drive $id: umount" limited 30 umount /mnt
	works "drive $id: the daemon ends" until_true 20 no_daemon
done
