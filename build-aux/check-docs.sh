#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Compares the documents with the tree: files, targets, headings, identifiers and options that they
# name must exist, lines stay within 100 columns, scripts pass shellcheck, the tarball is complete.
# `make check-docs` calls this with the source and build directories. Each check is one test; a tool
# that is not installed makes its checks skip.
# shellcheck disable=SC2016  # backquotes in patterns are Markdown's
set -u
src=$(cd "${1:-.}" && pwd)
build=$(cd "${2:-.}" && pwd)
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "not ok $*"; }
skip() { skipped=$((skipped + 1)); echo "skip $*"; }
# check NAME COMMAND...: a test passes if the command succeeds and prints nothing; otherwise its
# output is the reason.
check() {
	name=$1
	shift
	if msg=$("$@" 2>&1) && [ -z "$msg" ]; then
		ok
	else
		bad "$name: $(echo "$msg" | head -n 5 | tr '\n' ';')"
	fi
}
cd "$src" || exit 2

# The README starts with the two commands, and they exist.
readme_commands() {
	head -n 40 README.md | grep -q 'sudo \./quickstart' ||
		echo "README.md does not name sudo ./quickstart near its top"
	head -n 40 README.md | grep -q 'sudo \./run-tests' ||
		echo "README.md does not name sudo ./run-tests near its top"
	for f in quickstart run-tests autogen.sh .ci/run; do
		[ -x $f ] || echo "$f is not executable"
	done
}
check readme-commands readme_commands

# Files and directories that a document names in `backquotes` exist.
named_files() {
	grep -oE '`[A-Za-z0-9_.+-]+/[A-Za-z0-9_./+*-]*`' "$1" | tr -d '\140' | LC_ALL=C sort -u |
		while read -r f; do
			case $f in
				src/* | tests/* | build-aux/* | bench/* | contrib/*) ;;
				doc/* | man/* | .ci/*) ;;
				*) continue ;;
			esac
			# shellcheck disable=SC2086  # a pattern
			ls -d $f >/dev/null 2>&1 || [ -e "$build/$f" ] ||
				echo "$1 names $f, which is not there"
		done
}
# Make targets named as `make NAME` exist.
named_targets() {
	grep -oE '`make [a-z-]+' "$1" | sed 's/.* //' | LC_ALL=C sort -u | while read -r t; do
		make -C "$build" -n "$t" >/dev/null 2>&1 ||
			echo "$1 names make $t, which is no target"
	done
}
# Links from one document to another lead to a file, and to a heading in it.
links() {
	python3 - "$@" <<'END'
import os, re, sys

def anchors(path):
    """The anchors of a document's headings: small letters, no punctuation, hyphens for blanks."""
    with open(path, encoding="utf-8") as f:
        heads = [x.lstrip("#").strip().lower() for x in f if x.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in heads}

for doc in sys.argv[1:]:
    with open(doc, encoding="utf-8") as f:
        text = f.read()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(doc), path)) if path else doc
        if not os.path.exists(path):
            print(f"{doc} links to {target}, which is not there")
        elif anchor and anchor not in anchors(path):
            print(f"{doc} links to {target}, but {path} has no such heading")
END
}
for d in README.md ARCHITECTURE.md HACKING.md SECURITY.md NEWS doc/*.md; do
	check "files-named-in-$d" named_files "$d"
	check "targets-named-in-$d" named_targets "$d"
	check "links-in-$d" links "$d"
done

# README and ARCHITECTURE are read from beginning to end, so they stay short.
at_most() {
	n=$(wc -l <"$1")
	[ "$n" -le "$2" ] || echo "$1 has $n lines, at most $2 are wanted"
}
check lines-of-README at_most README.md 200
check lines-of-ARCHITECTURE at_most ARCHITECTURE.md 250

# Lines of at most 100 columns, a tab being as wide as eight blanks.
narrow() {
	python3 - "$@" <<'END'
import sys

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            width = len(line.rstrip("\n").expandtabs(8))
            if width > 100:
                print(f"{path}:{n} has {width} columns")
END
}
check narrow-documents narrow ./*.md NEWS doc/*.md man/*.[1-8]
narrow_code() {
	find src tests build-aux bench contrib -type f ! -name '*.svg' ! -name '*.pyc' \
		! -path 'tests/fuzz/corpus/*' -exec grep -Iq . {} \; -print |
		LC_ALL=C sort >"$build/narrow.list"
	# shellcheck disable=SC2046  # file names without blanks
	narrow $(cat "$build/narrow.list") quickstart run-tests configure.ac Makefile.am .ci/run
	rm -f "$build/narrow.list"
}
check narrow-code narrow_code

# HACKING.md's table of promises must agree with the PROVES("TAG") marks of the unit tests. Both
# functions print lines of a tag and a test program.
promises_told() {
	sed -nE 's/^\| ([A-Z]+-[0-9]+) \|.*\|([^|]*)\|$/\1 \2/p' HACKING.md | tr -d '\140,' |
		awk '{ for (i = 2; i <= NF; i++) print $1, $i }' | LC_ALL=C sort -u
}
promises_kept() {
	grep -rE 'PROVES\("' tests/unit --include='*.c' |
		sed -nE 's/^tests\/unit\/([^:]*)\.c:.*PROVES\("([^"]*)"\).*$/\1 \2/p' |
		awk '{ for (i = 2; i <= NF; i++) print $i, $1 }' | LC_ALL=C sort -u
}
promises() {
	[ -n "$(promises_told)" ] || echo "HACKING.md has no table of promises"
	{ promises_told | sed 's/^/told /'; promises_kept | sed 's/^/kept /'; } |
		LC_ALL=C sort -k 2 |
		LC_ALL=C uniq -u -f 1 | while read -r side tag program; do
			case $side in
				told)
					echo "HACKING.md says $program proves $tag," \
						"but no test of it carries the tag" ;;
				kept)
					echo "a test of $program carries $tag," \
						"which HACKING.md does not say" ;;
			esac
		done
}
check promises promises

# ARCHITECTURE.md shows every room and every part of ext4.
rooms() {
	for d in src/*/; do
		grep -q "[ \`]${d}[ \`]" ARCHITECTURE.md || echo "ARCHITECTURE.md does not show $d"
	done
	for d in src/ext4/*/; do
		part=$(basename "$d")
		grep -q "\*$part\*" ARCHITECTURE.md ||
			echo "ARCHITECTURE.md does not name *$part* of ext4"
	done
}
check rooms rooms
# Identifiers, and file names without a folder, that these documents name are in the sources.
named_identifiers() {
	grep -oE '`[A-Za-z0-9]+_[A-Za-z0-9_]+`' "$1" | tr -d '\140' | LC_ALL=C sort -u |
		while read -r w; do
			grep -rqw -- "$w" src tests build-aux configure.ac ||
				echo "$1 names $w, which is not there"
		done
	grep -oE '`[a-z0-9_-]+\.(c|h|def|py|sh)`' "$1" | tr -d '\140' | LC_ALL=C sort -u |
		while read -r f; do
			find src tests build-aux -name "$f" -print -quit | grep -q . ||
				echo "$1 names $f, which is not there"
		done
}
for d in ARCHITECTURE.md HACKING.md SECURITY.md; do check "names-in-$d" named_identifiers $d; done
# ARCHITECTURE.md lists the lock ranks in the order of base/lock.h.
locks() {
	sed -n 's/^[ \t]*\(RANK_[A-Z0-9_]*\).*/\1/p' src/base/lock.h |
		grep -v RANK_NONE >"$build/locks.want"
	grep -oE '`RANK_[A-Z0-9_]+`' ARCHITECTURE.md | tr -d '\140' |
		awk '!seen[$0]++' >"$build/locks.got"
	cmp -s "$build/locks.want" "$build/locks.got" || diff "$build/locks.want" "$build/locks.got"
	rm -f "$build/locks.want" "$build/locks.got"
}
check lock-order locks

# options.def, --help and the manual page name the same options.
table_options() {
	sed -n 's/^[A-Z]*("\([^"]*\)".*/\1/p' src/command/options.def | LC_ALL=C sort -u
}
options_in_manual() {
	table_options | while read -r o; do
		grep -qE "^\.It Cm $(printf '%s' "$o" | sed 's/[*.]/\\&/g')( |\$)" man/fusedio.8 ||
			echo "man/fusedio.8 does not explain $o"
	done
}
options_in_help() {
	"$build/fusedio" --help >"$build/help.out" 2>&1
	sed -n 's/^\(FLAG\|NUM\|ENUM\|STR\)("\([^"]*\)".*/\2/p' src/command/options.def |
		while read -r o; do
			grep -qE "(^|[^a-z_])$o([^a-z_]|\$)" "$build/help.out" ||
				echo "--help does not list $o"
		done
	rm -f "$build/help.out"
}
manual_in_table() {
	sed -n '/^\.Sh MOUNT OPTIONS/,/^\.Sh DURABILITY/s/^\.It Cm \([^ ]*\).*/\1/p' man/fusedio.8 |
		while read -r o; do
			table_options | grep -qxF -- "$o" ||
				echo "man/fusedio.8 explains $o, which is no option"
		done
}
check options-in-manual options_in_manual
check options-in-help options_in_help
check manual-in-options manual_in_table
for page in man/*.[1-8]; do
	[ -f "$page" ] || continue
	if command -v mandoc >/dev/null 2>&1; then
		check "mandoc-$page" mandoc -Tlint -Wwarning "$page"
	else
		skip "mandoc-$page: mandoc is not installed"
	fi
done

# SECURITY.md gives the exposure that systemd-analyze computes for the unit. Each version of systemd
# rates differently, so the check runs only with the version that SECURITY.md names.
unit_exposure() {
	f=$build/exposure-fusedio@.service
	cp "$build/contrib/systemd/fusedio@.service" "$f" || return
	systemd-analyze security --offline=true --no-pager \
		--threshold="$(echo "$1" | tr -d .)" "$f" >"$build/exposure.out" 2>&1 ||
		{ grep Overall "$build/exposure.out" || cat "$build/exposure.out"; }
	rm -f "$f" "$build/exposure.out"
}
rating='s/.*systemd-analyze security`.* ([0-9]*) rates the unit ([0-9]*\.[0-9]).*/\1 \2/p'
rated=$(sed -nE "$rating" SECURITY.md)
here=$(systemd-analyze --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
if [ -z "$rated" ]; then
	bad "unit-exposure: SECURITY.md does not tell how systemd rates the unit"
elif [ "$here" = "${rated% *}" ]; then
	check unit-exposure unit_exposure "${rated#* }"
else
	skip "unit-exposure: systemd-analyze is ${here:-not installed}," \
		"SECURITY.md speaks of ${rated% *}"
fi

# Shell scripts pass sh -n and shellcheck; Python files parse.
for f in quickstart run-tests autogen.sh .ci/run build-aux/*.sh tests/*.sh tests/*/*.sh \
	bench/*.sh contrib/*.sh; do
	[ -f "$f" ] || continue
	check "syntax-$f" sh -n "$f"
	if command -v shellcheck >/dev/null 2>&1; then check "shellcheck-$f" shellcheck "$f"; fi
done
for f in tests/*/*.py bench/run-bench bench/*.py; do
	[ -f "$f" ] || continue
	check "syntax-$f" python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$f"
done
# The bench's own tests print nothing when they pass.
bench_self_test() {
	out=$(python3 bench/run-bench --self-test 2>&1) || printf '%s\n' "$out" | tail -n 8
}
check bench-self-test bench_self_test
# Without apt-get packages.sh says what to do; until then it calls no program.
packages_without_apt() {
	PATH=/nonexistent build-aux/packages.sh build 2>&1 | grep -q 'README.md.*NO_INSTALL=1' ||
		echo "packages.sh does not say what to do without apt-get"
}
check packages-without-apt packages_without_apt
# Every file in git is in the tarball.
tarball() {
	make -s -C "$build" -n distdir >/dev/null 2>&1 ||
		{ echo "make distdir does not work"; return; }
	make -s -C "$build" list-dist | tr ' ' '\n' | sed -e "s|^$src/||" -e 's|^\(\.\.*/\)*||' |
		LC_ALL=C sort -u >"$build/dist.list"
	git ls-files | while read -r f; do
		case $f in .git* | */.gitignore | configure.ac | Makefile.am) continue ;; esac
		grep -qxF "$f" "$build/dist.list" || echo "$f is not in the tarball"
	done
	rm -f "$build/dist.list"
}
if [ -e .git ] && git rev-parse HEAD >/dev/null 2>&1; then check tarball tarball; fi

echo "check-docs: $passed passed, $failed failed, $skipped skipped"
[ -z "${FDIO_TOTALS:-}" ] || echo "check-docs $passed $failed $skipped" >>"$FDIO_TOTALS"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
