#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
fio with verification: direct, buffered and mapped I/O with every engine, one at a time and
together. Not one byte may differ.
"""
import json

from lib import Fail, case, expect, main, run

BOTH = ("image", "loop")


def fio(m, *jobs, timeout=180, **common):
    """
    Runs these jobs (dicts) at once in the mount; the case fails on any error or mismatch. Returns
    fio's report.
    """
    argv = ["fio", "--output-format=json", f"--directory={m.point}", "--verify_fatal=1"]
    argv += [f"--{k}={v}" for k, v in common.items()]
    for i, job in enumerate(jobs):
        argv.append(f"--name=job{i}")
        argv += [f"--{k}={v}" for k, v in job.items()]
    p = run(*argv, timeout=timeout, ok=None, cwd=m.env.dir)
    start = p.stdout.find("{")
    if p.returncode != 0 or start < 0:
        raise Fail(f"fio: exit status {p.returncode}: {(p.stderr or p.stdout).strip()[-600:]}")
    report = json.loads(p.stdout[start:])
    for job in report["jobs"]:
        expect(job["error"] == 0, f"{job['jobname']}: error {job['error']}")
        expect(job["read"]["total_ios"] + job["write"]["total_ios"] > 0,
               f"{job['jobname']} did nothing")
    return report


@case(kinds=BOTH, params=("io_uring", "libaio", "psync"))
def direct(env, engine):
    vol = env.volume(256, "-b", "4096")
    with vol.mount() as m:
        for bs, rw in (("4k", "randwrite"), ("64k", "write"), ("1m", "randwrite"),
                       ("512-128k", "randwrite")):
            job = {"ioengine": engine, "iodepth": 16, "direct": 1, "rw": rw, "size": "40m",
                   "verify": "crc32c", "do_verify": 1, "filename": f"f-{engine}-{bs}"}
            job["bsrange" if "-" in bs else "bs"] = bs
            if "-" in bs:
                job["blockalign"] = 4096
                job["bsrange"] = "4k-128k"
            fio(m, job)
    vol.check()


@case(kinds=BOTH)
def buffered_and_mapped(env):
    vol = env.volume(256, "-b", "4096")
    with vol.mount() as m:
        for engine in ("psync", "mmap", "io_uring"):
            fio(m, {"ioengine": engine, "direct": 0, "rw": "randwrite", "bs": "4k", "size": "24m",
                    "verify": "crc32c", "do_verify": 1, "end_fsync": 1, "filename": f"g-{engine}"})
        # One engine writes, another verifies.
        fio(m, {"ioengine": "mmap", "rw": "randwrite", "bs": "4k", "size": "16m",
                "verify": "crc32c", "do_verify": 0, "end_fsync": 1, "filename": "h"})
        fio(m, {"ioengine": "io_uring", "iodepth": 8, "direct": 1, "rw": "randwrite", "bs": "4k",
                "size": "16m", "verify": "crc32c", "verify_only": 1, "filename": "h"})
        fio(m, {"ioengine": "io_uring", "iodepth": 8, "direct": 1, "rw": "write", "bs": "128k",
                "size": "16m", "verify": "crc32c", "do_verify": 0, "filename": "i"})
        fio(m, {"ioengine": "psync", "direct": 0, "rw": "write", "bs": "128k", "size": "16m",
                "verify": "crc32c", "verify_only": 1, "filename": "i"})
    vol.check()


@case(kinds=BOTH, timeout=240)
def together(env):
    """
    Direct, buffered and mapped writers work on one file, each in its own part, while others extend
    files of their own.
    """
    vol = env.volume(400, "-b", "4096")
    with vol.mount() as m:
        size = 16
        fio(m, {"rw": "write", "bs": "1m", "direct": 1, "size": f"{4 * size}m",
                "filename": "shared", "ioengine": "psync"})
        part = {"filename": "shared", "size": f"{size}m", "rw": "randrw", "bs": "4k",
                "verify": "crc32c", "do_verify": 1, "verify_backlog": 256, "loops": 2}
        # The mapped part is the first one, because fio's mmap engine ignores the offset.
        fio(m, dict(part, offset="0m", ioengine="mmap"),
            dict(part, offset=f"{size}m", ioengine="psync", direct=0),
            dict(part, offset=f"{2 * size}m", ioengine="libaio", iodepth=16, direct=1),
            dict(part, offset=f"{3 * size}m", ioengine="io_uring", iodepth=16, direct=1),
            {"filename": "growing", "size": "24m", "rw": "write", "bs": "20k", "verify": "crc32c",
             "do_verify": 1,
             "ioengine": "psync", "fsync": 16},
            {"filename": "growing-direct", "size": "24m", "rw": "write", "bs": "16k",
             "verify": "crc32c", "do_verify": 1,
             "ioengine": "io_uring", "iodepth": 8, "direct": 1},
            timeout=220)
    vol.check()


@case(kinds=BOTH)
def preallocated(env):
    """
    Random direct writes into blocks that are allocated but unwritten: the rest of them still reads
    as zeroes.
    """
    vol = env.volume(256, "-b", "4096")
    with vol.mount() as m:
        fio(m, {"fallocate": "posix", "size": "64m", "io_size": "16m", "rw": "randwrite",
                "bs": "4k", "direct": 1, "ioengine": "io_uring", "iodepth": 16, "verify": "crc32c",
                "do_verify": 1, "filename": "p"})
        with open(m.path("p"), "rb") as f:
            off = zeroes = 0
            while block := f.read(4096):
                if block == bytes(4096):
                    zeroes += 1
                else:
                    expect(block[:2] == b"\xca\xac",
                           f"block {off // 4096} holds neither fio's header nor zeroes")
                off += 4096
            expect(zeroes > 8000, f"only {zeroes} blocks of zeroes")
    vol.check()


@case(kinds=BOTH)
def survives_remount(env):
    vol = env.volume(200, "-b", "4096")
    job = {"ioengine": "libaio", "iodepth": 32, "direct": 1, "rw": "randwrite", "bs": "8k",
           "size": "64m", "verify": "crc32c", "filename": "f", "randseed": 42}
    with vol.mount() as m:
        fio(m, dict(job, do_verify=0))
    vol.check()
    with vol.mount() as m:
        fio(m, dict(job, verify_only=1))
    vol.check()


if __name__ == "__main__":
    main()
