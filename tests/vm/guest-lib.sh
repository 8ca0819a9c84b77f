#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Functions of the guest's scripts: checks that report on the second serial line, drives by number,
# mounts.
say() { echo "$*" >/dev/ttyS1; }

# drive N: the device of namespace N. The names of devices need not have that number.
drive() {
	for d in /sys/block/nvme*; do
		[ "$(cat "$d/nsid" 2>/dev/null)" != "$1" ] || { echo "/dev/${d##*/}"; return; }
	done
	echo "/no-namespace-$1"
}

# want RESULT WHAT COMMAND...: passes if the last line that the command prints matches RESULT (a
# pattern).
want() {
	expected=$1 what=$2
	shift 2
	got=$("$@" 2>/tmp/stderr | tail -n 1)
	# shellcheck disable=SC2254  # a pattern
	case $got in
		$expected) say "ok $what" ;;
		*)
			say "not ok $what :: got '$got', want '$expected'" \
				"$(tail -n 2 /tmp/stderr | tr '\n' ' ')" ;;
	esac
}

# works WHAT COMMAND..., fails WHAT COMMAND...: passes if the command succeeds, or fails.
works() {
	what=$1
	shift
	if "$@" >/tmp/stdout 2>&1; then
		say "ok $what"
	else
		say "not ok $what :: status $? $(tail -n 3 /tmp/stdout | tr '\n' ' ')"
	fi
}
fails() {
	what=$1
	shift
	if "$@" >/tmp/stdout 2>&1; then say "not ok $what :: succeeded"; else say "ok $what"; fi
}

# serve DEVICE DIRECTORY [OPTION...]: mounts; succeeds if the mount is there afterwards.
serve() {
	dev=$1 dir=$2
	shift 2
	mkdir -p "$dir"
	timeout 60 fusedio "$dev" "$dir" "$@" && grep -q " $dir fuse" /proc/mounts
}

# until_true SECONDS COMMAND...: repeats the command until it succeeds.
until_true() {
	left=$(($1 * 10))
	shift
	until "$@"; do
		left=$((left - 1))
		[ $left -gt 0 ] || return 1
		sleep 0.1
	done
}
no_daemon() { ! pidof fusedio >/dev/null; }
no_device() { [ ! -e "$1" ]; }
no_load() { ! pidof vmio >/dev/null; }
