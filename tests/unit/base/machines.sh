#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# configure refuses the machines on which fusedio would damage file systems or cannot work: those
# with 32-bit pointers and the big-endian ones. It asks the compiler alone, so no libraries of the
# other machine are needed. Skips what no compiler here can build for.
set -eu
src=$(cd "${srcdir:-.}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/fdio-machines.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
echo 'int main(void) { return 0; }' >main.c
failed=0 tried=0

# refuses TEXT HOST COMPILER...: configure for HOST says TEXT and fails.
refuses() {
	text=$1 host=$2
	shift 2
	if ! "$@" -nostdlib -o main main.c >log 2>&1; then
		echo "not tried: $* makes no programs here"
		return
	fi
	tried=$((tried + 1))
	if "$src/configure" --host="$host" CC="$*" CFLAGS= LDFLAGS=-nostdlib >log 2>&1; then
		echo "configure accepts $host"
		failed=1
	elif ! grep -qF "configure: error: fusedio does not run on $text machines" log; then
		echo "configure does not say why it refuses $host:"
		tail -n 3 log
		failed=1
	fi
}
refuses 32-bit i686-pc-linux-gnu gcc -m32
refuses 32-bit x86_64-pc-linux-gnux32 gcc -mx32
refuses 32-bit arm-unknown-linux-gnueabihf arm-linux-gnueabihf-gcc
refuses big-endian s390x-ibm-linux-gnu s390x-linux-gnu-gcc
refuses big-endian powerpc64-unknown-linux-gnu powerpc64-linux-gnu-gcc
[ $tried -gt 0 ] || exit 77
exit $failed
