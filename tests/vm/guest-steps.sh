#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# Announced steps (vmio.c) while another load runs. $ARG is FIRST,LAST,MARK[,deaf]. MARK is the
# offset on the drive at which the number of each step is written, or "none". With LAST 0 it only
# mounts, which recovers, and unmounts. With "deaf" the kernel sends no flushes to the drive.
. /vm/lib.sh
IFS=, read -r first last mark deaf <<END
$ARG
END
dev=$(drive 1)
if [ "$deaf" = deaf ]; then echo "write through" >"/sys/block/${dev##*/}/queue/write_cache"; fi
works "mount" serve "$dev" /mnt
if [ "$last" = 0 ]; then
	works "umount" umount /mnt
	works "the daemon ends" until_true 20 no_daemon
	exit 0
fi
[ -d /mnt/steps ] || mkdir /mnt/steps /mnt/other
vmio fsync /mnt >/dev/null
churn() {
	n=0
	while [ -e /tmp/churning ]; do
		n=$((n + 1))
		vmio write "/mnt/other/f$((n % 9))" 0 65536 16384 $n create,direct >/dev/null
		mkdir "/mnt/other/d$n"
		mv "/mnt/other/f$((n % 9))" "/mnt/other/d$n/"
		rm -rf "/mnt/other/d$((n - 4))"
	done
}
touch /tmp/churning
churn 2>/dev/null &
if [ "$mark" = none ]; then
	vmio steps /mnt/steps "$first" "$last" >/dev/ttyS1
else
	vmio steps /mnt/steps "$first" "$last" "$dev" "$mark" >/dev/ttyS1
fi
rm /tmp/churning
wait
works "umount" umount /mnt
works "the daemon ends" until_true 20 no_daemon
