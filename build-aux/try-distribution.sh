#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Tries fusedio on a Debian suite: a fresh minimal system of that suite gets the packages that
# README.md lists, a clone of HEAD is built there with warnings as errors, and the tests run.
# Prints one line "ok STEP", "not ok STEP: why" or "skip STEP: why" for each step, then "N passed,
# N failed, N skipped". The status is 0 if a step passed and none failed, 1 if one failed, 77 if
# nothing could be tried.
#
#   sudo build-aux/try-distribution.sh trixie           every step
#   sudo build-aux/try-distribution.sh sid check root   these, and those that they need
#
#   FDIO_DISTRIBUTION_CACHE   where the minimal systems stay (~/.cache/fusedio-distributions)
#   FDIO_DISTRIBUTION_LOGS    where the logs go (a new directory in the cache)
#   FDIO_DISTRIBUTION_MIRROR  Debian's mirror (http://deb.debian.org/debian)
#   FDIO_TIMEOUT_FACTOR       stretches the time limits
#
# The minimal system is made once, by debootstrap, and brought up to date when it is a day old. A
# run works on an overlay of it. Each step runs in a mount and process namespace of its own, which
# ends with everything in it however the step ends: no mount is ever made in the namespace of the
# caller. The kernel, /dev and /sys are the host's. Needs root, git, debootstrap and the network.
# shellcheck disable=SC2317,SC2329  # the steps are called by name, cleanup by the trap
set -eu
self=$(realpath "$0")
top=$(dirname "$(dirname "$self")")
cache=${FDIO_DISTRIBUTION_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fusedio-distributions}
mirror=${FDIO_DISTRIBUTION_MIRROR:-http://deb.debian.org/debian}

# ---- Inside of the system: a function for each step, in the order in which they run. A step fails
# with its function, and is skipped with status 77; its last line says why. The checkout is in /src.

# The command of README.md's section Install that begins with apt-get.
readme_command() {
	sed -n '/^## Install/,/^## [^I]/p' README.md | sed -n '/^ *apt-get install/,/[^\\]$/p'
}
step_install() {
	apt-get -q update
	command=$(readme_command)
	[ -n "$command" ] || { echo "README.md has no apt-get line"; return 1; }
	sh -euxc "$command"
}
step_build() {
	./autogen.sh
	configure_and_make build-readme --enable-werror
}
step_make_install() {
	[ -d build-readme ] || step_build
	make -C build-readme install
	fusedio -V
	[ -x /sbin/mount.fusedio ] || { echo "there is no /sbin/mount.fusedio"; return 1; }
}
step_quickstart() { ./quickstart; }
# What the tests need comes from packages.sh alone.
step_packages() { build-aux/packages.sh build run test; }
step_check() { make_in_build check; }
step_rooms() { make_in_build check-rooms; }
step_recursion() { make_in_build check-recursion; }
step_waits() { make_in_build check-waits; }
step_docs() {
	apt-get -q install shellcheck
	make_in_build check-docs
}
step_fuzz() { make_in_build FUZZ_SECONDS=20 check-fuzz; }
step_root() {
	if [ ! -e /dev/fuse ] || [ ! -e /dev/loop-control ]; then
		echo "the host has no /dev/fuse or no loop devices"
		return 77
	fi
	make_in_build root-tools
	REQUIRE_ROOT_TESTS=1 make_in_build check-root
}
# Other compilers and flags build everything, with warnings as errors. -std=gnu2x is C23 for old and
# new compilers.
step_clang() {
	apt-get -q install clang
	build_all clang CC=clang
	build_all clang-c23 CC='clang -std=gnu2x'
}
step_c23() { build_all c23 CC='gcc -std=gnu2x'; }
step_fortify() { build_all fortify CFLAGS='-g -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3'; }
step_debian_flags() {
	apt-get -q install dpkg-dev
	eval "$(DEB_BUILD_MAINT_OPTIONS=hardening=+all dpkg-buildflags --export=sh)"
	build_all debian-flags
}
step_lto() { build_all lto CFLAGS='-g -O3 -flto=auto' AR=gcc-ar RANLIB=gcc-ranlib; }
# Compilers for machines that configure refuses.
step_machines() {
	apt-get -q install gcc-s390x-linux-gnu gcc-arm-linux-gnueabihf
	[ -x configure ] || ./autogen.sh
	tests/unit/base/machines.sh
}
# Built for arm64, with the libraries of that machine: they take the place of the others, so this is
# the last step. The unit programs run in an emulator of the CPU; those that need more than that of
# the kernel skip.
step_arm64() {
	[ -x configure ] || ./autogen.sh
	dpkg --add-architecture arm64
	apt-get -q update
	# shellcheck disable=SC2046  # a list of words
	apt-get -q install gcc-aarch64-linux-gnu qemu-user check:arm64 \
		$(readme_command | grep -oE '(lib[a-z0-9-]+|comerr)-dev' | sed 's/$/:arm64/')
	export PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
	configure_and_make build-arm64 --enable-werror --host=aarch64-linux-gnu
	make -C build-arm64 -j"$jobs" check LOG_COMPILER=qemu-aarch64 CK_TIMEOUT_MULTIPLIER=10
}
STEPS='install build make_install quickstart packages check rooms recursion waits docs fuzz root'
STEPS="$STEPS clang c23 fortify debian_flags lto machines arm64"

# configure_and_make DIR ARGUMENT...: builds in DIR.
configure_and_make() {
	mkdir -p "$1"
	(cd "$1" && shift && ../configure --quiet "$@" && make -s -j"$jobs")
}
# make_in_build ARGUMENT...: make in the build directory of the tests, after it was made.
make_in_build() {
	[ -x configure ] || ./autogen.sh
	[ -f build/.tests ] || configure_and_make build --enable-werror
	touch build/.tests
	make -C build -j"$jobs" "$@"
}
# build_all NAME ARGUMENT...: builds in build-NAME, the tests too, and removes it.
build_all() {
	[ -x configure ] || ./autogen.sh
	name=$1
	shift
	configure_and_make "build-$name" --enable-werror "$@"
	make -s -k -C "build-$name" -j"$jobs" check TESTS=
	make -s -k -C "build-$name" -j"$jobs" root-tools
	rm -rf "build-$name"
}
inside() {
	cd /src
	jobs=$(nproc)
	"step_$1"
}

# ---- In the namespaces, before the system is entered: --enter ROOT RUN COMMAND... makes ROOT the
# root directory, with the directories of RUN (unless it is empty) as /src, /tmp and /var/tmp, and
# runs the command as the second process there.

# The kernel's switch for FUSE over io_uring is one for all: the tests that use it hold a lock in
# /tmp, here and in the host (RingOffer in tests/root/lib.py).
share_ring_lock() {
	for lock in fusedio-tests-ring.was fusedio-tests-ring.users; do
		touch "${TMPDIR:-/tmp}/$lock" "$root/tmp/$lock"
		mount --bind "${TMPDIR:-/tmp}/$lock" "$root/tmp/$lock"
	done
}
# The images of the tests are in /dev/shm. It ends with the namespace, but for those that a loop
# device holds: detach_loops knows them by the number of the file system.
own_shm() {
	mount -t tmpfs -o mode=1777 fusedio-try "$root/dev/shm"
	stat -c '%Hd:%Ld' "$root/dev/shm" >>"$run/shm"
}
enter() {
	root=$1 run=$2
	shift 2
	mount --make-rprivate /
	if [ -z "$run" ]; then
		mount --bind "$root" "$root"
	else
		mount -t overlay fusedio-try \
			-o "lowerdir=$root,upperdir=$run/upper,workdir=$run/work" "$run/root"
		root=$run/root
		mkdir -p "$root/src"
		mount --bind "$run/src" "$root/src"
		mount --bind "$run/tmp" "$root/tmp"
		mount --bind "$run/var-tmp" "$root/var/tmp"
		share_ring_lock
	fi
	mount --rbind /dev "$root/dev"
	[ -z "$run" ] || own_shm
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	cd "$root"
	# Not chroot alone: programs in a chroot can make no user namespaces.
	pivot_root . mnt
	cd /
	umount -l /mnt
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive http_proxy="${http_proxy:-}" \
		${FDIO_TIMEOUT_FACTOR:+FDIO_TIMEOUT_FACTOR="$FDIO_TIMEOUT_FACTOR"} \
		--default-signal=INT --default-signal=QUIT "$@"
}

# ---- Outside.

cannot() {
	echo "try-distribution: $*" >&2
	echo "0 passed, 0 failed, 1 skipped"
	exit 77
}
# contained COMMAND...: runs a command in a mount and process namespace. A signal kills its first
# process, and with it all others.
child=
contained() {
	unshare --mount --pid --fork --kill-child=KILL -- "$@" 9>&- </dev/null &
	child=$!
	rc=0
	wait $child || rc=$?
	child=
	return $rc
}
run=
# Loop devices belong to no namespace: those whose files are in a /dev/shm of this run, or in its
# directory, go.
detach_loops() {
	find "$run" -xdev -type f -printf '%i\n' >"$run/inodes"
	device=$(stat -c '%Hd:%Ld' "$run")
	losetup -n -O NAME,BACK-MAJ:MIN,BACK-INO | while read -r name dev ino; do
		if grep -qx "$dev" "$run/shm" ||
			{ [ "$dev" = "$device" ] && grep -qx "$ino" "$run/inodes"; }; then
			losetup -d "$name"
		fi
	done
	: >"$run/shm" # the kernel gives the number to another file system
}
cleanup() {
	trap '' INT TERM HUP
	if [ -n "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	[ -n "$run" ] || return 0
	detach_loops
	rm -rf --one-file-system "$run" ||
		{ sleep 2; rm -rf --one-file-system "$run"; }
}

# The minimal system: made under a lock; all runs that use it hold the lock together, and it is
# brought up to date when nobody else does.
make_base() {
	rm -rf --one-file-system "$base.new"
	contained debootstrap --variant=minbase "$suite" "$base.new" "$mirror" >"$logs/base" 2>&1 ||
		cannot "debootstrap failed: $(tail -n 1 "$logs/base") ($logs/base)"
	# The mirror may be a snapshot of an earlier day.
	printf '%s\n' 'APT::Get::Assume-Yes "true";' 'APT::Install-Recommends "false";' \
		'Acquire::Check-Valid-Until "false";' >"$base.new/etc/apt/apt.conf.d/fusedio"
	printf '#!/bin/sh\nexit 101\n' >"$base.new/usr/sbin/policy-rc.d"
	chmod +x "$base.new/usr/sbin/policy-rc.d"
	# As on every system that has booted; fusermount3 needs it.
	ln -sf ../proc/self/mounts "$base.new/etc/mtab"
	mv "$base.new" "$base"
	touch "$base.date"
}
update_base() {
	contained sh "$self" --enter "$base" '' sh -c 'apt-get -q update && apt-get -q upgrade &&
		apt-get -q clean' >"$logs/base" 2>&1 ||
		cannot "apt-get upgrade failed: $(tail -n 1 "$logs/base") ($logs/base)"
	touch "$base.date"
}
prepare_base() {
	mkdir -p "$cache"
	cache=$(realpath "$cache")
	base=$cache/$suite
	logs=${FDIO_DISTRIBUTION_LOGS:-$cache/logs/$suite-$(date +%Y%m%d-%H%M%S)-$$}
	mkdir -p "$logs"
	logs=$(realpath "$logs")
	exec 9>"$base.lock"
	if [ ! -d "$base" ]; then
		flock -x 9
		[ -d "$base" ] || make_base
	fi
	if [ -z "$(find "$base.date" -mtime -1)" ] && flock -n -x 9; then update_base; fi
	flock -s 9
}
# The directory of this run: the upper layer of its system, /src, /tmp and /var/tmp.
prepare_run() {
	run=$(mktemp -d "$cache/run.XXXXXX")
	chmod 755 "$run"
	mkdir "$run/upper" "$run/work" "$run/root" "$run/tmp" "$run/var-tmp"
	: >"$run/shm"
	chmod 1777 "$run/tmp" "$run/var-tmp"
	git clone -q "$top" "$run/src"
	cp "$self" "$run/src/.try"
	self=$run/src/.try
}

# why LOG: what a log says about a failure, in one line.
why() {
	reasons=$(sed -nE 's/^(FAIL:? |not ok )//p' "$1" | awk '!seen[$0]++' | head -n 8)
	[ -n "$reasons" ] || reasons=$(grep -E -m 1 '(error|Error|warning): |^E: ' "$1") ||
		reasons=$(grep . "$1" | tail -n 1)
	echo "$reasons" | tr '\n' ';' | sed 's/;$//; s/;/; /g' | cut -c 1-500
}
passed=0 failed=0 skipped=0
# try STEP: runs it, prints its line and returns its status.
try() {
	limit=$(awk -v f="${FDIO_TIMEOUT_FACTOR:-1}" 'BEGIN { printf "%d", 7200 * f }')
	rc=0
	contained sh "$self" --enter "$base" "$run" \
		timeout -k 30 "$limit" sh /src/.try --inside "$1" >"$logs/$1" 2>&1 || rc=$?
	detach_loops
	case $rc in
	0)
		echo "ok $1"
		passed=$((passed + 1)) ;;
	77)
		echo "skip $1: $(tail -n 1 "$logs/$1")"
		skipped=$((skipped + 1)) ;;
	124 | 137)
		echo "not ok $1: time limit: no end after $limit s"
		failed=$((failed + 1)) ;;
	*)
		echo "not ok $1: $(why "$logs/$1")"
		failed=$((failed + 1)) ;;
	esac
	return $rc
}
check_arguments() {
	[ $# -ge 1 ] || { echo "usage: $0 SUITE [STEP...]" >&2; exit 2; }
	shift
	for step; do
		case " $STEPS " in
		*" $step "*) ;;
		*) echo "$0: the steps are: $STEPS" >&2; exit 2 ;;
		esac
	done
}
check_host() {
	[ "$(id -u)" = 0 ] || cannot "needs root"
	for program in debootstrap git unshare pivot_root flock losetup; do
		command -v $program >/dev/null || cannot "$program is not installed"
	done
	git -C "$top" rev-parse -q --verify HEAD >/dev/null 2>&1 ||
		cannot "$top is no git checkout"
	[ -z "$(git -C "$top" status --porcelain -uno)" ] ||
		echo "try-distribution: what is not committed is not tried" >&2
}
# outside SUITE [STEP...]
outside() {
	check_arguments "$@"
	check_host
	suite=$1
	shift
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	prepare_base
	prepare_run
	# Nothing can be tried without install and packages.
	wanted=" ${*:-$STEPS} install packages "
	for step in $STEPS; do
		case $wanted in *" $step "*) ;; *) continue ;; esac
		try "$step" || case $step in install | packages) break ;; esac
	done
	echo "logs: $logs"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ] || exit 1
	[ $passed -gt 0 ] || exit 77
	exit 0
}

# The script may change while it runs: the shell has read all of it when it comes here.
case ${1:-} in
--inside) inside "$2" ;;
--enter)
	shift
	enter "$@" ;;
*) outside "$@" ;;
esac
exit
