# SPDX-License-Identifier: GPL-2.0-or-later
"""
The call graph of the sources, as the compiler writes it down with -fcallgraph-info: without
optimization, which would hide some of the calls. For check-recursion.py and check-waits.py.

A function is named as in C; a static one of a .c file is named with that: "base/log.c:flush".
Tables name functions with as much of that as makes them unique: "flush", "log.c:flush".
"""
import collections
import concurrent.futures
import glob
import os
import re
import subprocess

# What the graph calls whatever is called through a pointer.
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
        """The functions that a table can mean with name."""
        if name in self.defined:
            return [name]
        return [f for f in self.defined if f.endswith(("/" if "." in name else ":") + name)]

    def call(self, caller, callee):
        """The one call between functions of these names."""
        found = [(a, b) for a in self.find(caller) for b in self.calls[a]
                 if b == callee or b in self.find(callee)]
        if len(found) != 1:
            raise LookupError(f"the table says that {caller} calls {callee}: there are {len(found)}"
                              " such calls, and it must be one")
        return found[0]

    def cut(self, caller, callee):
        self.calls[caller].pop(callee, None)

    def callers(self):
        """callee: its callers"""
        back = collections.defaultdict(set)
        for caller, callees in self.calls.items():
            for callee in callees:
                back[callee].add(caller)
        return back

    def merge_inlines(self):
        """Each file has its own copy of a static function that a header defines."""
        of = {f: f.rsplit(":", 1)[-1] for f, (path, _) in self.defined.items()
              if path.endswith(".h")}
        calls, self.calls = (self.calls,
                             collections.defaultdict(lambda: collections.defaultdict(set)))
        for caller, callees in calls.items():
            for callee, places in callees.items():
                self.calls[of.get(caller, caller)][of.get(callee, callee)] |= places
        self.defined = {of.get(f, f): place for f, place in self.defined.items()}

    def read(self, path, src):
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
    """Of all files below src/src. Raises RuntimeError with what the compiler says."""
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
    print(f"{check}: {passed} passed, {failed} failed, {skipped} skipped")
    if os.environ.get("FDIO_TOTALS"):
        with open(os.environ["FDIO_TOTALS"], "a") as f:
            f.write(f"{check} {passed} {failed} {skipped}\n")
