#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Checks that no loop thread can wait, and that each prototype says whether its function waits.

A loop thread may try an operation in the mode of src/base/nowait.h: between nowait_begin and
nowait_end a function that would have to wait "misses", that is, fails with -EAGAIN. Which functions
wait or miss follows from the call graph (callgraph.py). The graph is made twice: of the program as
it is, and of the program in the mode, where nowait_on() is the constant true and the compiler drops
the branches that are not taken. Each prototype in a header must then carry

  FDIO_BLOCKS    if the function may wait even in the mode,
  FDIO_MAY_MISS  if it may miss, and returns that as an error,
  FDIO_MAY_WAIT  if it may wait outside of the mode only, and does not return a miss,

and no mark otherwise. Functions that loop threads run outside of the mode (ON_LOOPS) must not wait
at all; functions that they try must not wait in the mode. Calls through pointers are followed where
POINTERS names the callees; it must name them for each such call that is reached in the mode.

`make check-waits` calls this with the source directory; CC and FLAGS come from the environment. It
skips if the compiler cannot write call graphs.

  make check-waits                 check
  make check-waits ARGS=--fix      set the marks
  make check-waits ARGS="--why F"  print the calls by which function F waits and misses
"""
import collections
import os
import re
import shlex
import sys
import tempfile

sys.dont_write_bytecode = True  # the sources may be read-only
import callgraph  # noqa: E402

MISS = "nowait_miss"
# Functions that wait: for other threads and processes, for the device, or for a time to pass.
PRIMITIVES = {
    "fdio_cond_wait", "fdio_cond_timedwait", "fdio_rwlock_rdlock", "fdio_rwlock_wrlock",
    "dev_read", "dev_write", "dev_write_many", "dev_discard",
    "io_uring_submit_and_wait", "__io_uring_get_cqe", "pread", "pwrite", "fsync", "fdatasync",
    "pthread_join", "sem_wait", "nanosleep", "usleep", "poll", "waitpid",
    "transport_notify_inval_inode",  # the kernel may wait for a page that a READ has locked
    "ops_capable",                   # asks another process, through a pointer
}
# Ranks of locks that may be held across I/O. fdio_mutex_lock counts as waiting for these only.
LONG_RANKS = {"RANK_EXT4_RENAME", "RANK_EXT4_MAP", "RANK_JOURNAL_HANDLE"}
LOCK = "fdio_mutex_lock"

# (caller, callee): calls that are ignored in both graphs, and why. callgraph.py says how functions
# are named.
NEVER = {
    ("transport_retry",
     "nanosleep"): "it sleeps a millisecond, only if the kernel has no memory for a reply",
    ("read_inline",
     "ext4_inline_read"): "a volume with inline data is read-only, so damage has nothing to stop",
    ("ext4_super_end", "journal_abort"): "the superblock is in the transaction, hence in memory",
}
# Calls that the compiler sees in the mode although they are never made in it, and why.
NOT_IN_THE_MODE = {
    ("get_found", "fdio_cond_wait"): "if the inode is being loaded, the function missed before",
    ("ext4_group_load",
     "fdio_cond_wait"): "if another thread loads the bitmap, the function missed before",
    ("ext4_read_block", "found"): "a buffer that is in memory was read without an error",
}
# The callees of calls through pointers, for each function that makes one and is tried.
POINTERS = {
    "transport_reply": ["devfuse_reply", "uring_reply"],
    "uring_reply": ["devfuse_reply"],
    "remove_name": ["ext4_unlink", "ext4_rmdir"],
    "give": ["emit"],
    "dir_new_inode": ["fill_dir", "fill_symlink"],
    "evict_soon": ["reap_due"],
    "inode/put.c:evict": ["ext4_evict"],
    "inode_undo": ["ext4_map_drop"],
    "ext4_inode_free": ["inode_free", "ext4_map_drop", "forget_names"],
    "ext4_map_mem_check": ["volume/ticker.c:crowded"],
    "free_chain": ["map_chunk_free", "map_free", "map_top_free"],
    "journal_run_callbacks": ["orphan_undo", "new_undo", "note_done", "inode_undo",
                          "feature_undo", "op_undo"],
    "dev_now": [],        # the device's own clock: only the tests' devices have one
    "fdio_log_emit": [],  # the sink of the log
}
# Patterns of source text that hand a function to a loop thread; the group is its name.
ON_LOOPS = [
    r"{ (\w+), OPS_LOOP\b",
    r"\.complete = (\w+)",
    r"\bloop_post\(.*, (\w+)\);",
    r"\bdio_io_fill\(.*, (\w+)\);",
    r"\.handle = (\w+)",
    r"\.forget = (\w+)",
    r"\bdone = (\w+);",
]
# The same for operations that a loop thread tries in the mode.
TRIED = r"{ (\w+), OPS_TRY\b"
# Defines the mode. Its own functions need no marks.
MODE_HEADER = "base/nowait.h"

MARKS = ("FDIO_BLOCKS", "FDIO_MAY_MISS", "FDIO_MAY_WAIT")
NO_MARK = "no mark"
ERRORS = {"int", "ssize_t"}  # return types that can carry -EAGAIN


# ---------------------------------------------------------------- the graphs
class Sources:
    """The text of the files below src, read once."""

    def __init__(self, src):
        self.src, self.text = src, {}
        for top, _, names in sorted(os.walk(os.path.join(src, "src"))):
            for n in sorted(names):
                if n.endswith((".c", ".h")):
                    with open(os.path.join(top, n)) as f:
                        self.text[os.path.join(top, n)] = f.read()
        self.lines = {path: text.split("\n") for path, text in self.text.items()}

    def line(self, path, number):
        path = next((p for p in self.lines if os.path.realpath(p) == os.path.realpath(path)), None)
        return self.lines[path][number - 1] if path else ""

    def names(self, pattern):
        return {m for text in self.text.values() for m in re.findall(pattern, text)}


def long_locks(sources):
    """The struct fields that hold a mutex of one of LONG_RANKS."""
    ranks = sources.names(r"fdio_mutex_init\(&[^,;]*?(\w+), (RANK_\w+)\)")
    return {field for field, rank in ranks if rank in LONG_RANKS}


def split_locks(graph, sources):
    """Adds to callers of fdio_mutex_lock on a lock of LONG_RANKS a call of a primitive."""
    fields = long_locks(sources)
    for caller in graph.callers()[LOCK]:
        for path, number in graph.calls[caller][LOCK]:
            m = re.search(LOCK + r"\([^;]*?(\w+)\);", sources.line(path, number))
            if m and m[1] in fields:
                graph.calls[caller][f"{LOCK}({m[1]})"].add((path, number))


def is_primitive(name):
    return name in PRIMITIVES or name.startswith(LOCK + "(")


def between(callees, begin, end, places):
    """Whether one of the places lies, by line number, between calls of begin and end."""
    lines = sorted([(n, 1) for _, n in callees.get(begin, ())]
                   + [(n, -1) for _, n in callees.get(end, ())]
                   + [(n, 0) for _, n in places])
    depth = 0
    for _, step in lines:
        depth += step
        if not step and depth > 0:
            return True
    return False


def calls_between(graph, begin, end):
    """(caller, callee) of all calls between one of begin and one of end in the same function."""
    back = graph.callers()
    return {(f, callee) for f in back[begin] & back[end]
            for callee, places in graph.calls[f].items() if callee not in (begin, end)
            and between(graph.calls[f], begin, end, places)}


def with_pointers(graph, name):
    """The functions of that name that call through a pointer."""
    return [f for f in graph.find(name) if callgraph.POINTER in graph.calls[f]]


def follow_pointers(graph, wrong):
    """Adds the calls of POINTERS to the graph; appends to wrong what does not fit the sources."""
    for name, callees in POINTERS.items():
        callers = with_pointers(graph, name)
        if not callers:
            wrong.append(f"POINTERS: no {name} calls through a pointer any more")
        for caller in callers:
            for c in callees:
                if len(graph.find(c)) != 1:
                    wrong.append(f"POINTERS: {c} must be one function, but is {graph.find(c)}")
                for callee in graph.find(c):
                    graph.calls[caller][callee].add(("", 0))


def cut(graph, table, wrong):
    for caller, callee in table:
        try:
            graph.cut(*graph.call(caller, callee))
        except LookupError as err:
            wrong.append(str(err))


class Reach:
    """The functions that reach a target by calls other than those in without; next[function] is
    the callee on a shortest way."""

    def __init__(self, graph, is_target, without=()):
        back = graph.callers()
        self.next = {f: None for f in set(back) | set(graph.calls) if is_target(f)}
        todo = collections.deque(sorted(self.next))
        while todo:
            callee = todo.popleft()
            for caller in sorted(back[callee]):
                if caller not in self.next and (caller, callee) not in without:
                    self.next[caller] = callee
                    todo.append(caller)

    def __contains__(self, name):
        return name in self.next

    def chain(self, name):
        names = []
        while name:
            names.append(name.rsplit("/", 1)[-1])
            name = self.next[name]
        return " > ".join(names)


class Program:
    """The two graphs of the sources in src, and what follows from them. tables=False leaves out
    the tables above, for the self-test."""

    def __init__(self, src, cc, flags, tables=True):
        self.sources, self.wrong = Sources(src), []
        with tempfile.TemporaryDirectory() as tmp:
            mode = os.path.join(tmp, "mode.h")
            with open(mode, "w") as f:
                f.write("#define nowait_on() true\n")
            self.plain = callgraph.call_graph(src, cc, flags, tmp)
            self.tried = callgraph.call_graph(
                src, cc, [*flags, "-include", MODE_HEADER, "-include", mode], tmp)
        for graph in self.plain, self.tried:
            split_locks(graph, self.sources)
            if tables:
                cut(graph, NEVER, self.wrong)
                follow_pointers(graph, self.wrong)
        self.to_try = calls_between(self.plain, "nowait_begin", "nowait_end")
        if tables:
            cut(self.tried, NOT_IN_THE_MODE, self.wrong)
        told = (calls_between(self.tried, "nowait_save", "nowait_restore")
                | calls_between(self.tried, "nowait_begin", "nowait_end"))
        self.blocks = Reach(self.tried, is_primitive)
        self.misses = Reach(self.tried, lambda f: f == MISS, told)
        self.waits = Reach(self.plain, is_primitive, self.to_try)
        self.roots = ({f for n in self.sources.names(TRIED) for f in self.tried.find(n)}
                      | {callee for _, callee in self.to_try})
        self.is_tried = self.reached_from(self.roots)

    def reached_from(self, roots):
        seen, todo = set(), list(roots)
        while todo:
            f = todo.pop()
            if f not in seen:
                seen.add(f)
                todo += self.tried.calls.get(f, ())
        return seen

    def mark(self, name, returns):
        """The mark that the prototype must have, and the calls that are the reason."""
        if name in self.blocks:
            return "FDIO_BLOCKS", self.blocks.chain(name)
        if name in self.misses and (name in self.waits or name in self.is_tried):
            return ("FDIO_MAY_MISS" if returns in ERRORS else "FDIO_MAY_WAIT",
                    self.misses.chain(name))
        if name in self.waits:
            return "FDIO_MAY_WAIT", self.waits.chain(name)
        return "", "it does not wait"


# ---------------------------------------------------------------- prototypes
def blanked(text):
    """text with comments, strings and preprocessor directives replaced by blanks, so that every
    other character keeps its position."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m[0])

    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)


Prototype = collections.namedtuple("Prototype", "path line start stop name returns mark body")

DECLARED = re.compile(r"^\s*(?P<type>[A-Za-z_][\w\s]*?[\s*]+)(?P<name>[A-Za-z_]\w*)\s*\(")


def statements(text):
    """(start, end, has a body) of each declaration and definition at the top level."""
    depth, start, body = 0, 0, None
    for m in re.finditer(r"[{};]", text):
        at = m.start()
        if m[0] == "{":
            body = at if depth == 0 else body
            depth += 1
        elif m[0] == "}":
            depth -= 1
            if depth == 0 and ")" in text[start:body]:
                yield start, body, True
                start = at + 1
        elif depth == 0:
            yield start, at, False
            start = at + 1


def prototypes(path, text):
    text = blanked(text)
    for start, stop, body in statements(text):
        part = text[start:stop]
        m = DECLARED.match(re.sub("|".join(MARKS), lambda x: " " * len(x[0]), part))
        if not m or m["type"].split()[0] in ("typedef", "return") or "=" in part:
            continue
        mark = re.search("|".join(MARKS), part)
        first = start + len(part) - len(part.lstrip())
        returns = " ".join(w for w in m["type"].split() if w not in ("static", "inline", "extern"))
        yield Prototype(path, text.count("\n", 0, first) + 1, first, stop, m["name"],
                        returns, mark[0] if mark else "", body)


def headers(program):
    """The prototypes in headers of functions that the program defines."""
    for path, text in program.sources.text.items():
        if path.endswith(".h") and not path.endswith("/" + MODE_HEADER):
            for p in prototypes(path, text):
                if p.name in program.plain.defined:
                    yield p


# ---------------------------------------------------------------- what must hold
def judge_marks(program):
    """Faults of marks, those nearest to the function that waits first: they explain the rest."""
    wrong = []
    for p in headers(program):
        mark, chain = program.mark(p.name, p.returns)
        if mark != p.mark:
            place = os.path.relpath(p.path, program.sources.src)
            wrong.append(f"{place}:{p.line}: {p.name} must have {mark or NO_MARK}, and has "
                         f"{p.mark or NO_MARK}: {chain}")
    return sorted(wrong, key=lambda w: w.count(" > "))


def judge_loops(program):
    plain = program.plain
    for pattern in ON_LOOPS:
        names = program.sources.names(pattern)
        if not any(plain.find(n) for n in names):
            yield f"ON_LOOPS: no function is found by {pattern}"
        for f in sorted(f for n in names for f in plain.find(n)):
            if f in program.waits:
                yield f"{f} runs on a loop thread and waits: {program.waits.chain(f)}"


def judge_tried(program):
    for f in sorted(program.roots):
        if f in program.blocks:
            yield f"{f} is tried on a loop thread and waits: {program.blocks.chain(f)}"
    known = {f for n in POINTERS for f in with_pointers(program.tried, n)}
    for f in sorted(program.is_tried - known):
        if callgraph.POINTER in program.tried.calls.get(f, ()):
            yield f"{f} is tried on a loop thread and calls through a pointer: say in POINTERS whom"


# ---------------------------------------------------------------- setting the marks
COLUMNS = 100


def columns(line):
    return len(line.expandtabs(8))


def with_mark(text, p, mark):
    """text with p's mark replaced."""
    part = re.sub(r"\s*\b(?:%s)\b" % "|".join(MARKS), "", text[p.start:p.stop])
    if mark and p.body:
        part = re.sub(r"^((?:static |inline |extern )*)", r"\1" + mark + " ", part)
    elif mark:
        last = (text[:p.start] + part).rsplit("\n", 1)[-1]
        gap = " " if columns(f"{last} {mark};") <= COLUMNS else "\n\t"
        part += gap + mark
    return text[:p.start] + part + text[p.stop:]


def with_include(text):
    if f'"{MODE_HEADER}"' in text:
        return text
    line = f'#include "{MODE_HEADER}"\n'
    own = list(re.finditer(r'^#include "[^"]*"\n', text, flags=re.M))
    before = [m for m in own if m[0] < line]
    if own:
        at = before[-1].end() if before else own[0].start()
        return text[:at] + line + text[at:]
    guard = re.search(r"^#define \w+_H\n", text, flags=re.M)
    return text[:guard.end()] + "\n" + line + text[guard.end():]


def fix(program):
    by_path, count = collections.defaultdict(list), 0
    for p in headers(program):
        mark, _ = program.mark(p.name, p.returns)
        if mark != p.mark:
            by_path[p.path].append((p, mark))
    for path, marks in by_path.items():
        text = program.sources.text[path]
        for p, mark in sorted(marks, key=lambda m: -m[0].start):
            text = with_mark(text, p, mark)
            count += 1
        if any(m in text for m in MARKS):
            text = with_include(text)
        with open(path, "w") as f:
            f.write(text)
    print(f"{count} marks set in {len(by_path)} headers")


# ---------------------------------------------------------------- self-test
# A small program with wrong marks, and what must be found in it.
SELF = {
    "src/base/nowait.h": """
#pragma once
#define FDIO_BLOCKS
#define FDIO_MAY_MISS
#define FDIO_MAY_WAIT
#include <stdbool.h>
static inline bool nowait_on(void) { return 0; }
int nowait_miss(void);
""",
    "src/a.h": """#define A_H
int cond(void) FDIO_BLOCKS;
int read_block(int n) FDIO_MAY_MISS;
int right(int n) FDIO_MAY_MISS;
int missing(int n);
int wrong(int n) FDIO_BLOCKS;
void waits(int n) FDIO_MAY_WAIT;
int never(int n) FDIO_MAY_MISS;
static inline FDIO_MAY_MISS int in_line(int n) { return read_block(n); }
""",
    "src/a.c": """
#include "base/nowait.h"
#include "a.h"
int fdio_cond_wait(void);
int cond(void) { return fdio_cond_wait(); }
int read_block(int n) { if (nowait_on()) return nowait_miss(); return cond(); }
int right(int n) { return in_line(n); }
int missing(int n) { return right(n); }
int wrong(int n) { return n ? right(n) : 0; }
void waits(int n) { if (!nowait_on()) cond(); }
int never(int n) { return n; }
""",
}
SELF_WRONG = [
    "src/a.h:8: never must have no mark, and has FDIO_MAY_MISS: it does not wait",
    "src/a.h:5: missing must have FDIO_MAY_MISS, and has no mark: "
    "missing > right > in_line > read_block > nowait_miss",
    "src/a.h:6: wrong must have FDIO_MAY_MISS, and has FDIO_BLOCKS: "
    "wrong > right > in_line > read_block > nowait_miss",
]


def self_test(cc):
    """Faults of this script, one line each: the marks of SELF must be found wrong, and --fix must
    leave none."""
    with tempfile.TemporaryDirectory() as tmp:
        for path, text in SELF.items():
            os.makedirs(os.path.dirname(os.path.join(tmp, path)), exist_ok=True)
            with open(os.path.join(tmp, path), "w") as f:
                f.write(text)
        flags = ["-I", os.path.join(tmp, "src")]
        found = judge_marks(Program(tmp, cc, flags, tables=False))
        if found != SELF_WRONG:
            return ["self test: found " + "; ".join(found)]
        sys.stdout, out = open(os.devnull, "w"), sys.stdout
        fix(Program(tmp, cc, flags, tables=False))
        sys.stdout = out
        left = judge_marks(Program(tmp, cc, flags, tables=False))
        return ["self test: left by --fix: " + "; ".join(left)] if left else []


def main():
    src, cc = sys.argv[1], shlex.split(os.environ.get("CC", "gcc"))
    flags = shlex.split(os.environ.get("FLAGS", ""))
    with tempfile.TemporaryDirectory() as tmp:
        if not callgraph.can_write_graphs(cc, tmp):
            print("check-waits: the compiler does not know -fcallgraph-info (gcc 10 does)")
            callgraph.totals("check-waits", 0, 0, 1)
            return 0
    wrong = self_test(cc)
    try:
        program = Program(src, cc, flags)
    except RuntimeError as err:
        sys.exit(f"check-waits: {err}")
    if sys.argv[2:] == ["--fix"]:
        return fix(program)
    if sys.argv[2:3] == ["--why"]:
        return why(program, sys.argv[3])
    wrong += [*program.wrong, *judge_marks(program), *judge_loops(program), *judge_tried(program)]
    for w in wrong:
        print("not ok", w)
    if any(" must have " in w for w in wrong):
        print("make check-waits ARGS=--fix sets the marks")
    callgraph.totals("check-waits", len(list(headers(program))), len(wrong), 0)
    return 1 if wrong else 0


def why(program, name):
    for f in program.plain.find(name):
        for what in "blocks", "misses", "waits":
            reach = getattr(program, what)
            print(f"{what}: {reach.chain(f) if f in reach else 'no'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
