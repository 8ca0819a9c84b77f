#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs pjdfstest (a public suite of some 8800 checks of what system calls return; it is not part of
# this tree) on the kernel's ext4 and on fusedio, with 4 KiB and 1 KiB blocks on an image of the
# same format, fusedio over both transports. Prints the suite's own count for each configuration and
# the checks that fail, then runs e2fsck -fn on the image. Ends with status 1 if a check fails on
# fusedio that passes on ext4, or if e2fsck finds anything.
#
#   sudo FDIO_BUILD=build tests/pjdfstest.sh DIR [CONFIGURATION...]
#     DIR              the suite's directory, with the program pjdfstest built in it
#     CONFIGURATION    ext4-4096 ext4-1024 devfuse-4096 devfuse-1024 uring-4096 uring-1024
#                      (default: all)
#   PJD_TESTS          only these of its tests, for example "chmod rename/09.t"
#   PJD_JOBS           how many of its scripts at once (default 2)
#   PJD_OPTS           further mount options for fusedio
set -u
[ $# -ge 1 ] || { sed -n '3,16s/^# \{0,1\}//p' "$0"; exit 2; }
suite=$(cd "$1" && pwd) || exit 2
shift
[ -x "$suite/pjdfstest" ] ||
	{ echo "$suite has no program pjdfstest: build the suite first" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "only root can run this" >&2; exit 2; }
command -v prove >/dev/null || { echo "prove (of perl) is not installed" >&2; exit 2; }
fusedio=${FUSEDIO:-${FDIO_BUILD:-$(pwd)}/fusedio}
[ -x "$fusedio" ] || { echo "no $fusedio" >&2; exit 2; }
[ $# -gt 0 ] || set -- ext4-4096 ext4-1024 devfuse-4096 devfuse-1024 uring-4096 uring-1024

dir=$(mktemp -d "${FDIO_TMP:-/dev/shm}/fdio-pjd.XXXXXX") || exit 2
switch=/sys/module/fuse/parameters/enable_uring
before=$(cat "$switch" 2>/dev/null)
# shellcheck disable=SC2317,SC2329  # called by the trap
cleanup() {
	mountpoint -q "$dir/mnt" && umount -l "$dir/mnt"
	[ -z "$before" ] || echo "$before" >"$switch"
	[ "${FDIO_KEEP:-0}" = 1 ] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$dir/mnt" "$dir/bin"
# The suite asks df for the type of the file system, and skips checks on types it does not know.
# This df says ext4 for fusedio, so that all checks run.
printf '#!/bin/sh\n%s "$@" | sed "s/ fuse[^ ]* / ext4 /"\n' "$(command -v df)" >"$dir/bin/df"
chmod 755 "$dir/bin/df"
bad=0

tests() {
	# shellcheck disable=SC2086  # a list of words
	if [ -n "${PJD_TESTS:-}" ]; then
		(cd "$suite/tests" && printf "$suite/tests/%s\n" ${PJD_TESTS})
	else
		echo "$suite/tests"
	fi
}

# mount_it TRANSPORT-or-ext4 IMAGE
mount_it() {
	if [ "$1" = ext4 ]; then
		mount -t ext4 -o loop "$2" "$dir/mnt"
		return
	fi
	[ "$1" != uring ] || echo Y >"$switch" || return
	"$fusedio" -o "transport=$1${PJD_OPTS:+,$PJD_OPTS}" "$2" "$dir/mnt"
}

one() {
	local channel=${1%-*} bs=${1#*-} img="$dir/$1.img"
	truncate -s 512M "$img"
	mke2fs -q -F -t ext4 -b "$bs" "$img" || return 2
	if [ "$channel" = uring ] && [ -z "$before" ]; then
		echo "$1: skipped, the kernel has no FUSE over io_uring"
		return 0
	fi
	mount_it "$channel" "$img" || { echo "$1: cannot mount"; return 2; }
	chmod 755 "$dir" "$dir/mnt"
	# The scripts may run side by side: they choose random names.
	tests | (cd "$dir/mnt" && PATH="$dir/bin:$PATH" xargs prove -Q -r -j "${PJD_JOBS:-2}") \
		>"$dir/$1.out" 2>&1
	umount "$dir/mnt" || { sleep 1; umount "$dir/mnt"; } || return 2
	local i
	for i in $(seq 100); do # the daemon ends some time after umount
		pgrep -f "^$fusedio .*$img" >/dev/null || break
		[ "$i" -lt 100 ] || echo "$1: the daemon has not ended"
		sleep 0.1
	done
	echo "$1: $(grep -E '^Files=' "$dir/$1.out") $(grep -E '^Result:' "$dir/$1.out")"
	# The scripts with failing checks, and the numbers of these checks.
	sed -n '/^Test Summary Report/,/^Files=/p' "$dir/$1.out" |
		grep -E '^/|^  Failed test|^  Parse|^  Non-zero|^      ' |
		sed "s|$suite/tests/|    |" | tee "$dir/$1.failed"
	e2fsck -fn "$img" >"$dir/$1.fsck" 2>&1 ||
		{ echo "$1: e2fsck -fn:"; cat "$dir/$1.fsck"; return 1; }
}

for c; do
	one "$c" || bad=1
done
for c; do
	case $c in ext4-*) continue ;; esac
	[ -f "$dir/$c.failed" ] || continue
	peer=ext4-${c#*-}
	if [ ! -f "$dir/$peer.failed" ]; then
		[ -s "$dir/$c.failed" ] || continue
		echo "$c: checks fail; whether they do on ext4 is not known, as $peer was not run"
		bad=1
		continue
	fi
	if ! diff "$dir/$peer.failed" "$dir/$c.failed" >"$dir/diff"; then
		echo "$c differs from $peer (< $peer, > $c):"
		cat "$dir/diff"
		bad=1
	fi
done
[ $bad = 0 ] && echo "pjdfstest: no check fails that passes on ext4"
exit $bad
