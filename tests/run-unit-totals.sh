#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Adds up the unit tests of a `make check` that just ran in the build directory $1. libcheck ends
# the log of each program with a count of its checks; a program without that line counts as one test
# with the result that automake gave it. Before the totals it prints, for at most ten programs that
# failed, the failed checks and the last lines of the log.
set -u
cd "${1:-.}" || exit 2

failures() {
	find . -name '*.trs' -exec grep -lE '^:test-result: *(FAIL|ERROR|XPASS)' {} + |
		LC_ALL=C sort | head -n 10 | while read -r trs; do
			log=${trs%.trs}.log
			echo "-- ${log#./}: what failed, then its last lines"
			grep -aE ':[FE]:|ERROR: |runtime error:|WARNING: |Assertion' "$log" |
				head -n 25 | cut -c 1-400
			echo "--"
			tail -n 20 "$log" | cut -c 1-400
		done
}
failures
find . -name '*.trs' | LC_ALL=C sort | while read -r trs; do
	log=${trs%.trs}.log
	result=$(sed -n 's/^:test-result: *//p' "$trs" | head -n 1)
	line=$(grep -a 'Checks: [0-9]*, Failures: [0-9]*, Errors: [0-9]*' "$log" | tail -n 1)
	echo "${result:-ERROR} $line"
done | awk '
{
	if (match($0, /Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/)) {
		split(substr($0, RSTART, RLENGTH), a, /[:,] */)
		bad = a[4] + a[6]; good = a[2] - bad
		if (bad == 0 && $1 != "PASS") bad++
		p += good; f += bad
	} else if ($1 == "PASS" || $1 == "XFAIL") p++
	else if ($1 == "SKIP") s++
	else f++
}
END {
	printf "check: %d passed, %d failed, %d skipped\n", p, f, s
	if (ENVIRON["FDIO_TOTALS"] != "")
		printf "check %d %d %d\n", p, f, s >> ENVIRON["FDIO_TOTALS"]
	exit f > 0 || p == 0
}'
