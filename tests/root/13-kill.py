#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
kill -9 under load: everything that was acknowledged as durable is there afterwards, no file is
torn, and e2fsck finds nothing.
"""
import contextlib
import mmap
import os
import random
import threading
import time

from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, case, expect, expect_eq, fallocate, main,
                 pattern, read_file, run)

BOTH = ("image", "loop")


class Writer(threading.Thread):
    """
    Creates, renames and removes files, and notes each that is durable: its fsync (and that of its
    directory, after a rename) has returned.
    """

    def __init__(self, root, number):
        super().__init__(daemon=True)
        self.root = root
        self.number = number
        self.durable = {}    # name -> contents
        self.doubtful = {}   # name -> contents that it may have instead; None: it may be missing

    def run(self):
        rng = random.Random(self.number)
        d = os.path.join(self.root, f"w{self.number}")
        dfd = fd = -1
        try:
            os.mkdir(d)
            dfd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
            i = 0
            while True:
                name = os.path.join(d, f"f{i % 30}")
                data = pattern(rng.randrange(1, 60_000), self.number * 100_000 + i)
                self.doubtful[name] = data
                tmp = os.path.join(d, "tmp")
                fd = os.open(tmp, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
                os.write(fd, data)
                os.fsync(fd)
                os.close(fd)
                fd = -1
                os.rename(tmp, name)
                os.fsync(dfd)
                self.durable[name] = data
                del self.doubtful[name]
                if i % 7 == 0:
                    victim = os.path.join(d, f"f{rng.randrange(30)}")
                    if victim in self.durable:
                        self.doubtful[victim] = None
                        os.unlink(victim)
                        os.fsync(dfd)
                        del self.durable[victim]
                        del self.doubtful[victim]
                i += 1
        except OSError:
            pass  # the daemon is gone
        for f in (fd, dfd):  # an open file would keep the dead mount and its claim on the device
            with contextlib.suppress(OSError):
                os.close(f)


def unsynced_load(root, stop):
    """Makes names, links, holes and removals, and never calls fsync."""
    rng = random.Random(99)
    try:
        while not stop.is_set():
            d = os.path.join(root, f"x{rng.randrange(5)}")
            os.makedirs(d, exist_ok=True)
            p = os.path.join(d, f"y{rng.randrange(200)}")
            op = rng.randrange(6)
            try:
                if op < 3:
                    with open(p, "wb") as f:
                        f.write(pattern(rng.randrange(200_000)))
                elif op == 3:
                    os.rename(p,
                              os.path.join(root, f"x{rng.randrange(5)}", f"y{rng.randrange(200)}"))
                elif op == 4:
                    with open(p, "r+b", buffering=0) as f:
                        fallocate(f.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
                                  rng.randrange(100_000), 50_000)
                        os.ftruncate(f.fileno(), rng.randrange(150_000))
                else:
                    os.unlink(p)
            except FileNotFoundError:
                pass
    except OSError:
        pass


@case(kinds=BOTH, timeout=240)
def under_load(env):
    vol = env.volume(256, "-b", "4096")
    expected = {}
    doubtful = {}
    for turn in range(4):
        m = vol.mount()
        for name, data in expected.items():
            p = os.path.join(m.point, name)
            if name in doubtful:
                continue
            expect(os.path.exists(p), f"{name} is gone after kill {turn}")
            expect(read_file(p) == data, f"{name} differs after kill {turn}")
        root = m.path(f"turn{turn}")
        os.mkdir(root)
        writers = [Writer(root, k) for k in range(3)]
        stop = threading.Event()
        noise = threading.Thread(target=unsynced_load, args=(root, stop), daemon=True)
        for t in (*writers, noise):
            t.start()
        time.sleep(1.5 + 0.37 * turn)
        m.proc.kill()
        stop.set()
        m.proc.wait(60)
        for t in (*writers, noise):
            t.join(60)
            expect(not t.is_alive(), "a client hangs after kill -9")
        run("umount", "-l", m.point)
        expected, doubtful = {}, {}
        for w in writers:
            expect(len(w.durable) > 0, f"writer {w.number} got nothing done")
            expected.update({os.path.relpath(k, m.point): v for k, v in w.durable.items()})
            doubtful.update({os.path.relpath(k, m.point): v for k, v in w.doubtful.items()})
    with vol.mount() as m:
        for name, data in expected.items():
            p = os.path.join(m.point, name)
            got = read_file(p) if os.path.exists(p) else None
            if name in doubtful:
                expect(got in (data, doubtful[name]), f"{name} is neither old nor new")
            else:
                expect(got == data, f"{name} differs or is gone at the end")
    vol.check()


class Blocks(threading.Thread):
    """
    Overwrites and extends one file by blocks that carry a serial number, and notes which numbers
    were acknowledged as durable. how:

    fsync: buffered, with an fsync after each write. direct: O_DIRECT; an fsync after every eighth
    write makes those durable. dsync: O_DIRECT with O_DSYNC, so each write is durable by itself.
    buffered: buffered, with an fsync now and then.
    """

    SIZE = 4096
    COUNT = 256

    def __init__(self, path, how, number):
        super().__init__(daemon=True)
        self.path = path
        self.how = how
        self.number = number
        self.acked = {}   # block -> the number that is durable
        self.newer = {}   # block -> numbers written since
        self.opened = False

    @staticmethod
    def content(number, block):
        return (b"%08d:%08d;%014d" % (number, block, 0)) * (Blocks.SIZE // 32)

    def run(self):
        rng = random.Random(self.number)
        flags = os.O_CREAT | os.O_RDWR
        if self.how in ("direct", "dsync"):
            flags |= os.O_DIRECT
        if self.how == "dsync":
            flags |= os.O_DSYNC
        every = {"fsync": 1, "direct": 8, "dsync": 1, "buffered": 40}[self.how]
        fd = -1
        buf = mmap.mmap(-1, self.SIZE)
        try:
            fd = os.open(self.path, flags, 0o644)
            serial = self.number * 1_000_000
            while True:
                serial += 1
                block = rng.randrange(self.COUNT)
                buf[:] = self.content(serial, block)
                self.newer.setdefault(block, set()).add(serial)
                os.pwrite(fd, buf, block * self.SIZE)
                if self.how == "dsync":
                    self.acked[block] = serial
                    self.newer[block] = set()
                elif serial % every == 0:
                    latest = {b: max(n) for b, n in self.newer.items() if n}
                    os.fsync(fd)
                    self.acked.update(latest)
                    self.newer = {}
        except OSError:
            pass  # the daemon is gone
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def verify(self, path, what):
        """
        Each KiB (the smallest block size) must hold the number that was acknowledged or a later
        one, or be a hole if none was acknowledged. A mixture of two fails.
        """
        data = read_file(path) if os.path.exists(path) else b""
        expect(len(data) % 1024 == 0, f"{what}: a size of {len(data)} that nobody made")
        for at in range(0, self.COUNT * self.SIZE, 1024):
            got = data[at:at + 1024]
            block = at // self.SIZE
            allowed = {self.acked.get(block)} | self.newer.get(block, set())
            if got == bytes(len(got)):
                expect(None in allowed, f"{what}: block {block} is lost")
                continue
            number = int(got[:8]) if got[:8].isdigit() else -1
            expect(got == self.content(number, block)[:1024],
                   f"{what}: block {block} is torn or foreign: {got[:40]!r}")
            expect(number in allowed, f"{what}: block {block} holds write {number}, not one of "
                   f"{sorted(map(str, allowed))[:6]}")


@case(params=("fsync", "direct", "dsync", "buffered"), timeout=180)
def blocks(env, how):
    """
    Writers of blocks are killed many times at random moments; Blocks.verify checks what is left.
    """
    rng = random.Random(how)
    vol = env.volume(64, "-b", "4096" if how in ("direct", "dsync") else "1024", "-J", "size=4")
    before = []
    acked = 0
    for turn in range(8):
        with_options = ("commit=1",) if turn % 2 else ()
        m = vol.mount(*with_options)
        for w in before:
            w.verify(m.path(os.path.basename(w.path)), f"after kill {turn}")
            # the file is missing if its creation was not durable yet
            with contextlib.suppress(FileNotFoundError):
                os.unlink(m.path(os.path.basename(w.path)))
        before = [Blocks(m.path(f"t{turn}w{k}"), how, 10 * turn + k + 1) for k in range(2)]
        for w in before:
            w.start()
        time.sleep(0.1 + 0.4 * rng.random())
        m.proc.kill()
        m.proc.wait(60)
        for w in before:
            w.join(60)
            expect(not w.is_alive(), "a client hangs after kill -9")
            acked += len(w.acked)
        run("umount", "-l", m.point)
    with vol.mount() as m:
        for w in before:
            w.verify(m.path(os.path.basename(w.path)), "at the end")
    vol.check()
    expect(acked > 8, f"only {acked} blocks were ever acknowledged")


@case(kinds=BOTH)
def recovered_by_others(env):
    """e2fsck and the kernel replay the journal that kill -9 leaves."""
    vol = env.volume(128, "-b", "4096")
    m = vol.mount()
    w = Writer(m.point, 1)
    w.start()
    time.sleep(1.5)
    m.kill()
    w.join(60)
    by_e2fsck, by_kernel = vol.copy(), vol.copy()
    run("e2fsck", "-fy", by_e2fsck.file, ok=(0, 1))
    by_e2fsck.check()
    with by_kernel.kmount():
        pass
    by_kernel.check()
    expect(len(w.durable) > 3, "too little was written")
    for v in (by_e2fsck, by_kernel):
        with v.kmount("ro") as k:
            for name, data in w.durable.items():
                if name not in w.doubtful:
                    p = os.path.join(k, os.path.relpath(name, m.point))
                    expect_eq(os.path.exists(p) and read_file(p) == data, True,
                              f"{os.path.basename(name)} after recovery")


@case(kinds=BOTH)
def killed_while_idle(env):
    """A daemon that is killed while idle loses nothing that is older than the commit interval."""
    vol = env.volume(64)
    m = vol.mount("commit=1")
    for i in range(20):
        with open(m.path(f"f{i}"), "wb") as f:
            f.write(pattern(30_000, i))
    time.sleep(4)
    m.kill()
    with vol.mount() as m:
        for i in range(20):
            expect(read_file(m.path(f"f{i}")) == pattern(30_000, i), f"f{i} differs or is gone")
    vol.check()


if __name__ == "__main__":
    main()
