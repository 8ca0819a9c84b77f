#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# FDIO_ASSERT may be compiled out, so its condition must have no effect: no assignment, no ++ or --,
# and no call except of the functions listed below, which change nothing. A call that must be made
# and must succeed belongs in FDIO_MUST. The check reads text only: it does not see an effect that a
# macro hides. Each file is one test. `make check-rooms` calls this with the source directory.
set -u
src=${1:-.}
[ -d "$src/src/base" ] || { echo "check-asserts: no source tree at $src" >&2; exit 2; }

pure="sizeof ARRAY_SIZE __atomic_load_n list_empty nowait_on nowait_missed rank_may_repeat
	ends_in_place JOURNAL_MUTATED journal_log_blocks_needed journal_transaction_is_empty
	ext4_extent_limit ext4_extent_node_max ext4_window_end"

find "$src/src" "$src/tests" -type f \( -name '*.c' -o -name '*.h' \) | LC_ALL=C sort |
	awk -v top="$src/" -v pure="$pure" '
# The text between the parentheses that open before position i, without strings.
function argument(text, i,    depth, c, out) {
	for (depth = 1; i <= length(text); i++) {
		c = substr(text, i, 1)
		if (c == "\"") {
			for (i++; i <= length(text) && substr(text, i, 1) != "\""; i++)
				if (substr(text, i, 1) == "\\") i++
			continue
		}
		depth += (c == "(") - (c == ")")
		if (!depth) break
		out = out c
	}
	return out
}
function bad(msg) {
	printf "not ok %s:%d: FDIO_ASSERT(%s): %s\n", substr(file, length(top) + 1), line, arg, msg
	wrong = 1
}
function check(arg,    rest, word) {
	rest = arg
	gsub(/[=!<>]=/, "~", rest)
	if (rest ~ /=|\+\+|--/) bad("changes something; use FDIO_MUST")
	while (match(rest, /[A-Za-z_][A-Za-z_0-9]*[ \t]*\(/)) {
		word = substr(rest, RSTART, RLENGTH - 1)
		sub(/[ \t]+$/, "", word)
		if (!(word in is_pure))
			bad("calls " word "; use FDIO_MUST, or list it in" \
			    " build-aux/check-asserts.sh if it only looks")
		rest = substr(rest, RSTART + RLENGTH)
	}
}
BEGIN { n = split(pure, a, /[ \t\n]+/); for (i = 1; i <= n; i++) is_pure[a[i]] = 1 }
{
	file = $0; wrong = 0; text = ""; starts = 0
	for (line = 1; (getline row < file) > 0; line++) {
		if (row ~ /^#[ \t]*define FDIO_ASSERT/) continue
		if (text == "") starts = line
		if (text == "" && row !~ /(^|[^A-Za-z_0-9])FDIO_ASSERT\(/) continue
		text = text row "\n"
		# The longest expression is a few lines.
		if (row !~ /;|\\$/) continue
		here = line; line = starts
		while (match(text, /(^|[^A-Za-z_0-9])FDIO_ASSERT\(/)) {
			text = substr(text, RSTART + RLENGTH)
			check(arg = argument(text, 1))
		}
		line = here; text = ""
	}
	close(file)
	if (wrong) failed++; else passed++
}
END {
	printf "check-asserts: %d passed, %d failed, 0 skipped\n", passed, failed
	if (ENVIRON["FDIO_TOTALS"] != "")
		printf "check-asserts %d %d 0\n", passed, failed >> ENVIRON["FDIO_TOTALS"]
	exit failed > 0 || passed == 0
}'
