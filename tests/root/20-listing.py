#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Directory listings as getdents(2) promises them: . and .., positions that stay valid while names
come and go, seeking, a million names.
"""
import ctypes
import os
import random
import stat
import statistics
import struct
import threading
import time

from lib import Skip, case, expect, expect_eq, libc, main, syscheck, write_file

BOTH = ("image", "loop")
SYS_getdents64 = {"x86_64": 217, "aarch64": 61}.get(os.uname().machine, 217)
LONG = os.environ.get("FDIO_LONG") == "1"


def getdents(fd, size=32_768):
    """The entries that one call returns: [(inode, position of the next entry, type, name)]."""
    buf = ctypes.create_string_buffer(size)
    n = syscheck(libc.syscall(SYS_getdents64, fd, buf, size), "getdents64")
    out, at, raw = [], 0, buf.raw[:n]
    while at < n:
        ino, off, reclen, kind = struct.unpack_from("<QqHB", raw, at)
        out.append((ino, off, kind, raw[at + 19:at + reclen].split(b"\0", 1)[0].decode()))
        at += reclen
    return out


def everything(fd, size=32_768):
    out = []
    while True:
        some = getdents(fd, size)
        if not some:
            return out
        out += some


def names_of(fd, size=32_768):
    return [e[3] for e in everything(fd, size) if e[3] not in (".", "..")]


def fill(path, n, stem="name"):
    os.makedirs(path, exist_ok=True)
    for i in range(n):
        os.mknod(os.path.join(path, f"{stem}-{i:06}"), stat.S_IFREG | 0o644)


def opened(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@case(kinds=BOTH)
def dots(env):
    """
    `.` and `..` come first and once, with their inode numbers; also in the root, and after the
    directory was moved.
    """
    vol = env.volume(32)
    with vol.mount() as m:
        os.makedirs(m.path("a/d"))
        os.mkdir(m.path("b"))
        for n in (0, 3, 2000):
            fill(m.path("a/d"), n, f"of{n}")
            for parent in ("a", "b"):
                if parent == "b":
                    os.rename(m.path("a/d"), m.path("b/d"))
                fd = opened(m.path(parent, "d"))
                got = everything(fd)
                os.close(fd)
                expect_eq([e[3] for e in got[:2]], [".", ".."], "first names")
                expect_eq([e[2] for e in got[:2]], [4, 4], "their types")
                expect_eq([e[0] for e in got[:2]],
                          [os.stat(m.path(parent, "d")).st_ino, os.stat(m.path(parent)).st_ino],
                          "their inode numbers")
                expect_eq(len([e for e in got if e[3] in (".", "..")]), 2, "how often they come")
            os.rename(m.path("b/d"), m.path("a/d"))
        fd = opened(m.point)
        root = {e[3]: e[0] for e in everything(fd)}
        os.close(fd)
        expect_eq((root["."], root[".."]), (2, 2), "inode numbers in the root")
        expect_eq(sorted(root), [".", "..", "a", "b", "lost+found"], "names in the root")
    vol.check()


@case(kinds=BOTH, params=(5, 3000))
def cookies(env, n):
    """
    From the position of any entry the listing continues with the next one, in any order of
    positions, with other buffer sizes, on another descriptor.
    """
    vol = env.volume(32, "-b", "1024", "-N", "5000")
    with vol.mount() as m:
        fill(m.path("d"), n)
        fd = opened(m.path("d"))
        got = everything(fd, 2000)
        order = [e[3] for e in got]
        expect_eq(len(set(order)), n + 2, "names")
        expect_eq(len({e[1] for e in got}), n + 2, "cookies")
        other = opened(m.path("d"))
        rng = random.Random(n)
        for at in [0, n + 1] + [rng.randrange(n + 2) for _ in range(60)]:
            f = rng.choice((fd, other))
            os.lseek(f, got[at][1], os.SEEK_SET)
            follow = [e[3] for e in getdents(f, rng.choice((300, 32_768)))]
            expect_eq(follow, order[at + 1:at + 1 + len(follow)], f"names after {order[at]}")
            expect(follow or at == n + 1, f"nothing follows {order[at]}")
        # Some names are removed, others created: those that stay follow in the same order.
        gone = set(rng.sample([x for x in order if x not in (".", "..")], n // 3))
        for x in gone:
            os.unlink(m.path("d", x))
        fill(m.path("d"), n // 4, "fresh")
        for at in [rng.randrange(n + 2) for _ in range(40)]:
            os.lseek(fd, got[at][1], os.SEEK_SET)
            # (Names removed or created after the listing began may be in it or not.)
            follow = [x for x in (e[3] for e in everything(fd)) if not x.startswith("fresh")
                      and x not in gone]
            want = [x for x in order[at + 1:] if x not in gone]
            expect(follow == want,
                   f"after {order[at]}, with some gone, follow {len(follow)} names and not "
                   f"{len(want)}")
        os.lseek(fd, 0, os.SEEK_SET)
        expect_eq(len(everything(fd)), n + 2 - n // 3 + n // 4, "names from the start")
        expect_eq(getdents(fd), [], "behind the end")
        os.lseek(fd, (1 << 63) - 1, os.SEEK_SET)
        expect_eq(getdents(fd), [], "far behind the end")
        os.close(fd)
        os.close(other)
    vol.check()


@case()
def telldir_seekdir_rewinddir(env):
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.opendir.argtypes = [ctypes.c_char_p]
    libc.telldir.restype = ctypes.c_long
    for f in (libc.readdir, libc.telldir, libc.rewinddir, libc.closedir):
        f.argtypes = [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def next_name(d):
        e = libc.readdir(d)
        return e and ctypes.string_at(e + 19).decode()

    vol = env.volume(32)
    with vol.mount() as m:
        fill(m.path("d"), 1500)
        d = libc.opendir(os.fsencode(m.path("d")))
        at = []
        while True:
            pos = libc.telldir(d)
            name = next_name(d)
            if not name:
                break
            at.append((pos, name))
        expect_eq(len(at), 1502, "entries")
        rng = random.Random(4)
        for pos, name in rng.sample(at, 100):
            libc.seekdir(d, pos)
            expect_eq(next_name(d), name, f"name at {pos}")
        os.mknod(m.path("d/zz-late"), stat.S_IFREG | 0o644)
        os.unlink(m.path("d", at[700][1]))
        libc.rewinddir(d)
        again = []
        while (name := next_name(d)):
            again.append(name)
        expect("zz-late" in again and at[700][1] not in again, "rewinddir shows an old state")
        expect_eq(len(again), len(set(again)), "names twice")
        libc.closedir(d)
    vol.check()


@case(timeout=90)
def name_that_stays_is_listed_once(env):
    """
    While three processes create, remove and rename, and two list with small buffers, a name that
    stays is in each listing exactly once.
    """
    vol = env.volume(64, "-b", "1024", "-N", "20000")
    with vol.mount() as m:
        fill(m.path("d"), 800, "stay")
        stay = {f"stay-{i:06}" for i in range(800)}
        stop = threading.Event()
        bad, rounds = [], [0, 0]

        def change(k):
            rng = random.Random(k)
            mine, i = [], 0
            while not stop.is_set():
                i += 1
                if len(mine) < 400 and rng.random() < 0.6 or not mine:
                    mine.append(f"go-{k}-{i}-" + "x" * rng.randrange(100))
                    os.mknod(m.path("d", mine[-1]), stat.S_IFREG | 0o644)
                elif rng.random() < 0.3:
                    j = rng.randrange(len(mine))
                    os.rename(m.path("d", mine[j]), m.path("d", f"re-{k}-{i}"))
                    mine[j] = f"re-{k}-{i}"
                else:
                    os.unlink(m.path("d", mine.pop(rng.randrange(len(mine)))))

        def listen(k):
            while not stop.is_set():
                fd = opened(m.path("d"))
                got = [x for x in names_of(fd, (400, 3000)[k]) if x in stay]
                os.close(fd)
                rounds[k] += 1
                if len(got) != len(set(got)):
                    bad.append("twice: " + str([x for x in got if got.count(x) > 1][:3]))
                if set(got) != stay:
                    bad.append("missing: " + str(sorted(stay - set(got))[:3]))
        errors = []

        def guarded(fn, k):
            try:
                fn(k)
            except OSError as e:
                errors.append(e)
        threads = [threading.Thread(target=guarded, args=(change, k)) for k in range(3)]
        threads += [threading.Thread(target=guarded, args=(listen, k)) for k in range(2)]
        for t in threads:
            t.start()
        time.sleep(4)
        stop.set()
        for t in threads:
            t.join(60)
        expect(not errors, f"errors: {errors[:2]}")
        expect(not bad, f"{len(bad)} of {sum(rounds)} listings: {bad[:2]}")
        expect(min(rounds) > 3, f"only {rounds} listings")
    vol.check()


@case()
def types_and_numbers(env):
    """The type and the inode number in a listing are those of lstat."""
    vol = env.volume(32)
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        write_file(m.path("d/file"), b"")
        os.mkdir(m.path("d/dir"))
        os.symlink("x" * 100, m.path("d/link"))
        os.mkfifo(m.path("d/fifo"))
        os.mknod(m.path("d/sock"), stat.S_IFSOCK | 0o600)
        os.mknod(m.path("d/chr"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(m.path("d/blk"), stat.S_IFBLK | 0o600, os.makedev(7, 200))
        fd = opened(m.path("d"))
        for ino, _, kind, name in everything(fd):
            st = os.lstat(m.path("d", name))
            expect_eq((ino, kind), (st.st_ino, stat.S_IFMT(st.st_mode) >> 12),
                      f"number and type of {name}")
        os.close(fd)
    vol.check()


@case(params=("1024", "4096"), timeout=180)
def grows_as_ext4(env, block_size):
    """
    Directories get an index and split blocks when the kernel's ext4 does: the same names give the
    same size at any time.
    """
    vol = env.volume(64, "-b", block_size, "-N", "12000")
    other = vol.copy()  # the same seed of hashes
    rng = random.Random(int(block_size))
    with vol.mount() as m, other.kmount() as k:
        tops = (m.path("d"), os.path.join(k, "d"))
        for t in tops:
            os.mkdir(t)
        names, serial = [], 0
        for step in range(9000):
            shrink = step % 3000 > 2200
            if names and rng.random() < (0.8 if shrink else 0.2):
                n = names.pop(rng.randrange(len(names)))
                for t in tops:
                    os.unlink(os.path.join(t, n))
            else:
                serial += 1
                n = f"{serial}-" + "n" * (rng.randrange(240) if rng.random() < 0.3
                                          else rng.randrange(20))
                names.append(n)
                for t in tops:
                    os.mknod(os.path.join(t, n), stat.S_IFREG | 0o644)
            if step % 50 == 0:
                ours, theirs = (os.stat(t).st_size for t in tops)
                expect_eq(ours, theirs, f"size after {step} steps, {len(names)} names")
        for t in tops:
            expect_eq(sorted(os.listdir(t)), sorted(names), "names")
    vol.check()
    other.check()


@case(timeout=900)
def million(env):
    """
    1,000,000 names in one directory: created, listed, looked up, removed. A batch of 10,000 at the
    end must cost about what one cost at the start.
    """
    if not LONG:
        raise Skip("takes minutes: make check-long")
    nr, batch = 1_000_000, 10_000
    vol = env.volume(2048, "-b", "4096", "-N", str(nr + 1000), "-I", "256")
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        fd = opened(m.path("d"))

        def timed(what, fn):
            spent = []
            for b in range(nr // batch):
                begun = time.monotonic()
                for i in range(b * batch, (b + 1) * batch):
                    fn(f"name-{i:07}")
                spent.append(time.monotonic() - begun)
            first, last = statistics.median(spent[2:12]), statistics.median(spent[-12:-2])
            print(f"#   {what}: {first / batch * 1e6:.0f} us at the start, "
                  f"{last / batch * 1e6:.0f} us at the end", flush=True)
            # Removing gets cheaper rather than dearer.
            expect(last < 2.5 * first, f"{what} takes {last / first:.1f} times as long in the end")
        timed("creating", lambda n: os.mknod(n, stat.S_IFREG | 0o644, dir_fd=fd))
        begun = time.monotonic()
        seen = set()
        os.lseek(fd, 0, os.SEEK_SET)
        count = 0
        while True:
            some = getdents(fd, 1 << 18)
            if not some:
                break
            count += len(some)
            seen.update(e[3] for e in some)
        print(f"#   listing: {time.monotonic() - begun:.1f} s", flush=True)
        expect_eq((count, len(seen)), (nr + 2, nr + 2), "entries and names listed")
        timed("stat", lambda n: os.stat(n, dir_fd=fd))
        timed("removing", lambda n: os.unlink(n, dir_fd=fd))
        os.lseek(fd, 0, os.SEEK_SET)
        expect_eq(len(everything(fd)), 2, "entries left")
        os.close(fd)
        os.rmdir(m.path("d"))
    vol.check()


if __name__ == "__main__":
    main()
