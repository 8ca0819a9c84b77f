#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Functions of the guest's scripts: checks that report on the second serial line, drives by number,
# mounts.
say() { echo "$*" >/dev/ttyS1; }

# word NAME: VALUE, if the kernel's command line has NAME=VALUE.
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }

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

# serve DEVICE DIRECTORY [OPTION...]: mounts; succeeds if the mount is there afterwards. That it is
# not over the channel that is tested counts as a failed check.
serve() {
	dev=$1 dir=$2
	shift 2
	mkdir -p "$dir"
	mounts=$(over_channel)
	limited 60 fusedio "$dev" "$dir" "$@" && grep -q " $dir fuse" /proc/mounts || return
	until_true 10 has_more_mounts "$mounts" ||
		say "not ok the daemon says that $dir is served over $channel ::" \
			"$(grep -E "$any_channel" /tmp/syslog | tail -n 1)"
}

# What the daemon logs at each mount, and where it falls back to /dev/fuse later.
case $(word channel) in uring) channel=io_uring ;; *) channel=/dev/fuse ;; esac
any_channel="FUSE 7[.][0-9]+ over |going on over "
over_channel() { grep -cE "FUSE 7[.][0-9]+ over $channel, " /tmp/syslog; }
has_more_mounts() { [ "$(over_channel)" -gt "$1" ]; }

# seconds N: a time limit, multiplied by the host's FDIO_TIMEOUT_FACTOR.
seconds() { echo $(($1 * $(word factor) / 100)); }
# limited SECONDS COMMAND...: ends the command at the time limit.
limited() {
	limit=$(seconds "$1")
	shift
	timeout "$limit" "$@"
	status=$?
	[ $status != 143 ] || echo "time limit: no end after $limit s"
	return $status
}
# until_true SECONDS COMMAND...: repeats the command until it succeeds. Counts ten calls for a
# second.
until_true() {
	limit=$(seconds "$1")
	left=$((limit * 10))
	shift
	until "$@"; do
		left=$((left - 1))
		[ $left -gt 0 ] || { echo "time limit: not within $limit s"; return 1; }
		sleep 0.1
	done
}
no_daemon() { ! pidof fusedio >/dev/null; }
no_device() { [ ! -e "$1" ]; }
no_load() { ! pidof vmio >/dev/null; }
