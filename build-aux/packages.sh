#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs, on Debian, the packages that the named purposes need: build, run, test, vm, bench. Does
# nothing when all of them are installed. Needs root otherwise.
#   build-aux/packages.sh build run
set -eu
list=
for purpose; do
	case $purpose in
		build)
			list="$list gcc make autoconf automake pkg-config libc6-dev"
			list="$list libfuse3-dev liburing-dev libext2fs-dev comerr-dev libblkid-dev"
			list="$list libseccomp-dev libcap-ng-dev"
			;;
		run) list="$list fuse3 e2fsprogs fio mount util-linux" ;;
		test)
			list="$list check python3 git rsync sqlite3 attr acl tar xz-utils"
			list="$list mandoc procps psmisc"
			;;
		vm)
			list="$list qemu-system-x86 qemu-utils e2fsprogs fio python3 libc-bin dpkg"
			[ -x /lib/systemd/systemd ] || list="$list systemd"
			command -v busybox >/dev/null || list="$list busybox-static"
			;;
		bench) list="$list gcc python3 fuse2fs xfsprogs qemu-system-common tar" ;;
		*) echo "packages: unknown purpose $purpose" >&2; exit 2 ;;
	esac
done
if ! command -v apt-get >/dev/null; then
	echo "packages: there is no apt-get here. Install what README.md lists under Install and," \
		"by your system's names, what Debian calls$list; then run this again with" \
		"NO_INSTALL=1" >&2
	exit 1
fi
missing=
for p in $list; do
	# shellcheck disable=SC2016  # dpkg-query expands it
	case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true) in
		*" installed") ;;
		*) case $missing" " in *" $p "*) ;; *) missing="$missing $p" ;; esac ;;
	esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "these packages are missing, and only root can install them:$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# Runs apt-get. If another apt-get holds the locks (unattended-upgrades, another run of the tests),
# tries again for ten minutes or so.
apt() {
	n=0
	until LC_ALL=C apt-get -q -o DPkg::Lock::Timeout=60 "$@" >"$said" 2>&1; do
		if ! grep -Eq 'Could not get lock|Unable to (acquire|lock) ' "$said" ||
			[ $n -ge 120 ]; then
			cat "$said" >&2
			return 1
		fi
		[ $n -gt 0 ] || echo "another apt-get is running: waiting for it"
		n=$((n + 1))
		sleep "${PACKAGES_WAIT:-5}"
	done
	cat "$said"
}
apt update
# shellcheck disable=SC2086  # a list of words
apt install -y --no-install-recommends $missing
