#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The scripts around the tests, with fake programs first in PATH: build-aux/packages.sh while
# another apt-get has its locks; tests/run-root.sh when a script, or the whole run, takes too long.
set -eu
src=$(cd "${srcdir:-.}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/fdio-scripts.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0
bad() {
	echo "$*"
	failed=1
}
expect() { # FILE TEXT: a line of the file has it
	if ! grep -qF "$2" "$1"; then
		bad "no line with '$2' in:"
		sed 's/^/    /' "$1"
	fi
}

# ---- packages.sh
mkdir "$work/bin"
cat >"$work/bin/apt-get" <<'END'
#!/bin/sh
n=$(cat "$STATE" 2>/dev/null || echo 0)
echo $((n + 1)) >"$STATE"
case $n in
	0)
		echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1" >&2
		exit 100 ;;
	2)
		echo "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)" >&2
		exit 100 ;;
esac
[ "$n" -lt "${BROKEN_FROM:-99}" ] || { echo "E: Unable to locate package" >&2; exit 100; }
echo "apt-get was called: $*"
END
printf '#!/bin/sh\nexit 1\n' >"$work/bin/dpkg-query"
printf '#!/bin/sh\necho 0\n' >"$work/bin/id"
chmod +x "$work/bin/apt-get" "$work/bin/dpkg-query" "$work/bin/id"
packages() {
	PATH="$work/bin:$PATH" STATE="$work/state" PACKAGES_WAIT=0 \
		sh "$src/build-aux/packages.sh" run >"$work/out" 2>&1
}
packages || bad "packages.sh: status $?"
expect "$work/out" "waiting for it"
expect "$work/out" " install -y --no-install-recommends fuse3"
rm "$work/state"
export BROKEN_FROM=1
if packages; then bad "packages.sh: another error passed"; fi
expect "$work/out" "Unable to locate package"

# ---- run-root.sh
command -v python3 >/dev/null 2>&1 || exit $failed
mkdir -p "$work/t/root"
cp "$src/tests/run-root.sh" "$work/t/"
echo 'print("ok 00-good/case (0.0 s)")' >"$work/t/root/00-good.py"
cat >"$work/t/root/01-slow.py" <<END
import time
print("ok 01-slow/first (0.0 s)", flush=True)
open("$work/slow-has-begun", "w").close()
time.sleep(300)
END
export FDIO_BUILD="$work" FDIO_TRANSPORT=devfuse FDIO_TOTALS="$work/totals" FDIO_JOBS=1 \
	FDIO_TIMEOUT_FACTOR=1
if FDIO_SCRIPT_TIMEOUT=2 sh "$work/t/run-root.sh" >"$work/out" 2>&1; then
	bad "run-root.sh: a script over its time passed"
fi
expect "$work/out" "not ok 01-slow-devfuse: time limit"
expect "$work/out" "check-root: 2 passed, 1 failed, 0 skipped"
rm "$work/totals"
# Ended from outside once the first script is through and the second has begun.
rm -f "$work/slow-has-begun"
timeout 250 sh "$work/t/run-root.sh" >"$work/out" 2>&1 &
n=0
until [ -e "$work/slow-has-begun" ] || [ $n -gt 600 ]; do
	n=$((n + 1))
	sleep 0.1
done
kill $! # timeout hands it to all of its group
wait $! || true
expect "$work/out" "not ok check-root: time limit"
expect "$work/totals" "check-root 2 2 0"
exit $failed
