#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# What the daemon takes in memory at mount with $ARG possible CPUs of which one is online. Reports
# "RSS KIB".
. /vm/lib.sh
want "0-$((ARG - 1))" "so many CPUs are possible" cat /sys/devices/system/cpu/possible
works "mount" serve "$(drive 1)" /mnt
field() { sed -n "s/^$2:[^0-9-]*\([0-9]*\).*/\1/p" "/proc/$1/status"; }
for p in $(pidof fusedio); do
	[ "$(field "$p" Threads)" -le 1 ] || say "RSS $(field "$p" VmRSS)" # not the unmounter
done
works "umount" umount /mnt
works "the daemon ends" until_true 20 no_daemon
