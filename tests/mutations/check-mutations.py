#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Makes deliberate mistakes in the sources, and checks that the test named for each notices it.

Reads the tables *.mutations beside this file. Copies the sources into scratch directories, one for
each worker, and builds there what the tests need. First each test that a table names runs on the
unchanged code, and must pass. Then one mistake at a time is made in a copy, the test is linked
again, and must fail. If the original text of a mistake is not found exactly once, the code has
changed, and the entry must be changed too: that counts as an error.

  check-mutations.py SOURCE-DIRECTORY [NAME-OR-TABLE ...]

MUTATIONS_SHORT=1      only entries marked "quick", as run-tests does
MUTATIONS_TEST=TEST    runs this test instead of those in the tables, to see which mistakes it finds
MUTATIONS_KEEP=1       keeps the scratch directories, and prints where they are
FDIO_TIMEOUT_FACTOR=N  stretches the time limits

A test that takes more than eight times as long as without the mistake has noticed it too.

Ends with "N passed, N failed, N skipped"; status 1 if a mistake was not noticed, 77 if nothing
could run.
"""
import collections
import os
import pathlib
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

FACTOR = float(os.environ.get("FDIO_TIMEOUT_FACTOR", "1"))
LIMIT = 120 * FACTOR
# The time limit of a test with a mistake: TIMES as long as without it, at least LEAST seconds.
TIMES, LEAST = 8, 10 * FACTOR
SHORT = bool(os.environ.get("MUTATIONS_SHORT"))
SOURCES = ["configure.ac", "Makefile.am", "build-aux", "src", "tests", "man", "contrib", "bench",
           "m4", "autogen.sh", "configure", "aclocal.m4", "Makefile.in", "config.h.in"]

Mutation = collections.namedtuple("Mutation", "name file means test quick old new where")


class Wrong(Exception):
    """An error of a table or of the build: one line for the user."""


def parse(path):
    """The entries of one table; base.mutations describes the format."""
    entries, fields, part, text = [], {}, None, {"old": [], "new": []}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        if part:
            if line == "===" and part == "old":
                part = "new"
            elif line == ">>>" and part == "new":
                entries.append(entry(fields, text, where))
                fields, part, text = {}, None, {"old": [], "new": []}
            else:
                text[part].append(line.strip())
        elif line == "<<<":
            part = "old"
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.partition(" ")
            if key not in ("mutation", "file", "means", "test", "quick") or key in fields:
                raise Wrong(f"{where}: '{key}' does not belong here")
            fields[key] = value.strip()
    if fields or part:
        raise Wrong(f"{path.name}: the last entry is not complete")
    return entries


def entry(fields, text, where):
    for key in ("mutation", "file", "means", "test"):
        if not fields.get(key):
            raise Wrong(f"{where}: the entry that ends here has no '{key}'")
    if not any(text["old"]) or text["old"] == text["new"]:
        raise Wrong(f"{where}: the entry that ends here changes nothing")
    return Mutation(fields["mutation"], fields["file"], fields["means"], fields["test"],
                    "quick" in fields, text["old"], text["new"], where)


def mutate(source, m):
    """The source with the mistake. White space between words and signs does not count, so that
    lines of the source may be broken elsewhere than in the table."""
    words = re.findall(r"\w+|[^\w\s]", " ".join(m.old))
    pattern = r"\s*".join(re.escape(word) for word in words)
    found = list(re.finditer(pattern, source))
    if len(found) != 1:
        raise Wrong(
            f"{m.where}: {m.name}: the text stands {len(found)} times in {m.file}, not once")
    at = found[0]
    return source[:at.start()] + "\n".join(m.new) + source[at.end():]


class Bench:
    """A scratch copy of the sources with its build; used by one thread."""

    def __init__(self, top, place):
        self.place = place
        place.mkdir()
        for name in SOURCES:
            source = top / name
            if source.is_dir():
                shutil.copytree(source, place / name, symlinks=True)
            elif source.exists():
                shutil.copy2(source, place / name)
        self.build = place / "build"
        self.build.mkdir()
        if not (place / "configure").exists():
            self.tool(["./autogen.sh"], place)
        self.tool(["../configure", "--quiet", "CFLAGS=-O1 -g"], self.build)

    @staticmethod
    def tool(command, where):
        r = subprocess.run(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, check=False)
        if r.returncode:
            raise Wrong(f"{shlex.join(command)} failed:\n{r.stdout[-2000:]}")

    def make(self, targets, jobs=1):
        self.tool(["make", "-s", f"-j{jobs}", *targets], self.build)

    def run(self, test, limit=LIMIT):
        """Runs a test in a session of its own; returns (status, the end of its output)."""
        command, env = test_command(test)
        env = {**os.environ, **env, "FDIO_BUILD": str(self.build), "srcdir": ".."}
        env.pop("FDIO_TOTALS", None)
        with tempfile.TemporaryFile() as out, subprocess.Popen(
                command, cwd=self.build, env=env, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True) as p:
            try:
                status = p.wait(limit)
            except subprocess.TimeoutExpired:
                status = "time limit"
            kill_session(p.pid)
            p.wait()
            out.seek(0)
            return status, first_failure(out.read().decode(errors="replace"))


def kill_session(leader):
    """
    Kills every process that the test left. By session, because libcheck puts each case into a
    process group of its own.
    """
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            pass


def first_failure(text):
    """
    The line of the output that says best what failed: libcheck's own, else an assertion, else the
    last.
    """
    lines = text.strip().splitlines()
    for pattern in (r":[FE]:", r"^not ok", r"[Aa]ssert|ERROR"):
        for line in lines:
            if re.search(pattern, line):
                return line.strip()[:160]
    return lines[-1][:160] if lines else ""


def test_words(test):
    """The environment and the words of a test's text: words NAME=VALUE go into the environment."""
    words = shlex.split(test)
    env = dict(w.split("=", 1) for w in words if re.match(r"[A-Z_]+=", w))
    return env, [w for w in words if not re.match(r"[A-Z_]+=", w)]


def test_command(test):
    """
    The command and the environment of "unit/ROOM/NAME CASE", "root/NN-name CASE" or "crash/crash".
    """
    env, words = test_words(test)
    room, _, name = words[0].partition("/")
    if room == "unit":
        return [f"tests/unit/{name}"], {**env,
                                        **({"CK_RUN_CASE": words[1]} if len(words) > 1 else {})}
    if room == "root":
        return [f"../tests/root/{name}.py", *words[1:]], env
    return [f"tests/{words[0]}", *words[1:]], env


def test_targets(test):
    room, _, name = test_words(test)[1][0].partition("/")
    return ["fusedio", "fusedioctl", "root-tools"] if room == "root" else [f"tests/{room}/{name}"]


class Runner:
    """
    The workers: threads that run the tests without mistakes, then take one mistake after the other.
    """

    def __init__(self, top, scratch, mutations):
        self.top, self.scratch, self.mutations = top, scratch, mutations
        self.lock = threading.Lock()
        self.wrong, self.results = [], []
        self.baselines = queue.Queue()
        self.work = queue.Queue()
        for test in sorted({m.test for m in mutations}):
            self.baselines.put(test)
        for m in mutations:
            self.work.put(m)
        self.broken_tests, self.limits = set(), {}

    def say(self, line):
        with self.lock:
            print(line, flush=True)

    def baseline(self, bench):
        while True:
            try:
                test = self.baselines.get_nowait()
            except queue.Empty:
                return
            begun = time.monotonic()
            status, how = bench.run(test)
            self.limits[test] = max(LEAST, TIMES * (time.monotonic() - begun))
            if status:
                self.broken_tests.add(test)
                self.say(f"not ok {test} without any mistake: {status}: {how}")

    def one(self, bench, m):
        path = bench.place / m.file
        original = path.read_text()
        begun = time.monotonic()
        try:
            path.write_text(mutate(original, m))
            bench.make(test_targets(m.test))
            status, how = bench.run(m.test, self.limits[m.test])
        finally:
            path.write_text(original)
        took = time.monotonic() - begun
        if status and m.test not in self.broken_tests:
            self.say(
                f"ok {m.name} ({took:.1f} s): {how if status != 'time limit' else 'time limit'}")
            return True
        self.say(f"not ok {m.name}: {m.file}: {m.means}: not noticed by {m.test}")
        return False

    def worker(self, number, barrier):
        try:
            bench = Bench(self.top, self.scratch / f"worker{number}")
            targets = sorted({t for m in self.mutations for t in test_targets(m.test)})
            bench.make(targets)
        except Wrong as e:
            self.wrong.append(str(e))
            barrier.abort()
            return
        self.baseline(bench)
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            return
        while not self.wrong:
            try:
                m = self.work.get_nowait()
            except queue.Empty:
                return
            try:
                noticed = self.one(bench, m)
            except Wrong as e:
                self.say(f"not ok {e}")
                noticed = False
            with self.lock:
                self.results.append(noticed)

    def run(self, workers):
        barrier = threading.Barrier(workers)
        threads = [threading.Thread(target=self.worker, args=(n, barrier)) for n in range(workers)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for line in self.wrong:
            print(f"check-mutations: {line}", file=sys.stderr)
        bad = self.results.count(False) + len(self.broken_tests) + len(self.wrong)
        return self.results.count(True), bad


def chosen(all_entries, wanted):
    names = [m.name for m in all_entries]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise Wrong(f"two mistakes have one name: {', '.join(sorted(twice))}")
    if not wanted:
        return [m for m in all_entries if m.quick or not SHORT]
    some = [m for m in all_entries if m.name in wanted or m.where.split(".")[0] in wanted]
    if not some:
        raise Wrong(f"no mistake and no table has such a name: {' '.join(wanted)}")
    return some


def main():
    top = pathlib.Path(sys.argv[1]).resolve()
    here = pathlib.Path(__file__).resolve().parent
    entries = [m for table in sorted(here.glob("*.mutations")) for m in parse(table)]
    mutations = chosen(entries, sys.argv[2:])
    # Finds stale entries of all tables before anything is built.
    for m in entries:
        mutate((top / m.file).read_text(), m)
    if os.environ.get("MUTATIONS_TEST"):
        mutations = [m._replace(test=os.environ["MUTATIONS_TEST"]) for m in mutations]
    skipped = 0
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        kept = [m for m in mutations if not m.test.startswith("root/")]
        skipped = len(mutations) - len(kept)
        mutations = kept
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="fusedio-mutations."))
    try:
        passed, failed = Runner(top, scratch, mutations).run(min(os.cpu_count() or 1,
                                                                 len(mutations), 4))
    finally:
        if os.environ.get("MUTATIONS_KEEP"):
            print(f"scratch directories: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as e:
        print(f"check-mutations: {e}", file=sys.stderr)
        sys.exit(1)
