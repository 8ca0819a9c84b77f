#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Checks the order of the rooms. The directories of src/ form a list, and a room includes headers of
# its own and of rooms below it only. Further rules for each #include "..." in src/:
#   - Only ext4 includes the headers of libext2fs.
#   - A header named types.h or *_types.h is private to its room.
#   - Other rooms include only journal/journal.h of journal, and only ext4/ext4.h of ext4.
#   - Only command and ops include headers of transport.
#
# The directories of src/ext4 are rooms with an order of their own. To the other rooms of ext4, a
# room publishes ROOM.h and ROOM_*.h; its other headers are private. core/structs.h composes struct
# ext4_vol and struct ext4_inode of one part per room, whose type is in the room's *_state.h. No
# other file includes these headers, and only src/ext4/alloc may touch the part "->alloc.", and so
# on for each room.
#
# Each file is one test. `make check-rooms` calls this with the source directory.
set -u
src=${1:-.}
[ -f "$src/src/command/main.c" ] || { echo "check-rooms: no source tree at $src" >&2; exit 2; }

# The order, from the top down. Rooms joined by a comma are on one level: neither includes the
# other. tools is outside of the order: it may include message and base only.
order="command ops dio ext4 journal transport,dev loop message base"

# Inside ext4, from the top down.
inner="volume dir life xattr data inode alloc core"

find "$src/src" -type f \( -name '*.c' -o -name '*.h' \) | LC_ALL=C sort |
	awk -v top="$src/src/" -v order="$order" -v inner="$inner" '
function room_of(path) { sub(/\/.*/, "", path); return path }
function bad(msg) { printf "not ok %s:%d: %s\n", rel, n, msg; wrong = 1 }
function inner_of(path) {
	sub(/^ext4\//, "", path)
	if (path !~ /\//) return ""
	return room_of(path)
}
function state_header(path) { return path ~ /_state\.h$/ }
# An include of ext4 from a file of it.
function check_inner(inc,   i, t) {
	i = inner_of(rel); t = inner_of(inc)
	if (rel == "ext4/ext4.h") return
	if (!(i in inside)) bad("src/ext4/" i " is not a room")
	else if (!(t in inside)) bad("\"" inc "\" is in no room of ext4")
	else if (state_header(inc) && rel != "ext4/core/structs.h")
		bad("\"" inc "\" is for ext4/core/structs.h only")
	else if (inside[t] < inside[i] && !state_header(inc))
		bad(i " may not include \"" inc "\": " t " is above it")
	else if (t != i && inc !~ ("^ext4/" t "/" t "(_[a-z]+)?\\.h$") && t != "core" &&
	    !state_header(inc))
		bad("\"" inc "\" is private to " t)
}
# A part of the state is touched by its own room only.
function check_parts(line,   i, p) {
	i = inner_of(rel)
	gsub(/"[^"]*"/, "", line)
	for (p in inside) if (p != i && line ~ ("->" p "\\."))
		bad("the state of " p " is private to it")
}
BEGIN {
	nr_rooms = split(order, a, " ")
	for (i = 1; i <= nr_rooms; i++) {
		nr_side = split(a[i], side, ",")
		for (j = 1; j <= nr_side; j++) depth[side[j]] = i
	}
	depth["tools"] = depth["loop"]
	nr_inner = split(inner, b, " ")
	for (i = 1; i <= nr_inner; i++) inside[b[i]] = i
}
{
	file = $0; rel = substr(file, length(top) + 1); mine = room_of(rel); n = 0; wrong = 0
	if (!(mine in depth)) bad("src/" mine " is not a room")
	while ((getline line < file) > 0) {
		n++
		if (mine == "ext4") check_parts(line)
		if (line !~ /^[ \t]*#[ \t]*include/) continue
		if (line ~ /<(ext2fs|et)\// && mine != "ext4") bad("only src/ext4 includes " line)
		if (line !~ /"/) continue
		inc = line; sub(/^[^"]*"/, "", inc); sub(/".*/, "", inc)
		if (inc == "config.h") continue
		if (inc !~ /\//) { bad("name the room: #include \"" inc "\""); continue }
		theirs = room_of(inc)
		if (!(theirs in depth)) bad("\"" inc "\" is in no room")
		else if (depth[theirs] < depth[mine])
			bad(mine " may not include \"" inc "\": " theirs " is above it")
		else if (depth[theirs] == depth[mine] && theirs != mine)
			bad(mine " may not include \"" inc "\": " theirs " is beside it")
		else if (theirs == "transport" && mine !~ /^(command|ops|transport)$/)
			bad(mine " may not include \"" inc "\"")
		if (inc ~ /[_\/]types\.h$/ && theirs != mine)
			bad("\"" inc "\" is private to " theirs)
		if (mine == "ext4" && theirs == "ext4") check_inner(inc)
		else if (theirs == "ext4" && inc != "ext4/ext4.h")
			bad("\"" inc "\" is private to ext4")
		if (theirs == "journal" && mine != "journal" && inc != "journal/journal.h")
			bad("\"" inc "\" is private to journal")
	}
	close(file)
	if (wrong) failed++; else passed++
}
END {
	printf "check-rooms: %d passed, %d failed, 0 skipped\n", passed, failed
	if (ENVIRON["FDIO_TOTALS"] != "")
		printf "check-rooms %d %d 0\n", passed, failed >> ENVIRON["FDIO_TOTALS"]
	exit failed > 0 || passed == 0
}'
