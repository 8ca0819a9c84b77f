#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Trees that are made through fusedio: e2fsck finds nothing, and the kernel shows what fusedio showed.
"""
import os
import random

import tree
from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Fail, case, expect,
                 fallocate, libc, main, pattern, read_file, syscheck)

BOTH = ("image", "loop")
FORMATS = {f"{bs}-{'csum' if csum else 'nocsum'}-{'64bit' if b64 else '32bit'}":
           ("-b", str(bs), "-O", f"{'' if csum else '^'}metadata_csum,{'' if b64 else '^'}64bit")
           for bs in (1024, 2048, 4096) for csum in (1, 0) for b64 in (1, 0)}
# Fields that reading the tree changes, so they are not compared.
LIVE = ("atime",)


def sync_all(point):
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscheck(libc.syncfs(fd), "syncfs")
    finally:
        os.close(fd)


def write_and_compare(env, args, **fill):
    bs = int(args[args.index("-b") + 1])
    vol = env.volume(200, "-N", "12000", *args)
    with vol.mount() as m:
        tree.fill(m.point, bs, **fill)
        sync_all(m.point)  # allocates blocks whose allocation was delayed
        live = tree.scan(m.point)
    vol.check()
    with vol.kmount("ro", "noatime") as k:
        kernel = tree.scan(k)
    diff = tree.differences(live, kernel, ignore=LIVE)
    if diff:
        raise Fail("fusedio while mounted / kernel: " + "; ".join(diff))
    return vol, kernel


@case(kinds=("image",), params=tuple(FORMATS), timeout=240)
def formats(env, name):
    write_and_compare(env, FORMATS[name])


@case(kinds=("loop",), timeout=240)
def same_as_the_kernel(env):
    """The same calls on both give trees that differ only in what the calls do not decide."""
    args = ("-b", "4096")
    _, ours = write_and_compare(env, args)
    vol = env.volume(200, "-N", "12000", *args)
    with vol.kmount() as k:
        tree.fill(k, 4096)
    with vol.kmount("ro", "noatime") as k:
        theirs = tree.scan(k)
    now = ("ino", "ctime", "birth", "blocks", "segments", "sha256")
    for t in (ours, theirs):
        for p, r in t.items():
            if not p.startswith(b"times/") and p != b"deep":
                r["mtime"] = 0
            r["atime"] = 0
            r.pop("dirent", None)
            r["empty"] = r.get("segments") == []
    diff = tree.differences(theirs, ours, ignore=now)
    if diff:
        raise Fail("made by the kernel / by fusedio: " + "; ".join(diff))


@case(kinds=BOTH, params=(1024, 4096), timeout=240)
def random_writes(env, bs):
    """
    Random writes, truncations and holes in some files, compared with copies in memory, and again
    through the kernel's ext4.
    """
    vol = env.volume(128, "-b", str(bs))
    rng = random.Random(bs)
    limit = 400_000
    model = {f"f{i}": bytearray() for i in range(6)}
    data = pattern(1 << 20, 11)

    def grow(b, n):
        if len(b) < n:
            b.extend(bytes(n - len(b)))

    with vol.mount() as m:
        for step in range(1500):
            name = rng.choice(sorted(model))
            b = model[name]
            off = rng.randrange(limit)
            n = rng.choice((1, 17, 511, 512, bs, bs + 1, 3 * bs, 20_000, 70_000))
            op = rng.random()
            fd = os.open(m.path(name), os.O_CREAT | os.O_RDWR)
            if op < 0.6:
                chunk = data[step * 16:step * 16 + n]
                os.pwrite(fd, chunk, off)
                grow(b, off + n)
                b[off:off + n] = chunk
            elif op < 0.75:
                os.ftruncate(fd, off)
                del b[off:]
                grow(b, off)
            elif op < 0.85:
                fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, off, n)
                end = min(len(b), off + n)
                if off < end:
                    b[off:end] = bytes(end - off)
            elif op < 0.9:
                fallocate(fd, FALLOC_ZERO_RANGE, off, n)
                grow(b, off + n)
                b[off:off + n] = bytes(n)
            elif op < 0.95:
                fallocate(fd, 0, off, n)
                grow(b, off + n)
            else:
                os.fsync(fd)
            os.close(fd)
            if step % 100 == 99 and read_file(m.path(name)) != bytes(b):
                raise Fail(f"{name} differs after step {step}")
        for name, b in model.items():
            expect(not b or read_file(m.path(name)) == bytes(b), f"{name} differs at the end")
    vol.check()
    with vol.kmount("ro") as k:
        for name, b in model.items():
            expect(not b or read_file(os.path.join(k, name)) == bytes(b),
                   f"{name} differs in the kernel's view")


@case(kinds=BOTH)
def kernel_and_back(env):
    """fusedio and the kernel take turns in changing one tree."""
    vol = env.volume(160)
    model = {}
    rng = random.Random(3)
    for turn in range(6):
        with (vol.mount() if turn % 2 else vol.kmount()) as m:
            point = m.point if turn % 2 else m
            for name, data in model.items():
                with open(os.path.join(point, name), "rb") as f:
                    expect(f.read() == data, f"{name} differs in turn {turn}")
            for name in rng.sample(sorted(model), len(model) // 3):
                os.unlink(os.path.join(point, name))
                del model[name]
            for i in range(60):
                name = f"turn-{turn}-{i}"
                model[name] = pattern(rng.randrange(60_000), turn * 100 + i)
                tree.put(os.path.join(point, name), model[name])
        vol.check()


if __name__ == "__main__":
    main()
