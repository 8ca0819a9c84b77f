#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs the root tests: every tests/root/NN-*.py, or those whose name contains one of the arguments.
# Each script has a time limit of its own; a mount that a script leaves behind is a failure. Prints
# the output of the scripts, then the totals.
#
#   FDIO_BUILD           the build directory (default: the current one)
#   FUSEDIO              the daemon to test (default: $FDIO_BUILD/fusedio)
#   REQUIRE_ROOT_TESTS=1 missing root, /dev/fuse or loop devices is a failure, not a reason to skip
#   FDIO_TRANSPORT       auto, uring or devfuse: -o transport= of every mount, and the tests run
#                        once. Without it all run over /dev/fuse, then those that do I/O run again
#                        over io_uring, if the kernel offers that
#   FDIO_TOTALS          a file to which "check-root PASSED FAILED SKIPPED" is appended
#   FDIO_JOBS            how many scripts run at once (default 2)
#   FDIO_SCRIPT_TIMEOUT  the time limit of a script in seconds (default 900)
#   FDIO_TIMEOUT_FACTOR  stretches the time limit of the scripts and those of their cases
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${FDIO_BUILD:=$(pwd)}"
: "${FDIO_JOBS:=2}"
export FDIO_BUILD
export PYTHONDONTWRITEBYTECODE=1

if ! command -v python3 >/dev/null 2>&1; then
	echo "check-root: python3 is not installed" >&2
	[ "${REQUIRE_ROOT_TESTS:-0}" = 1 ] && exit 1
	echo "check-root: 0 passed, 0 failed, 1 skipped"
	exit 77
fi
out=$(mktemp -d "${TMPDIR:-/tmp}/fdio-root.XXXXXX") || exit 1
trap 'rm -rf "$out"' EXIT
trap 'exit 130' INT
# SIGTERM from outside: the scripts that have run by then are counted nevertheless.
ended=0
trap 'ended=1' TERM
export FDIO_RUN=".${out##*.}"

# Scripts that need not run over both transports: they test messages and options, names that the
# kernel serves from its cache, or both transports themselves.
once=' 00-mount 01-errors 07-names 09-bigdir 17-interop 18-transport 20-listing '

# scripts RUN [WORD...]: the scripts whose name contains a word, all without words; RUN is all, or
# second to leave out those of $once.
scripts() {
	run=$1
	shift
	for t in "$here"/root/[0-9]*.py; do
		name=$(basename "$t" .py)
		want=$([ $# -eq 0 ] && echo yes || echo no)
		for arg; do
			case $name in *"$arg"*) want=yes ;; esac
		done
		[ "$run" != second ] || case $once in *" $name "*) want=no ;; esac
		[ "$want" = no ] || printf '%s\n' "$t"
	done
}

# one SCRIPT OUT: runs a script under timeout, which makes a process group of it, so that the time
# limit ends everything it started.
cat >"$out/one" <<'EOF'
t=$1; out=$2; name=$(basename "$t" .py)${FDIO_TRANSPORT:+-$FDIO_TRANSPORT}
limit=$(awk -v s="${FDIO_SCRIPT_TIMEOUT:-900}" -v f="${FDIO_TIMEOUT_FACTOR:-1}" \
	'BEGIN { printf "%d", s * f }')
ended=0
: >"$out/$name.running"
timeout -k 30 "$limit" python3 "$t" >"$out/$name.out" 2>&1 &
# The time limit of the whole run sends SIGTERM here, but not to timeout's process group.
trap 'ended=1; kill $!' TERM
wait $!
rc=$?
[ $ended -eq 0 ] || wait $!
case $ended$rc in
	00 | 01 | 077) ;;
	0124 | 0137) echo "not ok $name: time limit: no end after $limit s" >>"$out/$name.out" ;;
	1*)
		echo "not ok $name: time limit of the whole run: ended before it was through" \
			>>"$out/$name.out" ;;
	*) echo "not ok $name: the script ended with status $rc" >>"$out/$name.out" ;;
esac
cat "$out/$name.out"
rm -f "$out/$name.running"
EOF
# run_scripts TRANSPORT RUN [WORD...]: see scripts for the rest.
run_scripts() {
	channel=$1
	shift
	[ $ended -eq 0 ] || return 0
	scripts "$@" | FDIO_TRANSPORT=$channel xargs -r -P "$FDIO_JOBS" -I '{}' \
		sh "$out/one" '{}' "$out"
}

switch=/sys/module/fuse/parameters/enable_uring
if [ -n "${FDIO_TRANSPORT:-}" ] || [ "$(id -u)" != 0 ]; then
	run_scripts "${FDIO_TRANSPORT:-}" all "$@"
else
	run_scripts devfuse all "$@"
	# The scripts switch io_uring on while they run.
	if [ -w "$switch" ]; then
		run_scripts uring second "$@"
	else
		echo "skip uring: this kernel has no FUSE over io_uring ($switch)" |
			tee "$out/uring.out"
	fi
fi

if [ $ended -eq 1 ]; then
	n=0
	while [ -n "$(find "$out" -name '*.running')" ] && [ $n -lt 60 ]; do
		n=$((n + 1))
		sleep 1
	done
	echo "not ok check-root: time limit: ended from outside before all scripts had run" |
		tee "$out/ended.out"
fi
left=$(grep -c " /[^ ]*/fdio-[^ /]*[.]${FDIO_RUN#.}[ /]" /proc/self/mounts)
[ "$left" -eq 0 ] || echo "not ok leftovers: $left mounts of the tests are still there" |
	tee "$out/leftovers.out"

passed=$(cat "$out"/*.out 2>/dev/null | grep -c '^ok ')
failed=$(cat "$out"/*.out 2>/dev/null | grep -c '^not ok ')
skipped=$(cat "$out"/*.out 2>/dev/null | grep -c '^skip ')
if [ "$failed" -gt 0 ]; then
	echo "check-root: what failed:"
	cat "$out"/*.out | grep '^not ok '
fi
echo "check-root: $passed passed, $failed failed, $skipped skipped"
[ -z "${FDIO_TOTALS:-}" ] || echo "check-root $passed $failed $skipped" >>"$FDIO_TOTALS"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] && exit 0
[ "$skipped" -gt 0 ] && exit 77
exit 1
