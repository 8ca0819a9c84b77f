#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The rooms of src/ form a list; a room includes only headers of its own and of the rooms below it. This checks each
# #include "..." of each file in src/, and three rules beside: the file system library's headers are included by the
# ext4 room only, a header named types.h or *_types.h only inside its own room, and every directory in src/ is a room.
# Each file is one test. Called by `make check-rooms` with the source directory.
set -u
src=${1:-.}
[ -f "$src/src/command/main.c" ] || { echo "check-rooms: no source tree at $src" >&2; exit 2; }

# The order, from the top down. Rooms joined by a comma stand side by
# side: none of them includes another. tools stand outside: they use what the rooms publish (message
# and base) and nothing more. Only ops and command look at transport.
order="command ops dio ext4 journal transport,dev loop message base"

find "$src/src" -type f \( -name '*.c' -o -name '*.h' \) | LC_ALL=C sort | awk -v top="$src/src/" -v order="$order" '
function room_of(path) { sub(/\/.*/, "", path); return path }
function bad(msg) { printf "not ok %s:%d: %s\n", rel, n, msg; wrong = 1 }
BEGIN {
	nr_rooms = split(order, a, " ")
	for (i = 1; i <= nr_rooms; i++) {
		nr_side = split(a[i], side, ",")
		for (j = 1; j <= nr_side; j++) depth[side[j]] = i
	}
	depth["tools"] = depth["loop"]
}
{
	file = $0; rel = substr(file, length(top) + 1); mine = room_of(rel); n = 0; wrong = 0
	if (!(mine in depth)) bad("src/" mine " is not a room")
	while ((getline line < file) > 0) {
		n++
		if (line !~ /^[ \t]*#[ \t]*include/) continue
		if (line ~ /<(ext2fs|et)\// && mine != "ext4") bad("only src/ext4 includes " line)
		if (line !~ /"/) continue
		inc = line; sub(/^[^"]*"/, "", inc); sub(/".*/, "", inc)
		if (inc == "config.h") continue
		if (inc !~ /\//) { bad("name the room: #include \"" inc "\""); continue }
		theirs = room_of(inc)
		if (!(theirs in depth)) bad("\"" inc "\" is in no room")
		else if (depth[theirs] < depth[mine]) bad(mine " may not include \"" inc "\": " theirs " is above it")
		else if (depth[theirs] == depth[mine] && theirs != mine) bad(mine " may not include \"" inc "\": " theirs " is beside it")
		else if (theirs == "transport" && mine !~ /^(command|ops|transport)$/) bad(mine " may not include \"" inc "\"")
		if (inc ~ /[_\/]types\.h$/ && theirs != mine) bad("\"" inc "\" is private to " theirs)
	}
	close(file)
	if (wrong) failed++; else passed++
}
END {
	printf "check-rooms: %d passed, %d failed, 0 skipped\n", passed, failed
	if (ENVIRON["FDIO_TOTALS"] != "") printf "check-rooms %d %d 0\n", passed, failed >> ENVIRON["FDIO_TOTALS"]
	exit failed > 0 || passed == 0
}'
