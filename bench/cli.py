# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the benchmark: what to measure, on what, and what to do with the results."""
import argparse
import datetime
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import jobs as jobs_
import measure
import report
import srctree
import svg
from devices import KINDS
from peers import PEERS, Switch
from proc import (Failed, Interrupted, LeftOut, catch_signals, ignore_signals, keep_awake,
                  let_sleep, run)

HERE = os.path.dirname(os.path.abspath(__file__))
SHORT = dict(seconds=0.35, size=64, rounds=1, files=2000, tree=600)
FULL = dict(seconds=1.5, size=400, rounds=3, files=10_000, tree=5000)
# The figures people ask for first: random reads with many requests in flight, and large writes to a
# new file, compared with fuse2fs and the kernel.
HEADLINE = dict(seconds=1.0, size=400, rounds=5, files=2000, tree=600)
HEADLINE_JOBS, HEADLINE_PEERS = "r4k-uring-1,a1m-psync,a1m-d8", "ext4,fuse2fs,ring"

EXAMPLES = """
examples:
  run-bench                                   everything, on both devices (see --plan for how long)
  run-bench --short                           some jobs, once: about a minute
  run-bench --headline                        random reads, large appends, beside fuse2fs: a minute
  run-bench --jobs 'r4k-*,untar' --peers ext4,ring --rounds 9 --device tmpfs
  run-bench --variant new=transport=uring,poll=50 --variant old=transport=uring@/old/fusedio \\
      --jobs r4k-libaio-1
  run-bench --plan 90 --append all.json | while read -r slice; do eval "$slice"; done
  run-bench --report all.json --svg speed --docs .
"""


class Usage(Exception):
    """The command line is wrong; the message says how."""


def choose_jobs(words, short):
    """The jobs that these names, patterns or groups select, in the order of the tables."""
    if not words:
        return [j for j in jobs_.JOBS if j.short or not short]
    chosen = set()
    for w in words.split(","):
        hit = [j.key for j in jobs_.JOBS if fnmatch.fnmatchcase(j.key, w) or j.group == w]
        if not hit:
            raise Usage(f"there is no job {w}; --list shows all")
        chosen.update(hit)
    return [j for j in jobs_.JOBS if j.key in chosen]


def choose_peers(words, variants):
    """The peers with these names, and all variants, in the order of the tables."""
    every = [*PEERS, *variants]
    if not words:
        return every
    for w in words.split(","):
        if w not in every:
            raise Usage(f"there is no peer {w}; --list shows all")
    return [p for p in every if p in words.split(",") or p in variants]


def parse_variants(words):
    """NAME=OPTIONS[@PROGRAM] adds a fusedio with other options, or another program."""
    out = {}
    for w in words:
        m = re.fullmatch(r"([A-Za-z0-9_.+-]+)=([^@]+)(?:@(.+))?", w)
        if not m or m[1] in PEERS or m[1] == "template":
            raise Usage(f"{w}: a variant is NAME=OPTIONS or NAME=OPTIONS@PROGRAM, with a new name")
        out[m[1]] = (m[2], m[3])
    return out


def estimate(jobs, peers, rounds, seconds=FULL["seconds"]):
    """Roughly how many seconds these jobs take on one device."""
    setup = 0.9 * peers + 3 + (1.0 * peers if any(j.needs for j in jobs) else 0)
    return setup + rounds * (1.5 + sum(((seconds + 0.25) * j.length + j.extra) * (
        peers if j.raw else max(1, peers - 2)) for j in jobs))


def slices(jobs, peers, rounds, limit, seconds=FULL["seconds"]):
    """
    Splits the list of jobs into parts that take at most limit seconds, unless a single job takes
    longer. Jobs of one quotient stay together.
    """
    tied = {q[1]: q[2] for q in jobs_.QUOTIENTS}
    units = []
    for j in jobs:
        if units and any(k.key == tied.get(j.key) for k in units[-1]):
            units[-1].append(j)
        else:
            units.append([j])
    out = []
    for u in units:
        if out and estimate(out[-1] + u, peers, rounds, seconds) <= limit:
            out[-1] += u
        else:
            out.append(u)
    return out


def first_line(*argv):
    try:
        p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return p.stdout.strip().splitlines()[0] if p.stdout.strip() else ""


def version_in(text):
    m = re.search(r"\d+\.\d+(\.\d+)*", text)
    return m[0] if m else "?"


def machine():
    """The properties of the machine on which the results depend."""
    cpu = system = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    with open("/etc/os-release", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("PRETTY_NAME="):
                system = line.partition("=")[2].strip().strip('"')
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"fio": version_in(first_line("fio", "--version"))}
    for name, argv in (("e2fsprogs", ("mke2fs", "-V")),
                       ("QEMU", ("qemu-storage-daemon", "--version"))):
        if shutil.which(argv[0]):
            versions[name] = version_in(first_line(*argv))
    return {"cpus": os.cpu_count(), "cpu": cpu, "memory_gib": round(memory / 2**30),
            "kernel": os.uname().release, "system": system, "versions": versions}


def parse(argv):
    short = os.environ.get("BENCH_SHORT") == "1" or "--short" in argv
    headline = "--headline" in argv
    d = SHORT if short else HEADLINE if headline else FULL
    ap = argparse.ArgumentParser(
        prog="run-bench",
        description="fusedio beside other ways to use the same device: how fast, for how much CPU "
        "time.", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = ap.add_argument_group("what to measure")
    what.add_argument("--short", action="store_true", default=short,
                      help="some jobs, one round, tmpfs only: about a minute")
    what.add_argument(
        "--headline", action="store_true",
        help="4 KiB random reads at depth 32 and 1 MiB appends, fusedio beside ext4 and fuse2fs, "
        "five rounds, tmpfs only: a minute")
    what.add_argument("--jobs", default=HEADLINE_JOBS if headline else "", metavar="LIST",
                      help="names, patterns or groups, with commas")
    what.add_argument("--peers", default=HEADLINE_PEERS if headline else "", metavar="LIST",
                      help="names, with commas")
    what.add_argument("--variant", action="append", default=[], metavar="NAME=OPTIONS[@PROGRAM]",
                      help="one more fusedio (may be repeated)")
    what.add_argument("--device", choices=["tmpfs", "file", "both"], default="tmpfs" if short
                      or headline else "both", help="what the loop devices lie over")
    what.add_argument("--fusedio", default=os.path.join(os.getcwd(), "fusedio"), metavar="PATH",
                      help="the program (default: ./fusedio)")
    what.add_argument("--dir", default=os.getcwd(),
                      help="where the image files of --device file go (default: here)")
    size = ap.add_argument_group("how much")
    size.add_argument("--rounds", type=int, default=d["rounds"], help="default %(default)s")
    size.add_argument("--seconds", type=float, default=d["seconds"],
                      help="how long a job runs where it may choose; default %(default)s")
    size.add_argument("--size", type=int, default=d["size"], metavar="MIB",
                      help="size of the files; default %(default)s")
    size.add_argument("--files", type=int, default=d["files"],
                      help="files of the jobs on names; default %(default)s")
    size.add_argument("--tree", type=int, default=d["tree"], metavar="FILES",
                      help="files of the source tree; default %(default)s")
    size.add_argument(
        "--awake", action="store_true",
        help="keep CPUs from halting: steadier figures at depth 1, above all in virtual machines")
    out = ap.add_argument_group("results")
    out.add_argument("--json", default="bench.json", metavar="FILE",
                     help="where they go, begun anew (default: bench.json)")
    out.add_argument("--append", metavar="FILE", help="where they go, added to what is there")
    out.add_argument("--report", metavar="FILE", help="measures nothing: shows what is in the file")
    out.add_argument("--svg", metavar="NAME",
                     help="the plots' name, without -tmpfs.svg (default: as the JSON file)")
    out.add_argument("--markdown", metavar="FILE",
                     help="writes the tables of doc/performance.md to a file (- is the terminal)")
    out.add_argument(
        "--docs", metavar="TREE",
        help="writes these tables and those of README.md into the documents of a source tree")
    other = ap.add_argument_group("other")
    other.add_argument("--list", action="store_true", help="shows jobs and peers")
    other.add_argument(
        "--plan", type=float, metavar="SECONDS",
        help="prints commands that measure the same in slices of that length at most")
    other.add_argument("--self-test", action="store_true",
                       help="tests the bench itself; needs no root")
    args = ap.parse_args(argv)
    if (min(args.rounds, args.files, args.tree) < 1 or args.size < 16
        or not 0.05 <= args.seconds <= 120):
        raise Usage("at least one round, one file and 16 MiB, and from 0.05 to 120 seconds")
    args.variants = parse_variants(args.variant)
    args.job_list = choose_jobs(args.jobs, args.short)
    args.peer_list = choose_peers(args.peers, args.variants)
    args.kinds = list(KINDS) if args.device == "both" else [args.device]
    return args


def show_list():
    print("peers:")
    for k, (title, _) in PEERS.items():
        print(f"  {k:10} {title}")
    group = None
    for j in jobs_.JOBS:
        if j.group != group:
            group = j.group
            print(f"{group}:")
        print(f"  {j.key:16} {j.title}{' (short)' if j.short else ''}")


def show_plan(args, argv):
    """Prints commands, one in a line; a comment says how long each takes."""
    words = []
    skip = False
    for w in argv:
        if skip or w.split("=")[0] in ("--plan", "--jobs", "--device", "--append", "--json"):
            skip = "=" not in w and not skip
            continue
        words.append(w)
    result = args.append or args.json
    for kind in args.kinds:
        for part in slices(args.job_list, len(args.peer_list), args.rounds, args.plan,
                           args.seconds):
            cmd = [os.path.join(HERE, "run-bench"), *words, "--device", kind, "--append", result,
                   "--jobs", ",".join(j.key for j in part)]
            print(shlex.join(cmd)
                  + f"  # {estimate(part, len(args.peer_list), args.rounds, args.seconds):.0f} s")


def show_report(res, args, path):
    text = report.text_report(res)
    print(text)
    base = args.svg or os.path.splitext(path)[0]
    for kind in res.kinds():
        picture = svg.plot(res, kind)
        if picture:
            with open(f"{base}-{kind}.svg", "w", encoding="utf-8") as f:
                f.write(picture)
            print(f"plot: {base}-{kind}.svg")
    if args.markdown or args.docs:
        table = report.tables(res)
        if args.markdown == "-":
            print(table)
        elif args.markdown:
            with open(args.markdown, "w", encoding="utf-8") as f:
                f.write(table + "\n")
        if args.docs and res.kinds():
            report.into_document(os.path.join(args.docs, "doc", "performance.md"), table)
            report.into_document(os.path.join(args.docs, "README.md"),
                                 report.headlines(res, res.kinds()[0]))


def refuse(args):
    """Why the measurement cannot begin, or None."""
    if os.geteuid() != 0:
        return "needs root: it makes loop devices and mounts"
    for tool in ("fio", "losetup", "mke2fs", "e2fsck", "tar"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        return "needs /dev/fuse and loop devices"
    for program in {args.fusedio, *(v[1] for v in args.variants.values() if v[1])}:
        if not os.access(program, os.X_OK):
            return f"{program} is no program; --fusedio says where it is"
    return None


def client_program(args, work):
    """
    The path of benchtool, the client of some jobs. It is beside fusedio if `make bench` built it;
    otherwise it is compiled here.
    """
    built = os.path.join(os.path.dirname(os.path.abspath(args.fusedio)), "bench", "benchtool")
    if os.access(built, os.X_OK):
        return built
    made = os.path.join(work, "benchtool")
    run(os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-o", made,
        os.path.join(HERE, "benchtool.c"), "-lpthread")
    return made


def open_results(args):
    path = args.append or args.json
    here = machine()
    if args.append and os.path.exists(path):
        res = report.Results.load(path)
        if res.data["machine"] != here:
            raise Usage(f"{path} comes from another machine or other versions; --json begins anew")
    else:
        res = report.Results()
        res.data["machine"] = here
    return res, path


def measure_all(args, res, path):
    run_id = f"{datetime.datetime.now(datetime.timezone.utc):%y%m%d%H%M%S}"
    res.data["runs"].append(
        {"time": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}", "id": run_id,
         "rounds": args.rounds, "seconds": args.seconds, "size_mib": args.size, "files": args.files,
         "tree": args.tree, "awake": args.awake,
         "variants": {k: v[0] for k, v in args.variants.items()},
         "version": version_in(first_line(args.fusedio, "-V"))})
    needs = {n for j in args.job_list for n in j.needs}
    switch = Switch()
    work = tempfile.mkdtemp(prefix="fdio-bench-work-")
    fields = []
    try:
        tar = os.path.join(work, "tree.tar")
        settings = jobs_.Settings(args.seconds, args.size, args.files, tar,
                                  srctree.make(tar, args.tree), client_program(args, work))
        settings.fio_idle_us = jobs_.fio_idle()
        if args.awake:
            keep_awake()
        for kind in args.kinds:
            field = measure.Field(kind, args.peer_list, args, needs, switch)
            fields.append(field)
            try:
                with field:
                    measure.rounds(field, args.job_list, settings, args, res.add, run_id)
            except LeftOut as e:
                field.errors.append(f"{KINDS[kind]}: {e}")
    finally:
        ignore_signals()
        let_sleep()
        switch.restore()
        shutil.rmtree(work, ignore_errors=True)
        errors = [e for f in fields for e in f.errors]
        res.data["errors"] += errors
        for f in fields:
            left = res.data["left_out"].setdefault(f.kind, {})
            left.update(f.left_out)
            for p in res.peers(f.kind):
                if p not in f.left_out:
                    left.pop(p, None)
        res.save(path)
        catch_signals()
    return errors


def main(argv):
    try:
        return command(argv)
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stdout = None
        return 1


def command(argv):
    try:
        args = parse(argv)
        if args.self_test:
            import selftest  # pylint: disable=import-outside-toplevel
            return selftest.main()
        if args.list:
            show_list()
            return 0
        if args.plan:
            show_plan(args, argv)
            return 0
        if args.report:
            show_report(report.Results.load(args.report), args, args.report)
            return 0
        catch_signals()
        why = refuse(args)
        if why:
            raise Usage(why)
        res, path = open_results(args)
    except BrokenPipeError:
        raise
    except (Usage, OSError, ValueError) as e:
        print(f"run-bench: {e}", file=sys.stderr)
        return 2
    except Interrupted:
        return 130
    try:
        errors = measure_all(args, res, path)
    except Interrupted as e:
        print(f"run-bench: ended by {e}; what was measured is in {path}", file=sys.stderr)
        return 130
    except (Failed, LeftOut, OSError) as e:
        print(f"run-bench: {e}", file=sys.stderr)
        return 1
    show_report(res, args, path)
    return 1 if errors else 0
