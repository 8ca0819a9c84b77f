#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Trees that the kernel made look the same through fusedio: names, attributes, times, contents, holes,
extended attributes.
"""
import errno
import os
import random

import tree
from lib import Fail, case, expect, expect_errno, main, pattern

BOTH = ("image", "loop")
FORMATS = {f"{bs}-{'csum' if csum else 'nocsum'}-{'64bit' if b64 else '32bit'}":
           ("-b", str(bs), "-O", f"{'' if csum else '^'}metadata_csum,{'' if b64 else '^'}64bit")
           for bs in (1024, 2048, 4096) for csum in (1, 0) for b64 in (1, 0)}
OTHERS = {
    "inodes-of-128": ("-I", "128", "-b", "4096", "-O", "^metadata_csum"),
    "inodes-of-1024": ("-I", "1024", "-b", "4096"),
    "no-dir-index": ("-b", "2048", "-O", "^dir_index"),
    "no-flex-bg": ("-b", "1024", "-O", "^flex_bg"),
    "meta-bg": ("-b", "1024", "-O", "meta_bg,^resize_inode"),
    "gdt-csum": ("-b", "4096", "-O", "^metadata_csum,uninit_bg"),
    "csum-seed": ("-b", "4096", "-O", "metadata_csum_seed"),
    "sparse-super2": ("-b", "4096", "-O", "sparse_super2,^resize_inode"),
    "large-dir": ("-b", "1024", "-O", "large_dir"),
    "no-journal": ("-b", "4096", "-O", "^has_journal"),
    "no-huge-file": ("-b", "4096", "-O", "^huge_file"),
}


def compare(env, args, times=None, ignore=(), **fill):
    bs = int(args[args.index("-b") + 1])
    vol = env.volume(160, "-N", "12000", *args)
    with vol.kmount() as k:
        tree.fill(k, bs, times=times, **fill)
    with vol.kmount("ro", "noatime") as k:
        want = tree.scan(k)
    with vol.mount("ro") as m:
        got = tree.scan(m.point)
    expect(len(want) > 100, f"only {len(want)} files")
    diff = tree.differences(want, got, ignore=ignore)
    if diff:
        raise Fail("kernel / fusedio: " + "; ".join(diff))
    vol.check()


@case(kinds=("image",), params=tuple(FORMATS), timeout=180)
def formats(env, name):
    compare(env, FORMATS[name])


@case(kinds=("loop",), params=("1024-csum-64bit", "4096-csum-64bit"), timeout=180)
def on_a_device(env, name):
    compare(env, FORMATS[name])


@case(kinds=("image",), params=tuple(OTHERS), timeout=180)
def others(env, name):
    small = name in ("inodes-of-128", "no-dir-index")
    # An inode of 128 bytes has no room for a time of creation: statx leaves it out or returns 0.
    compare(env, OTHERS[name], times=tree.SHORT_TIMES if name == "inodes-of-128" else None,
            extents=300, entries=600 if small else 6000,
            ignore=("birth",) if name == "inodes-of-128" else ())


@case(kinds=BOTH)
def deep_tree(env):
    """
    A file with an extent tree of three levels is read at random offsets, directly and through the
    page cache.
    """
    vol = env.volume(256, "-b", "1024")
    nr = 30_000
    with vol.kmount() as k:
        tree.fragmented(os.fsencode(os.path.join(k, "f")), 1024, nr)
    with vol.mount("ro") as m:
        block = pattern(1024, 7)
        rng = random.Random(5)
        fd = os.open(m.path("f"), os.O_RDONLY)
        for i in [0, 1, nr - 1] + [rng.randrange(nr) for _ in range(2000)]:
            want = block[i % 1024:] + block[:i % 1024]
            if os.pread(fd, 1024, i * 2048) != want:
                raise Fail(f"block {2 * i} differs")
            if i < nr - 1 and os.pread(fd, 1024, i * 2048 + 1024) != bytes(1024):
                raise Fail(f"the hole at block {2 * i + 1} is not zero")
        os.close(fd)


@case()
def readonly_refuses(env):
    vol = env.volume(32)
    with vol.kmount() as k:
        tree.put(os.path.join(os.fsencode(k), b"f"), b"abc")
    with vol.mount("ro") as m:
        for what in (lambda: os.open(m.path("f"), os.O_WRONLY), lambda: os.mkdir(m.path("d")),
                     lambda: os.unlink(m.path("f")), lambda: os.chmod(m.path("f"), 0o600),
                     lambda: os.setxattr(m.path("f"), "user.a", b"1"),
                     lambda: os.truncate(m.path("f"), 0),
                     lambda: os.rename(m.path("f"), m.path("g"))):
            with expect_errno(errno.EROFS):
                what()


if __name__ == "__main__":
    main()
