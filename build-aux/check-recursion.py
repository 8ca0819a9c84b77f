#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Fails if the program can recurse without a bound, or if files call each other in a circle. A
thread's stack is a few hundred KiB, and the depth of structures on disk is chosen by the image,
which may be hostile.

The call graph (callgraph.py) must have no cycle once the calls of BOUNDED are taken out of it.
Each call in BOUNDED must exist and be part of a cycle, so that the table does not outlive the
code. Calls through pointers are not followed, except those in FOLLOWED: the others either go down
into the function table of a lower room or return to the room that registered a callback.

Of two files of src at most one calls the other, directly or through further files: then each can
be read before those that call it. Callbacks are not calls here.

`make check-recursion` calls this with the source directory; CC and FLAGS come from the
environment. It skips if the compiler cannot write call graphs.
"""
import os
import shlex
import sys
import tempfile

sys.dont_write_bytecode = True  # the sources may be read-only
import callgraph  # noqa: E402

# (caller, callee): why this recursion ends. callgraph.py says how functions are named.
BOUNDED = {
    ("write_fua", "uring_write"):
        "it clears the FUA flag, and only a write with that flag comes to write_fua",
    ("load_node", "load_node"):
        "each child is checked to be one level lower; a root is at most EXT4_EXTENT_MAX_DEPTH high",
    ("load_pointer", "load_pointer"):
        "the level falls from 3",
    ("pointer_free", "children_free"):
        "the level falls from 3",
    ("collect_indirect", "collect_indirect"):
        "the level falls from 3",
    ("get_found", "ext4_inode_put"):
        "an inode that could not be read is not deleted",
    ("load", "ext4_inode_put"):
        "an inode that could not be read is not deleted",
    ("get_value_inode", "ext4_inode_put"):
        "VALUE-4: the inode has a name, so it is not deleted",
    ("ext4_ea_settle", "ext4_inode_put"):
        "VALUE-3: the deleted inode holds an attribute's value, so it has no such inodes itself",
}

# Calls through a pointer that are followed nevertheless.
FOLLOWED = [("inode/put.c:evict", "ext4_evict")]


def follow(graph, caller, callee):
    """Replaces caller's call through a pointer by a call of callee."""
    froms, tos = graph.find(caller), graph.find(callee)
    if len(froms) != 1 or len(tos) != 1 or callgraph.POINTER not in graph.calls[froms[0]]:
        raise LookupError(f"the table says that {caller} calls {callee} through a pointer")
    graph.calls[froms[0]][tos[0]] = graph.calls[froms[0]][callgraph.POINTER]


def circles(calls):
    """Tarjan's strongly connected components that contain a cycle, computed without recursion."""
    index, low, on, stack, found = {}, {}, set(), [], []
    for root in list(calls):
        if root in index:
            continue
        work = [(root, iter(list(calls[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, rest = work[-1]
            for to in rest:
                if to not in index:
                    index[to] = low[to] = len(index)
                    stack.append(to)
                    on.add(to)
                    work.append((to, iter(list(calls.get(to, ())))))
                    break
                if to in on:
                    low[node] = min(low[node], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = set()
                    while node not in part:
                        part.add(stack.pop())
                        on -= part
                    if len(part) > 1 or node in calls.get(node, ()):
                        found.append(part)
    return found


def calls_between_files(graph):
    """calls[file] = the files whose functions its functions call; headers are left out."""
    file_of = {f: os.path.normpath(place[0]) for f, place in graph.defined.items()
               if place[0].endswith(".c")}
    calls = {path: set() for path in file_of.values()}
    for caller, callees in graph.calls.items():
        for callee in callees:
            if caller in file_of and callee in file_of and file_of[caller] != file_of[callee]:
                calls[file_of[caller]].add(file_of[callee])
    return calls


def judge_files(graph):
    """As judge, of files."""
    calls = calls_between_files(graph)
    if not any(calls.values()):
        return ["no file calls another: the call graph is wrong"]
    return ["files call each other in a circle: " + ", ".join(sorted(c)) for c in circles(calls)]


def judge(graph):
    """A list of faults, one line each; empty if all is well."""
    wrong, calls = [], graph.calls
    for caller, callee in FOLLOWED:
        try:
            follow(graph, caller, callee)
        except LookupError as err:
            wrong.append(str(err))
    parts = circles(calls)
    for caller, callee in BOUNDED:
        try:
            a, b = graph.call(caller, callee)
        except LookupError as err:
            wrong.append(str(err))
            continue
        if not any(a in p and b in p for p in parts):
            wrong.append(f"{caller} and {callee} are in no cycle: take them out of the table")
        graph.cut(a, b)
    for p in circles(calls):
        wrong.append("a cycle of calls without a bound: " + ", ".join(sorted(p)))
    return wrong


def main():
    src, cc, flags = sys.argv[1], shlex.split(os.environ["CC"]), shlex.split(os.environ["FLAGS"])
    with tempfile.TemporaryDirectory() as tmp:
        if not callgraph.can_write_graphs(cc, tmp):
            print("check-recursion: the compiler does not know -fcallgraph-info (gcc 10 does)")
            callgraph.totals("check-recursion", 0, 0, 1)
            return 0
        try:
            graph = callgraph.call_graph(src, cc, flags, tmp)
        except RuntimeError as err:
            sys.exit(f"check-recursion: {err}")
    if len(graph.defined) < 500:
        sys.exit(f"check-recursion: a call graph of {len(graph.defined)} functions is not this "
                 "program's")
    wrong = judge_files(graph) + judge(graph)
    for w in wrong:
        print("not ok", w)
    callgraph.totals("check-recursion", max(len(BOUNDED) + 2 - len(wrong), 0), len(wrong), 0)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
