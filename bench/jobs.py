# SPDX-License-Identifier: GPL-2.0-or-later
"""
The jobs: the workloads, and how each is measured.

A job has three parts: prepare, run and clean. Only run is measured; it returns an Outcome. Jobs on
the file `data` also run on the raw device and on QEMU's export, which are just one file.

The wanted ratios are the project's targets on a quiet machine with 2 CPUs and a loop device over
tmpfs.
"""
import json
import os
import shutil
from dataclasses import dataclass, field, replace

from proc import Failed, run

EXT4, FUSE2FS, QEMU = "ext4", "fuse2fs", "qemu"

# The size of files that go through the page cache. A virtual machine returns free memory to its
# host, and getting it back costs 3 ms for each MiB, more than any file system. This much is freed
# and used again before it is returned.
WARM_MIB = 96


@dataclass
class Settings:
    """The options of the command line that concern the jobs."""
    seconds: float
    size_mib: int
    files: int
    tar: str
    tar_entries: int
    tool: str
    fio_idle_us: float = 0.0


@dataclass
class Outcome:
    """
    The result of a run. value: the number in the tables, in the job's unit; ops: the operations by
    which CPU time is divided; client_us: CPU time of the client; starts: how often fio was started.
    """
    value: float
    ops: float
    client_us: float
    starts: int = 0


@dataclass
class Job:
    """A workload, and what the tables say about it."""

    key: str
    title: str
    group: str
    unit: str
    run: callable
    prepare: callable = None
    clean: callable = None
    raw: bool = True          # also runs on the raw device and QEMU's export
    writes: bool = False      # e2fsck checks the volume afterwards
    needs: tuple = ()         # "space": new blocks; "fragments": the file of many extents
    cold: bool = False        # the peer is mounted again before
    short: bool = False       # part of --short
    want: dict = field(default_factory=dict)  # peer -> the wanted ratio to it
    # roughly how long a run takes, for plans: length times --seconds, plus extra seconds
    length: float = 1.0
    extra: float = 0.0


def fio(target, s, expect_ops=True, **options):
    """
    Runs fio once. Returns (operations per second, MiB per second, operations, CPU time in us).
    """
    argv = ["fio", "--output-format=json", "--name=bench", f"--filename={target}",
            "--clocksource=clock_gettime", "--randrepeat=1", "--norandommap=1", "--group_reporting",
            "--fallocate=none", "--allow_file_create=1"]
    argv += [f"--{k}" if v is True else f"--{k}={v}" for k, v in options.items()]
    p = run(*argv)
    try:
        j = json.loads(p.out[p.out.index("{"):])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        raise Failed(
            f"fio printed no result: {p.out.strip()[:200]} {p.err.strip()[:200]}") from None
    if j["error"]:
        raise Failed(f"fio: error {j['error']} {p.err.strip()[:200]}")
    ops = j["read"]["total_ios"] + j["write"]["total_ios"]
    if expect_ops and not ops:
        raise Failed("fio did nothing")
    return (j["read"]["iops"] + j["write"]["iops"],
            (j["read"]["bw_bytes"] + j["write"]["bw_bytes"]) / (1 << 20), ops,
            max(0.0, p.cpu_us - s.fio_idle_us))


def fio_idle():
    """
    The CPU time of a fio that does nothing, which is subtracted from the client's and the
    machine's: a run that writes 400 MiB in a tenth of a second costs hardly more than the start of
    fio.
    """
    return min(run("fio", "--clocksource=clock_gettime", "--output-format=json", "--name=idle",
                   "--ioengine=null", "--size=4k").cpu_us for _ in range(3))


def on_data(engine, depth, rw, bs, jobs=1, threads=False, mib=False, name=None, size=None, **more):
    """A job that works for the given time on a file that exists."""
    def job(peer, s):
        path = peer.data if name is None else os.path.join(peer.root, name)
        options = dict(ioengine=engine, iodepth=depth, rw=rw, bs=bs, direct=1, time_based=True,
                       runtime=f"{int(s.seconds * 1000)}ms", size=size or f"{s.size_mib}m",
                       numjobs=jobs, **more)
        if threads:
            options["thread"] = True
        iops, rate, ops, cpu = fio(path, s, **options)
        return Outcome(rate if mib else iops, ops, cpu, 1)
    return job


def new_file(engine, depth, bs, direct, mib_limit=None, **more):
    """
    A job that writes a new file from begin to end, at most four times, until half of the given time
    is over.
    """
    def job(peer, s):
        path = os.path.join(peer.root, "new")
        size = min(s.size_mib, mib_limit or s.size_mib)
        mib = ops = cpu = spent = 0
        passes = 0
        while passes == 0 or (spent < s.seconds / 2 and passes < 4):
            remove(path)
            _, rate, n, c = fio(path, s, ioengine=engine, iodepth=depth, rw="write", bs=bs,
                                direct=direct, size=f"{size}m", **more)
            mib, ops, cpu, passes = mib + size, ops + n, cpu + c, passes + 1
            spent += size / rate
        return Outcome(mib / spent, ops, cpu, passes)
    return job


def buffered_read(peer, s):
    """Reads the beginning of the file with an empty page cache, once or several times."""
    size = min(s.size_mib, WARM_MIB)
    mib = ops = cpu = spent = 0
    passes = 0
    while passes == 0 or (spent < s.seconds / 2 and passes < 12):
        _, rate, n, c = fio(peer.data, s, ioengine="psync", rw="read", bs="128k", direct=0,
                            invalidate=1, size=f"{size}m")
        mib, ops, cpu, passes = mib + size, ops + n, cpu + c, passes + 1
        spent += size / rate
    return Outcome(mib / spent, ops, cpu, passes)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def remove_new(peer, _):
    remove(os.path.join(peer.root, "new"))


def make_dir(peer, _):
    remove_dir(peer, _)
    os.mkdir(os.path.join(peer.root, "dir"))


def remove_dir(peer, _):
    remove(os.path.join(peer.root, "dir"))


def tool(op, amount, *more):
    """A job that runs a loop of bench/benchtool.c in a directory."""
    def job(peer, s):
        count = s.files if amount == "files" else s.seconds
        p = run(s.tool, op, os.path.join(peer.root, "dir"), count, *more)
        n, ns = (int(x) for x in p.out.split())
        return Outcome(n / (ns / 1e9), n, p.cpu_us)
    return job


def files_there(peer, s):
    """Makes the directory with all files, unless the job before has left it."""
    last = os.path.join(peer.root, "dir", f"f{s.files - 1}")
    if not os.path.exists(last):
        make_dir(peer, s)
        run(s.tool, "create", os.path.join(peer.root, "dir"), s.files)


def clock(argv, entries):
    """Runs a command and measures its whole time."""
    p = run("sh", "-c", 'b=$(date +%s%N); "$@" || exit 1; e=$(date +%s%N); echo $((e - b))', "sh",
            *argv)
    ns = int(p.out.split()[-1])
    return Outcome(entries / (ns / 1e9), entries, p.cpu_us)


def untar(peer, s):
    return clock(["tar", "-C", os.path.join(peer.root, "dir"), "-xf", s.tar], s.tar_entries)


def tree_there(peer, s):
    """Unpacks the source tree, unless the job before has left it."""
    if not os.path.isdir(os.path.join(peer.root, "dir", "src")):
        make_dir(peer, s)
        run("tar", "-C", os.path.join(peer.root, "dir"), "-xf", s.tar)


def rm_tree(peer, s):
    return clock(["rm", "-r", os.path.join(peer.root, "dir", "src")], s.tar_entries)


def rw_name(rw):
    return "read" if rw == "randread" else "overwrite"


def random_jobs():
    wants = {("psync", 1): (0.9, 0.9), ("psync", 4): (0.75, 0.75), ("libaio", 1): (0.7, 0.8),
             ("libaio", 2): (0.75, 0.75), ("io_uring", 2): (0.85, None)}
    short = {("psync", 1), ("libaio", 1)}
    for engine, depth, counts in (("psync", 1, (1, 2, 4)), ("libaio", 32, (1, 2)),
                                  ("io_uring", 32, (1, 2))):
        for n in counts:
            for i, rw in enumerate(("randread", "randwrite")):
                want = {QEMU: 2.5}
                target = wants.get((engine, n), (None, None))[i]
                if target:
                    want[EXT4] = target
                if depth == 32:
                    want[FUSE2FS] = 10
                who = {"psync": "thread" if n == 1 else "threads"}.get(engine,
                                                                       "job" if n == 1 else "jobs")
                yield Job(
                    f"{rw[4]}4k-{engine.replace('io_', '')}-{n}",
                    f"4 KiB random {rw_name(rw)}, {engine}{', depth 32' if depth == 32 else ''}, "
                    f"{n} {who}", "4 KiB direct", "op/s",
                    on_data(engine, depth, rw, "4k", jobs=n, threads=engine == "psync"),
                    writes=rw == "randwrite", short=(engine, n) in short, want=want)


def sequential_jobs():
    wants = {"read": 0.95, "write": 1.0, "append": 0.9}
    for bs, word in (("128k", "128 KiB"), ("1m", "1 MiB")):
        for engine, depth, label in (("psync", 1, "psync"), ("libaio", 8, "libaio, depth 8")):
            for rw in ("read", "write", "append"):
                want = {QEMU: 2.5} if rw != "append" else {}
                if bs == "1m":
                    want[FUSE2FS] = 10 if rw == "append" else 7
                    if depth == 8:
                        want[EXT4] = wants[rw]
                title = f"{word} sequential {'overwrite' if rw == 'write' else rw}, {label}"
                key = f"{rw[0]}{bs}-{'psync' if depth == 1 else 'd8'}"
                common = dict(group="sequential direct", unit="MiB/s",
                              short=bs == "1m" and depth == 8 and rw != "write", want=want)
                if rw == "append":
                    yield Job(key, title, run=new_file(engine, depth, bs, 1), clean=remove_new,
                              raw=False, writes=True, needs=("space",), **common)
                else:
                    yield Job(key, title, run=on_data(engine, depth, rw, bs, mib=True),
                              writes=rw == "write", **common)


def sync_jobs():
    yield Job("dsync", "4 KiB O_DSYNC random overwrite, psync", "durable", "op/s",
              on_data("psync", 1, "randwrite", "4k", sync="dsync"), writes=True, short=True,
              want={EXT4: 0.8, QEMU: 2.5})
    for n in (1, 8):
        yield Job(f"append-fsync-{n}", f"4 KiB append and fsync, {n} thread{'s' if n > 1 else ''}",
                  "durable", "op/s", tool("appendsync", "seconds", n), make_dir, remove_dir,
                  raw=False, writes=True, short=n == 1, want={EXT4: 0.8})
    yield Job("create-fsync", "create, write 4 KiB and fsync", "durable", "op/s",
              tool("createsync", "seconds"), make_dir, remove_dir, raw=False, writes=True,
              extra=1.5)


def warmed(job):
    """
    The job runs once, shorter, before it is measured: reading the extents from the device, and
    finding memory for the page cache, is not what is measured.
    """
    return dict(run=job, extra=0.8,
                prepare=lambda peer, s: job(peer, replace(s, seconds=min(s.seconds / 2, 0.5))))


def buffered_jobs():
    yield Job("bufread", "sequential read, cold page cache", "buffered, 128 KiB", "MiB/s",
              want={QEMU: 2.5}, **warmed(buffered_read))
    yield Job("bufwrite", "sequential write of a new file, and fsync", "buffered, 128 KiB", "MiB/s",
              clean=remove_new, raw=False, writes=True, needs=("space",),
              **warmed(new_file("psync", 1, "128k", 0, mib_limit=WARM_MIB, end_fsync=1)))


def extent_jobs():
    yield Job("contiguous", "4 KiB random read, libaio, depth 32, contiguous file", "extents",
              "op/s", raw=False, **warmed(on_data("libaio", 32, "randread", "4k")))
    yield Job("fragments", "4 KiB random read, libaio, depth 32, 100,000 extents", "extents",
              "op/s", raw=False, needs=("fragments",),
              **warmed(on_data("libaio", 32, "randread", "4k", name="fragments", size="800000k",
                               blockalign="8k")))


def name_jobs():
    want = {FUSE2FS: 5}
    common = dict(group="names", raw=False, length=0, extra=1.8)
    yield Job("create", "create an empty file", unit="op/s", run=tool("create", "files"),
              prepare=make_dir, writes=True, short=True, want=want, **common)
    yield Job("stat", "stat", unit="op/s", run=tool("stat", "files"), prepare=files_there,
              short=True, want=want, **common)
    yield Job("stat-cold", "stat, just mounted", unit="op/s", run=tool("stat", "files"),
              prepare=files_there, cold=True, want=want, **common)
    yield Job("unlink", "unlink", unit="op/s", run=tool("unlink", "files"), prepare=files_there,
              clean=remove_dir, writes=True, short=True, want=want, **common)
    yield Job("untar", "untar a source tree", unit="file/s", run=untar, prepare=make_dir,
              writes=True, short=True, want=want, **common)
    yield Job("rm", "rm -r of it", unit="file/s", run=rm_tree, prepare=tree_there, clean=remove_dir,
              writes=True, short=True, want=want, **common)


JOBS = [*random_jobs(), *sync_jobs(), *sequential_jobs(), *buffered_jobs(), *extent_jobs(),
        *name_jobs()]
BY_KEY = {j.key: j for j in JOBS}
# Shown below the jobs: the ratio of two jobs, of the same peer in the same round.
QUOTIENTS = [("100,000 extents to contiguous", "fragments", "contiguous", 0.9)]
