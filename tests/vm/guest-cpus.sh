#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null disable=SC2154
#
# Root tests and the stress test on many CPUs. Drive 1 is a root directory of Debian with python3,
# drive 2 has the build and the tests. $ARG is CPUS,SCRIPT[,SCRIPT...]; with "stress" for a script
# the stress test runs.
. /vm/lib.sh
want "${ARG%%,*}" "so many CPUs work" grep -c "^processor" /proc/cpuinfo
mkdir -p /root
works "the root directory" mount -t ext4 -o ro "$(drive 1)" /root
works "the build and the tests" mount -t ext4 -o ro "$(drive 2)" /root/mnt
for d in dev proc sys; do mount --bind /$d /root/$d; done
mount -t tmpfs tmpfs /root/dev/shm
for d in tmp run var/tmp; do mount -t tmpfs tmpfs /root/$d; done

# The lines of a test that tell a result, as the host wants them.
report() { sed -n 's/^\(not ok [^:]*\|skip [^:]*\): /\1 :: /; /^ok \|^not ok \|^skip /p'; }
# run_script NAME: one script of the root tests, or the stress test, in the root directory. Each
# line of it is one check.
run_script() {
	case $1 in
		stress) script=/mnt/tests/stress/stress.py ;;
		*) script=$(cd /root && echo mnt/tests/root/"$1"*.py) && script=/$script ;;
	esac
	say "# $script"
	chroot /root /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp \
		LD_LIBRARY_PATH=/mnt/lib PYTHONDONTWRITEBYTECODE=1 FDIO_BUILD=/mnt \
		FDIO_TRANSPORT="$(word channel)" STRESS_SECONDS=60 \
		FDIO_TIMEOUT_FACTOR=$(($(word factor) / 25)) \
		python3 "$script" 2>&1 | tee /tmp/script.log | report >/dev/ttyS1
	tail -n 5 /tmp/script.log
	grep -q '^ok ' /tmp/script.log ||
		say "not ok $1 :: $(tail -n 3 /tmp/script.log | tr '\n' ' ')"
}
rest=${ARG#*,},
while [ -n "$rest" ]; do
	run_script "${rest%%,*}"
	rest=${rest#*,}
done
