#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# A daemon with -o mlock, which needs privileges that the machine of a root test may lack: it is
# locked in memory, the OOM killer leaves it alone, and it writes data with next to no memory left
# in its cgroup.
. /vm/lib.sh
a=$(drive 1)
limit=$((384 * 1024)) # the kernel accounts in steps of 256 KiB for each CPU; there is one

# field PID NAME: a number of /proc/PID/status.
field() { sed -n "s/^$2:[^0-9-]*\\(-*[0-9]*\\).*/\\1/p" "/proc/$1/status"; }
# The process of the daemon, not that of the unmounter, which has one thread.
daemon() {
	for p in $(pidof fusedio); do
		[ "$(field "$p" Threads)" -le 1 ] || echo "$p"
	done
}

# Writes directly to new blocks and (with O_DSYNC) to old ones, and through the page cache.
write_out() {
	rm -f /mnt/new /mnt/cached &&
		dd if=/tmp/data of=/mnt/new bs=256k oflag=direct conv=fsync &&
		vmio write /mnt/old 0 1048576 65536 1 create,direct,dsync | tail -n 1 |
		grep -qx ok &&
		dd if=/tmp/data of=/mnt/cached bs=64k conv=fsync
}
enter() {
	mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg &&
		echo +memory >/tmp/cg/cgroup.subtree_control && mkdir /tmp/cg/d &&
		echo "$limit" >/tmp/cg/d/memory.max && echo "$1" >/tmp/cg/d/cgroup.procs
}

dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
works "mount with mlock" serve "$a" /mnt -o mlock,queue_depth=8
pid=$(daemon)
locked=$(field "$pid" VmLck)
works "its memory is locked" [ "$locked" -gt 8192 ]
want -1000 "it is not killed for lack of memory" cat "/proc/$pid/oom_score_adj"
works "writing out" write_out
works "writing out once more" write_out
rss=$(field "$pid" VmRSS) data=$(field "$pid" VmData)
works "the daemon moves to where memory has run out" enter "$pid"
for turn in 1 2 3 4; do
	works "writing out without memory, $turn" write_out
done
want "$pid" "the daemon lives" daemon
want "$data" "it has no more data" field "$pid" VmData
works "it has no more memory" [ "$(field "$pid" VmRSS)" -le $((rss + 256)) ]
works "what it allocated" [ "$(cat /tmp/cg/d/memory.peak)" -le "$limit" ]
say "peak $(cat /tmp/cg/d/memory.peak) VmLck $locked VmRSS $rss $(field "$pid" VmRSS)"
echo "$pid" >/tmp/cg/cgroup.procs
works "what was written directly is there" cmp /tmp/data /mnt/new
works "what was written through the page cache is there" cmp /tmp/data /mnt/cached
want ok "what was written with O_DSYNC is there" vmio read /mnt/old 0 1048576 4096 1 direct
works "umount" umount /mnt
works "the daemon ends" until_true 20 no_daemon
