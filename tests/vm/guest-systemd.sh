#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck source=/dev/null
#
# The checks of the unit. Runs as a service of the guest's systemd, in the mount namespace of all
# processes; fusedio@srv-db was started at boot.
. /vm/lib.sh
a=$(drive 1)
unit=fusedio@srv-db
echo 1 >/run/vm-rc

show() { systemctl show -p "$2" --value "$1"; }
mounted() { grep -q " $1 fuse" /proc/self/mounts; }
of_daemon() { sed -n "s/^$1:[^0-9a-f]*//p" "/proc/$(show $unit MainPID)/status"; }
namespace_of() { readlink "/proc/$1/ns/mnt"; }
same_space() { [ "$(namespace_of "$(show $unit MainPID)")" = "$(namespace_of 1)" ]; }
is_inactive() { [ "$(show "$1" ActiveState)" = inactive ]; }
is_failed() { [ "$(show "$1" ActiveState)" = failed ]; }
has_status() { [ "$(show "$2" ExecMainStatus)" = "$1" ]; }
is_new() {
	[ "$(show $unit ActiveState)" = active ] && [ "$(show $unit MainPID)" != "$1" ] &&
		mounted /srv/db
}

say "SYSTEMD $(systemctl --version | head -n 1)"
want active "the unit is active after the boot" show $unit ActiveState
works "its mount is there for others" mounted /srv/db
works "it has the name space of everybody" same_space
want 2 "the daemon has a filter of system calls" of_daemon Seccomp
want 0000000000000000 "the daemon has no capability" of_daemon CapEff
dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null
works "direct writing" dd if=/tmp/data of=/srv/db/data bs=256k oflag=direct conv=fsync
works "what was written is there" cmp /tmp/data /srv/db/data

works "stop" systemctl stop $unit
want inactive "the unit is inactive" show $unit ActiveState
want success "it ended well" show $unit Result
fails "the mount is gone" mounted /srv/db
works "the daemons are gone" until_true 20 no_daemon
works "e2fsck" e2fsck -fn "$a"

works "start" systemctl start $unit
want active "the unit is active again" show $unit ActiveState
works "the mount is there as soon as start returns" mounted /srv/db
works "what was written is still there" cmp /tmp/data /srv/db/data
works "umount by hand" umount /srv/db
works "the unit ends with it" until_true 4 is_inactive $unit
want success "and well" show $unit Result
works "start once more" systemctl start $unit

# systemctl takes seconds in an emulated machine: until_true counts its calls, ten for a second.
old=$(show $unit MainPID)
kill -9 "$old"
works "a daemon that was killed is started again" until_true 4 is_new "$old"
works "and serves" cmp /tmp/data /srv/db/data

fails "start on a device without a file system" systemctl start fusedio@srv-bad
works "is tried again and given up" until_true 6 is_failed fusedio@srv-bad
want 32 "with the status of mount" show fusedio@srv-bad ExecMainStatus
fails "no mount is left" mounted /srv/bad
fails "start on a device that is not there" systemctl start fusedio@srv-gone
# ExecMainStatus is reset when systemd tries again.
works "with the status of mount as well" until_true 6 has_status 32 fusedio@srv-gone
works "trying ends when told so" systemctl stop fusedio@srv-gone

works "a service that uses the mount" systemctl start user.service
# Switching off ends this script too, so the exit status is stored before.
echo 0 >/run/vm-rc
systemctl --no-block poweroff
