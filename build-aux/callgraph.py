# SPDX-License-Identifier: GPL-2.0-or-later
"""
The call graph of the sources, as gcc writes it with -fcallgraph-info. The sources are compiled
without optimization, because inlining would hide calls. check-recursion.py and check-waits.py
use this module.

A node of the graph is the name of a function; a static function of a .c file carries the name of
the file: "base/log.c:flush". The tables of the two checks may shorten that to any ending that is
unique: "flush", "log.c:flush".
"""
import collections
import concurrent.futures
import glob
import os
import re
import subprocess

# gcc's name for the callee of every call through a pointer.
POINTER = "__indirect_call"

NODE = re.compile(r'node: \{ title: "([^"]*)" label: "[^"]*\\n([^"]*):(\d+):\d+" \}')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"'
                  r'(?: label: "([^"]*):(\d+):\d+")?')


class Graph:
    """calls[caller][callee]: the places of the calls; defined[function]: where its body is.
    A place is a file and a line."""

    def __init__(self):
        self.calls = collections.defaultdict(lambda: collections.defaultdict(set))
        self.defined = {}

    def find(self, name):
        """All functions that this name, which may be shortened, can stand for."""
        if name in self.defined:
            return [name]
        return [f for f in self.defined if f.endswith(("/" if "." in name else ":") + name)]

    def call(self, caller, callee):
        """The full names of caller and callee; LookupError unless exactly one call fits."""
        found = [(a, b) for a in self.find(caller) for b in self.calls[a]
                 if b == callee or b in self.find(callee)]
        if len(found) != 1:
            raise LookupError(f"the table says that {caller} calls {callee}: there are {len(found)}"
                              " such calls, and it must be one")
        return found[0]

    def cut(self, caller, callee):
        self.calls[caller].pop(callee, None)

    def callers(self):
        """The graph turned round: a set of callers for each callee."""
        back = collections.defaultdict(set)
        for caller, callees in self.calls.items():
            for callee in callees:
                back[callee].add(caller)
        return back

    def merge_inlines(self):
        """Joins the copies of a static inline function: every file that includes the header has
        compiled one of its own."""
        of = {f: f.rsplit(":", 1)[-1] for f, (path, _) in self.defined.items()
              if path.endswith(".h")}
        calls, self.calls = (self.calls,
                             collections.defaultdict(lambda: collections.defaultdict(set)))
        for caller, callees in calls.items():
            for callee, places in callees.items():
                self.calls[of.get(caller, caller)][of.get(callee, callee)] |= places
        self.defined = {of.get(f, f): place for f, place in self.defined.items()}

    def read(self, path, src):
        """Adds what one .ci file of gcc says."""
        def name(title):
            return title.removeprefix(src + "/").removeprefix("src/")

        with open(path) as f:
            for line in f:
                if m := NODE.match(line):
                    self.defined[name(m[1])] = m[2], int(m[3])
                elif m := EDGE.match(line):
                    self.calls[name(m[1])][name(m[2])].add((m[3] or "", int(m[4] or 0)))


def compiles(cc, flags, source, out):
    return subprocess.run([*cc, *flags, "-O0", "-w", "-fcallgraph-info", "-c", source,
                           "-o", out + ".o"],
                          env={**os.environ, "CCACHE_DISABLE": "1"}, capture_output=True, text=True)


def can_write_graphs(cc, tmp):
    probe = os.path.join(tmp, "probe.c")
    with open(probe, "w") as f:
        f.write("int f(void); int g(void) { return f(); }\n")
    return compiles(cc, [], probe, probe).returncode == 0 and os.path.exists(probe + ".ci")


def call_graph(src, cc, flags, tmp):
    """The graph of all .c files below src/src; object files go to tmp. Raises RuntimeError with
    the compiler's message where a file does not compile."""
    src = os.path.abspath(src)
    sources = sorted(glob.glob(os.path.join(src, "src/**/*.c"), recursive=True))
    outs = [os.path.join(tmp, os.path.relpath(s, src).replace("/", "_")) for s in sources]
    graph = Graph()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for s, r in zip(sources, pool.map(lambda so: compiles(cc, flags, *so), zip(sources, outs))):
            if r.returncode:
                raise RuntimeError(f"{s} does not compile:\n{r.stderr}")
    for o in outs:
        graph.read(o + ".ci", src)
    graph.merge_inlines()
    return graph


def totals(check, passed, failed, skipped):
    """Prints the totals, and appends them to the file that run-tests names in FDIO_TOTALS."""
    print(f"{check}: {passed} passed, {failed} failed, {skipped} skipped")
    if os.environ.get("FDIO_TOTALS"):
        with open(os.environ["FDIO_TOTALS"], "a") as f:
            f.write(f"{check} {passed} {failed} {skipped}\n")
