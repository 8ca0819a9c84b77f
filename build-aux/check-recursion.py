#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
No recursion without a bound: a stack is a few hundred KiB, and an image decides how deep what it
holds goes. The compiler writes down who calls whom (-fcallgraph-info, without optimization, which
would hide some of it). Without the calls of the table below there must be no circle left, and each
of these must be there and be part of one. Calls through pointers are not followed: those lead down
into a room's table of functions, or back to whoever left a callback.

Called by `make check-recursion` with the directory of the sources; CC and FLAGS come from the
environment. A compiler that cannot write call graphs makes it skip.
"""
import collections
import concurrent.futures
import glob
import os
import re
import shlex
import subprocess
import sys
import tempfile

# Who calls whom, and why that does not go on for ever. Static functions are named with their file.
BOUNDED = {
    ("dev_uring.c:write_fua", "dev_uring.c:uring_write"):
        "without the flag that leads back here",
    ("dio_seg_put", "pool.c:resume_waiting"):
        "returns at once where it runs already",
    ("x4_extent_node.c:load_node", "x4_extent_node.c:load_node"):
        "each child is checked to be one level lower; a root is at most X4_EXT_MAX_DEPTH high",
    ("x4_indirect.c:load_pointer", "x4_indirect.c:load_pointer"):
        "the level falls from 3",
    ("x4_indirect.c:pointer_free", "x4_indirect.c:children_free"):
        "the level falls from 3",
    ("x4_ind_convert.c:collect_ind", "x4_ind_convert.c:collect_ind"):
        "the level falls from 3",
    ("x4_inode.c:get_found", "x4_inode.c:x4_iput"):
        "an inode that could not be read is not deleted",
    ("x4_inode.c:load", "x4_inode.c:x4_iput"):
        "an inode that could not be read is not deleted",
    ("x4_xattr_value.c:get", "x4_xattr_value.c:x4_iput"):
        "V4: has a name, so it is not deleted",
    ("x4_ea_settle", "x4_xattr_value.c:x4_iput"):
        "V3: what is deleted holds a value, and so has none itself",
}


def compiles(cc, flags, source, out):
    return subprocess.run([*cc, *flags, "-O0", "-w", "-fcallgraph-info", "-c", source,
                           "-o", out + ".o"],
                          env={**os.environ, "CCACHE_DISABLE": "1"}, capture_output=True, text=True)


def can_write_graphs(cc, tmp):
    probe = os.path.join(tmp, "probe.c")
    with open(probe, "w") as f:
        f.write("int f(void); int g(void) { return f(); }\n")
    return compiles(cc, [], probe, probe).returncode == 0 and os.path.exists(probe + ".ci")


def short(title):
    """A static function's title has the path of its file."""
    return title.rsplit("/", 1)[-1]


def read_graph(path, calls):
    with open(path) as f:
        for line in f:
            m = re.match(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', line)
            if m:
                calls[short(m[1])].add(short(m[2]))


def circles(calls):
    """Tarjan's strongly connected components, those with a call inside; without recursion."""
    index, low, on, stack, found = {}, {}, set(), [], []
    for root in list(calls):
        if root in index:
            continue
        work = [(root, iter(calls[root]))]
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
                    work.append((to, iter(calls.get(to, ()))))
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


def call_graph(src, cc, flags, tmp):
    sources = sorted(glob.glob(os.path.join(src, "src/**/*.c"), recursive=True))
    outs = [os.path.join(tmp, os.path.relpath(s, src).replace("/", "_")) for s in sources]
    calls = collections.defaultdict(set)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for s, r in zip(sources, pool.map(lambda so: compiles(cc, flags, *so), zip(sources, outs))):
            if r.returncode:
                sys.exit(f"check-recursion: {s} does not compile:\n{r.stderr}")
    for o in outs:
        read_graph(o + ".ci", calls)
    return calls


def judge(calls):
    """Lines of what is wrong."""
    wrong, parts = [], circles(calls)
    for caller, callee in BOUNDED:
        if callee not in calls.get(caller, ()):
            wrong.append(f"{caller} does not call {callee} any more: take it out of the table")
        elif not any(caller in p and callee in p for p in parts):
            wrong.append(f"{caller} and {callee} are in no circle: take them out of the table")
        calls.get(caller, set()).discard(callee)
    for p in circles(calls):
        wrong.append("a circle of calls without a bound: " + ", ".join(sorted(p)))
    return wrong


def main():
    src, cc, flags = sys.argv[1], shlex.split(os.environ["CC"]), shlex.split(os.environ["FLAGS"])
    with tempfile.TemporaryDirectory() as tmp:
        if not can_write_graphs(cc, tmp):
            print("check-recursion: 0 passed, 0 failed, 1 skipped: the compiler does not know "
                  "-fcallgraph-info (gcc 10 and newer do)")
            totals(0, 0, 1)
            return 0
        calls = call_graph(src, cc, flags, tmp)
    if len(calls) < 500:
        sys.exit(f"check-recursion: a call graph of {len(calls)} functions is not this program's")
    wrong = judge(calls)
    for w in wrong:
        print("not ok", w)
    passed = max(len(BOUNDED) + 1 - len(wrong), 0)
    print(f"check-recursion: {passed} passed, {len(wrong)} failed, 0 skipped")
    totals(passed, len(wrong), 0)
    return 1 if wrong else 0


def totals(passed, failed, skipped):
    if os.environ.get("FDIO_TOTALS"):
        with open(os.environ["FDIO_TOTALS"], "a") as f:
            f.write(f"check-recursion {passed} {failed} {skipped}\n")


if __name__ == "__main__":
    sys.exit(main())
