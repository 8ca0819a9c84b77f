#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Extended attributes with large values, which are in inodes of their own (ea_inode): fusedio and the
kernel make, read, change and remove each other's, also where the kernel lets files share a value or
a whole block of attributes. And the state after a kill.
"""
import errno
import os
import random

from lib import (case, expect, expect_eq, expect_errno, main, pattern, read_file, wait_for,
                 write_file)

LAYOUTS = {
    "1k": ("-b", "1024", "-O", "ea_inode"),
    "4k": ("-b", "4096", "-O", "ea_inode"),
    # inodes without room for attributes, no checksums
    "bare": ("-b", "1024", "-I", "128", "-O", "ea_inode,^metadata_csum"),
}
SIZES = (0, 10, 100, 900, 968, 969, 1024, 4040, 4041, 10_000, 65_536)


def free_blocks(path):
    s = os.statvfs(path)
    return s.f_bfree, s.f_ffree


def settled(path, want):
    """
    Waits until as many blocks are free as wanted: values without an owner are deleted in the
    background.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        def reached():
            os.fsync(fd)
            return free_blocks(path) == want
        wait_for(reached, f"{want} free blocks and inodes", 15)
    finally:
        os.close(fd)


def values(path):
    return {n: os.getxattr(path, n) for n in os.listxattr(path)}


@case(params=tuple(LAYOUTS), timeout=180)
def of_all_sizes(env, layout):
    """
    fusedio sets, replaces and removes values at random; the kernel reads and changes them; fusedio
    reads the result.
    """
    vol = env.volume(64, *LAYOUTS[layout])
    rng = random.Random(7)
    want = [{} for _ in range(4)]

    def change(top, steps):
        for k in range(steps):
            f = rng.randrange(4)
            p = os.path.join(top, f"f{f}")
            name = (f"{rng.choice(('user', 'trusted'))}.{rng.randrange(4)}"
                    f"{'-and-a-tail' * rng.randrange(2)}")
            if rng.randrange(4) == 0 and name in want[f]:
                os.removexattr(p, name)
                del want[f][name]
                continue
            value = pattern(rng.choice(SIZES), rng.randrange(1000))
            os.setxattr(p, name, value)
            want[f][name] = value

    def look(top):
        for f in range(4):
            got = values(os.path.join(top, f"f{f}"))
            expect_eq(sorted(got), sorted(want[f]), f"names of f{f}")
            for n, v in want[f].items():
                expect(got[n] == v,
                       f"value of {n} of f{f}: {len(got[n])} bytes and not {len(v)}, or others")
    with vol.mount() as m:
        empty = free_blocks(m.point)
        for f in range(4):
            (os.mkdir if f == 3 else lambda p: write_file(p, b""))(m.path(f"f{f}"))
    vol.check()
    for turn in range(6):
        with (vol.mount() if turn % 2 == 0 else vol.kmount()) as m:
            top = m.point if turn % 2 == 0 else m
            look(top)
            change(top, 60)
            look(top)
        vol.check()
    with vol.mount() as m:
        look(m.point)
        with expect_errno(errno.E2BIG):
            os.setxattr(m.path("f0"), "user.x", bytes(65_537))
        for f in range(3):
            os.unlink(m.path(f"f{f}"))
        os.rmdir(m.path("f3"))
        settled(m.point, empty)
    vol.check()


@case(params=tuple(LAYOUTS))
def shared_by_the_kernel(env, layout):
    """
    The kernel stores equal values, and equal blocks of attributes, only once: changing or deleting
    one owner must not harm the others.
    """
    vol = env.volume(64, *LAYOUTS[layout])
    big, other = pattern(20_000, 1), pattern(9000, 2)
    nr = 12
    with vol.kmount() as k:
        empty = free_blocks(k)
        for f in range(nr):
            p = os.path.join(k, f"f{f}")
            write_file(p, b"")
            os.setxattr(p, "user.big", big)
            os.setxattr(p, "user.other", other)
            os.setxattr(p, "user.block", b"b" * 200)
        used = empty[1] - free_blocks(k)[1]
        expect(used < nr + 4, f"{used} inodes for {nr} files: the kernel shares nothing")
    vol.check()
    with vol.mount() as m:
        for f in range(nr):
            expect_eq(len(values(m.path(f"f{f}"))), 3, f"attributes of f{f}")
        os.setxattr(m.path("f0"), "user.big", b"small")
        os.setxattr(m.path("f1"), "user.big", pattern(30_000, 3))
        os.removexattr(m.path("f2"), "user.big")
        os.removexattr(m.path("f3"), "user.block")
        os.setxattr(m.path("f4"), "user.new", b"n" * 300)
        os.unlink(m.path("f5"))
        os.setxattr(m.path("f6"), "user.big", big)
        os.rename(m.path("f7"), m.path("f8"))
        for f in (9, 10, 11):
            expect(os.getxattr(m.path(f"f{f}"), "user.big") == big, f"value of f{f}")
    vol.check()
    with vol.kmount() as k:
        got = {f: values(os.path.join(k, f"f{f}")) for f in range(nr) if f not in (5, 7)}
        expect_eq(got[0]["user.big"], b"small", "f0")
        expect(got[1]["user.big"] == pattern(30_000, 3), "f1")
        expect_eq(sorted(got[2]), ["user.block", "user.other"], "f2")
        expect_eq(sorted(got[3]), ["user.big", "user.other"], "f3")
        expect_eq(got[4]["user.new"], b"n" * 300, "f4")
        for f in (3, 4, 6, 8, 9, 10, 11):
            expect(got[f]["user.big"] == big and got[f]["user.other"] == other, f"values of f{f}")
        os.unlink(os.path.join(k, "f9"))
        os.setxattr(os.path.join(k, "f10"), "user.big", b"k")
    vol.check()
    with vol.mount() as m:
        expect(os.getxattr(m.path("f11"), "user.big") == big, "the last shared value")
        for f in range(nr):
            if f not in (5, 7, 9):
                os.unlink(m.path(f"f{f}"))
        settled(m.point, empty)
    vol.check()


@case(timeout=180)
def after_a_kill(env):
    """
    The daemon is killed at a random moment: each value is the one that was durable or a later one,
    never a mixture, whether fusedio or the kernel recovers.
    """
    vol = env.volume(64, "-b", "1024", "-O", "ea_inode", "-J", "size=4")
    rng = random.Random(3)
    for turn in range(8):
        m = vol.mount()
        for f in range(6):
            write_file(m.path(f"t{turn}-f{f}"), b"")
        durable = {}
        for k in range(rng.randrange(20, 80)):
            f = rng.randrange(6)
            p = m.path(f"t{turn}-f{f}")
            value = bytes([k]) * rng.choice((50, 3000, 40_000))
            os.setxattr(p, "user.v", value)
            if rng.randrange(8) == 0:
                fd = os.open(p, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                durable[f] = k
            if turn and rng.randrange(20) == 0 and os.path.exists(m.path(f"t{turn - 1}-f{f}")):
                os.unlink(m.path(f"t{turn - 1}-f{f}"))
        m.kill()
        with (vol.kmount() if turn % 2 else vol.mount()) as m:
            top = m if turn % 2 else m.point
            for f, k in durable.items():
                v = os.getxattr(os.path.join(top, f"t{turn}-f{f}"), "user.v")
                expect(len(set(v)) == 1 and v[0] >= k,
                       f"turn {turn}: f{f} has {len(v)} bytes of {sorted(set(v))}, {k} was durable")
        vol.check()


@case()
def lists_of_many(env):
    """
    An ACL that is larger than a block is stored, inherited and changed; one that FUSE cannot pass
    on is refused (doc/compatibility.md).
    """
    import tree
    vol = env.volume(64, "-b", "1024", "-O", "ea_inode")

    def acl(users):
        return tree.acl((1, 7, -1), *[(2, 5, 1000 + u) for u in range(users)], (4, 5, -1),
                        (0x10, 7, -1), (0x20, 0, -1))
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        os.setxattr(m.path("d"), "system.posix_acl_default", acl(400))
        write_file(m.path("d/f"), b"x")
        os.mkdir(m.path("d/e"), 0o777)
        expect_eq(len(os.getxattr(m.path("d/f"), "system.posix_acl_access")), len(acl(400)),
                  "length of the ACL inherited")
        os.chmod(m.path("d/f"), 0o604)
        os.setxattr(m.path("d"), "system.posix_acl_access", acl(507))
        expect_eq(os.getxattr(m.path("d"), "system.posix_acl_access"), acl(507), "511 entries")
        with expect_errno(errno.E2BIG):
            os.setxattr(m.path("d"), "system.posix_acl_access", acl(508))
    vol.check()
    with vol.kmount() as k:
        got = os.getxattr(os.path.join(k, "d/f"), "system.posix_acl_access")
        expect_eq(len(got), len(acl(400)), "length of the ACL as the kernel reads it")
        expect_eq(oct(os.stat(os.path.join(k, "d/f")).st_mode), "0o100604", "mode")
        expect_eq(os.getxattr(os.path.join(k, "d/e"), "system.posix_acl_default"), acl(400),
                  "ACL inherited")
        expect_eq(read_file(os.path.join(k, "d/f")), b"x", "contents")
    vol.check()


main()
