#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A name may hold every byte but '/' and NUL, and up to 255 of them."""
import errno
import os

from lib import case, expect, expect_eq, expect_errno, main, write_file

BOTH = ("image", "loop")


@case(kinds=BOTH)
def every_byte(env):
    vol = env.volume(64)
    names = {bytes([b]) for b in range(1, 256) if b not in b"/."} | {b"..." , b"\xc3\x28", b"a\nb",
                                                                     b"-", b"~", b"%00"}
    with vol.mount() as m:
        root = os.fsencode(m.point)
        for n in names:
            write_file(os.path.join(root, n), n)
        expect_eq(set(os.listdir(root)) - {b"lost+found"}, names, "names")
        for n in names:
            with open(os.path.join(root, n), "rb") as f:
                expect_eq(f.read(), n, "contents")
    vol.check()
    with vol.kmount("ro") as k:
        expect_eq(set(os.listdir(os.fsencode(k))) - {b"lost+found"}, names,
                  "names in the kernel's view")


@case(kinds=BOTH)
def longest(env):
    vol = env.volume(64)
    with vol.mount() as m:
        for n in (254, 255):
            write_file(m.path("n" * n), b"x")
            os.mkdir(m.path("d" * n))
            os.symlink("t", m.path("s" * n))
        for what in (lambda p: write_file(p, b""), os.mkdir, os.stat, lambda p: os.symlink("t", p),
                     lambda p: os.link(m.path("n" * 255), p),
                     lambda p: os.rename(m.path("n" * 254), p)):
            with expect_errno(errno.ENAMETOOLONG):
                what(m.path("y" * 256))
        os.rename(m.path("n" * 254), m.path("r" * 255))
        expect(("r" * 255) in os.listdir(m.point), "the renamed file is not listed")
        os.unlink(m.path("r" * 255))
        os.rmdir(m.path("d" * 255))
    vol.check()


@case()
def symlinks(env):
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:
        for n in (1, 59, 60, 61, 1000, 4095):
            target = ("0123456789" * 410)[:n]
            os.symlink(target, m.path(f"s{n}"))
            expect_eq(os.readlink(m.path(f"s{n}")), target, f"target of {n} bytes")
            expect_eq(os.lstat(m.path(f"s{n}")).st_size, n, "size")
        for n in (61, 4095):
            os.unlink(m.path(f"s{n}"))
    vol.check()


if __name__ == "__main__":
    main()
