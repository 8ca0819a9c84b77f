#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as others make them: features that are only read, settings in the superblock, and what is no file system of ours at all."""
import mmap
import os

from lib import case, expect, expect_eq, main, pattern, read_file, write_file
from tree import differences, scan


def fill_inline(k):
    """Files, directories and links that fit into their inodes, that just do not, and that did once."""
    for n in (0, 1, 59, 60, 61, 100, 130, 150, 158, 159, 160, 161, 170, 4096, 9000):
        write_file(os.path.join(k, f"file{n}"), pattern(n, n + 1))
    for n in (1, 59, 60, 90, 150, 400):
        os.symlink("t" * n, os.path.join(k, f"link{n}"))
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 40):
        d = os.path.join(k, f"dir{n}")
        os.mkdir(d)
        for i in range(n):
            write_file(os.path.join(d, f"name{i}" + "x" * (i % 3)), b"%d" % i)
        if n > 2:
            os.unlink(os.path.join(d, "name1x"))
            os.mkdir(os.path.join(d, "sub"))
            write_file(os.path.join(d, "sub", "deep"), pattern(70))
    write_file(os.path.join(k, "beside"), pattern(80))
    os.setxattr(os.path.join(k, "beside"), "user.a", b"v" * 20)
    os.setxattr(os.path.join(k, "beside"), "user.large", b"w" * 700)
    write_file(os.path.join(k, "grown"), b"short")
    os.truncate(os.path.join(k, "grown"), 100_000)
    write_file(os.path.join(k, "shrunk"), pattern(140))
    os.truncate(os.path.join(k, "shrunk"), 20)


def direct(path):
    """The file as O_DIRECT reads it, in pieces of a page."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    out = b""
    try:
        while n := os.preadv(fd, [page], len(out)):
            out += page[:n]
    finally:
        os.close(fd)
    return out


@case(params=("-I 256 -b 1024", "-I 256 -b 4096 -O ^metadata_csum", "-I 1024 -b 4096"))
def inline_data(env, how):
    """The same tree by the kernel and by us."""
    vol = env.volume(32, "-O", "inline_data", "-J", "size=4", *how.split())
    with vol.kmount() as k:
        fill_inline(k)
    with vol.kmount("ro") as k:
        want = scan(k)
        contents = {n: read_file(os.path.join(k, n)) for n in os.listdir(k) if n.startswith(("file", "grown", "shrunk"))}
    with vol.mount() as m:
        diff = differences(want, scan(m.point))
        expect(not diff, "; ".join(diff))
        for n, data in contents.items():
            expect_eq(read_file(m.path(n)), data, n)
            expect_eq(direct(m.path(n)), data, f"{n}, O_DIRECT")
            with open(m.path(n), "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) if data else open(os.devnull, "rb") as mm:
                expect_eq(mm.read(), data, f"{n}, mapped")
        expect_eq(os.path.realpath(m.path("dir5", "sub", "..", "name0")), m.path("dir5", "name0"), "parent")
    vol.check()


if __name__ == "__main__":
    main()
