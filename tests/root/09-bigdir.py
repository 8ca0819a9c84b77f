#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Directories with very many entries: fusedio uses the index, keeps it valid, and builds the same one
as the kernel.
"""
import os
import statistics
import time

from lib import case, drop_caches, expect, expect_eq, main, run

BOTH = ("image", "loop")


def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


@case(kinds=("loop",), timeout=300)
def hundred_thousand(env):
    """
    100,000 names in one directory. Absolute times say nothing on a busy machine, so the median
    batch at the end may take a generous multiple of the median batch at the start; the cost of a
    linear search would grow a hundredfold.
    """
    vol = env.volume(400, "-b", "4096", "-N", "110000")
    nr, batch = 100_000, 1000
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        spent = []
        for b in range(nr // batch):
            begun = time.monotonic()
            for i in range(b * batch, (b + 1) * batch):
                create(m.path("d", f"name-{i:07}"))
            spent.append(time.monotonic() - begun)
        ratio = statistics.median(spent[-20:]) / statistics.median(spent[:20])
        expect(ratio < 12, f"creating is {ratio:.1f} times slower in the full directory")
        expect_eq(len(os.listdir(m.path("d"))), nr, "entries")
        drop_caches()
        for i in range(0, nr, 997):
            os.stat(m.path("d", f"name-{i:07}"))
            expect(not os.path.exists(m.path("d", f"nome-{i:07}")),
                   "a name that was never made exists")
        for i in range(0, nr, 2):
            os.unlink(m.path("d", f"name-{i:07}"))
        expect_eq(len(os.listdir(m.path("d"))), nr // 2, "entries after removing half")
    vol.check()
    flags = run("debugfs", "-R", "stat /d", vol.target).stdout
    expect("Flags: 0x81" in flags or "Flags: 0x1081" in flags,
           "the directory has no index: " + flags.splitlines()[1])
    with vol.kmount("ro") as k:
        names = os.listdir(os.path.join(k, "d"))
        expect_eq(len(names), nr // 2, "entries in the kernel's view")
        for i in range(1, nr, 1999):
            expect_eq(os.path.exists(os.path.join(k, "d", f"name-{i:07}")), i % 2 == 1,
                      f"name {i} in the kernel's view")


@case(kinds=BOTH, params=("half_md4", "tea", "legacy"), timeout=180)
def hashes(env, algorithm):
    """
    With small blocks, so that the index has two levels, a directory is filled, thinned out, filled
    again and emptied.
    """
    vol = env.volume(64, "-b", "1024", "-N", "20000", "-E", "lazy_itable_init=0")
    run("tune2fs", "-E", f"hash_alg={algorithm}", vol.target)
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        for i in range(6000):
            create(m.path("d", f"a-rather-long-name-to-fill-blocks-{i}"))
        for i in range(0, 6000, 3):
            os.unlink(m.path("d", f"a-rather-long-name-to-fill-blocks-{i}"))
        for i in range(3000):
            create(m.path("d", f"another-name-{i}"))
        expect_eq(len(set(os.listdir(m.path("d")))), 7000, "entries")
    vol.check()
    with vol.kmount() as k:
        for i in range(3000):
            os.stat(os.path.join(k, "d", f"another-name-{i}"))
            if i % 2:
                os.unlink(os.path.join(k, "d", f"another-name-{i}"))
        for i in range(500):
            create(os.path.join(k, "d", f"by-the-kernel-{i}"))
    with vol.mount() as m:
        names = os.listdir(m.path("d"))
        expect_eq(len(names), 7000 - 1500 + 500, "entries after the kernel's turn")
        for n in names:
            os.unlink(m.path("d", n))
        os.rmdir(m.path("d"))
    vol.check()


@case(timeout=240)
def many_subdirectories(env):
    """More subdirectories than a link count can express."""
    vol = env.volume(400, "-b", "1024", "-N", "70000", "-i", "1024")
    nr = 65_010
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        for i in range(nr):
            os.mkdir(m.path("d", str(i)))
        expect_eq(os.stat(m.path("d")).st_nlink, 1,
                  "links of a directory with too many subdirectories")
        for i in range(100):
            os.rmdir(m.path("d", str(i)))
    vol.check()


if __name__ == "__main__":
    main()
