#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Both transports: which one is chosen, data through it, and every way in which a mount can end under
load.
"""
import errno
import mmap
import os
import random
import signal
import subprocess
import threading
import time

from lib import (FUSEDIO, RING_SWITCH, Skip, case, counters, expect, main, never_mounted,
                 offer_ring, pattern, read_file, refusing, run, write_file)

BOTH = ("uring", "devfuse")


def need_ring():
    """Skips the case unless the kernel offers FUSE over io_uring."""
    if not offer_ring():
        raise Skip("the kernel has no FUSE over io_uring")


def prepare(env, transport):
    if transport == "uring":
        need_ring()
    vol = env.volume(96, "-b", "4096")
    m = vol.mount(f"transport={transport}")
    with open(m.log) as f:
        log = f.read()
    expect(("over io_uring" if transport == "uring" else "over /dev/fuse") in log,
           f"the channel is not {transport}: {log!r}")
    return vol, m


@case(params=BOTH)
def data(env, transport):
    """Data of all sizes, many files, and direct I/O that verifies itself."""
    vol, m = prepare(env, transport)
    for n in (0, 1, 4095, 4097, 1044479, 1044481, 5_000_000):
        write_file(m.path(f"f{n}"), pattern(n, n))
    for n in (0, 1, 4095, 4097, 1044479, 1044481, 5_000_000):
        expect(read_file(m.path(f"f{n}")) == pattern(n, n), f"contents of {n} bytes differ")
    run("fio", "--name=v", f"--directory={m.point}", "--size=8m", "--rw=randwrite", "--bs=4k",
        "--direct=1", "--ioengine=libaio", "--iodepth=32", "--numjobs=3", "--verify=crc32c",
        "--verify_fatal=1", "--verify_state_save=0", timeout=100)
    for i in range(300):
        write_file(m.path(f"s{i}"), b"x")
    for i in range(300):
        os.unlink(m.path(f"s{i}"))
    m.umount()
    vol.check()


@case()
def readahead(env):
    """Large reads for the page cache return what was written, also while writers are at work."""
    vol, m = prepare(env, "uring")
    size, files = 16 << 20, 3
    want = [pattern(size, n) for n in range(files)]
    for n in range(files):
        write_file(m.path(f"f{n}"), want[n])
    wrong = []

    def reader(n):
        for _ in range(6):
            fd = os.open(m.path(f"f{n}"), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            got = b"".join(iter(lambda: os.read(fd, 1 << 17), b""))
            os.close(fd)
            if got != want[n]:
                wrong.append(n)
    for together in (1, files):
        threads = [threading.Thread(target=reader, args=(n,)) for n in range(together)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    expect(not wrong, f"contents differ: {wrong}")
    if os.cpu_count() > 1:
        expect(counters(m).get("transport_readahead"), "no read went to another CPU")
    m.umount()
    vol.check()


COHERENT_BLOCKS = 64


class Views:
    """
    One file through a direct and a buffered descriptor and a mapping of each, with a copy of its
    expected contents in memory.
    """

    def __init__(self, path):
        self.direct = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
        self.buffered = os.open(path, os.O_RDWR)
        self.size = COHERENT_BLOCKS * 4096
        os.pwrite(self.buffered, bytes(self.size), 0)
        self.map_b = mmap.mmap(self.buffered, self.size)
        self.map_d = mmap.mmap(self.direct, self.size)
        self.page = mmap.mmap(-1, 4096)
        self.want = bytearray(self.size)

    def change(self, how, to, frm, byte):
        """
        Changes the block at to. Two of the ways use the block at frm of the mapping as the buffer
        of direct I/O.
        """
        data = bytes([byte]) * 4096
        if how == 0:
            self.page[:] = data
            os.pwritev(self.direct, [self.page], to)
        elif how == 1:
            os.pwrite(self.buffered, data, to)
        elif how == 2:
            self.map_b[to:to + 4096] = data
        elif how == 3:
            data = data[:8] + bytes(self.want[to + 8:to + 4096])
            self.map_d[to:to + 8] = data[:8]
        elif how == 4:
            data = bytes(self.want[frm:frm + 4096])
            with memoryview(self.map_b) as v, v[frm:frm + 4096] as buf:
                os.pwritev(self.direct, [buf], to)
        else:
            data = bytes(self.want[frm:frm + 4096])
            with memoryview(self.map_b) as v, v[to:to + 4096] as buf:
                os.preadv(self.direct, [buf], frm)
        self.want[to:to + 4096] = data

    def check(self, at, what):
        want = bytes(self.want[at:at + 4096])
        os.preadv(self.direct, [self.page], at)
        for name, got in (("direct", self.page[:]), ("buffered", os.pread(self.buffered, 4096, at)),
                          ("mapped", self.map_b[at:at + 4096]),
                          ("mapped O_DIRECT", self.map_d[at:at + 4096])):
            expect(got == want, f"{what}: a {name} read of the block at {at} gave other bytes")

    def close(self):
        self.map_b.close()
        self.map_d.close()
        os.close(self.buffered)
        os.close(self.direct)


@case(params=[f"{t}-{p}" for t in BOTH for p in ("parallel_dio", "noparallel_dio")])
def views_agree(env, what):
    """
    Direct, buffered and mapped I/O on one file agree in any order, also if the buffer of direct I/O
    is a mapping of the same file.
    """
    transport, option = what.split("-")
    if transport == "uring":
        need_ring()
    vol = env.volume(64)
    with vol.mount(f"transport={transport}", option) as m:
        v = Views(m.path("f"))
        rnd = random.Random(7)
        for step in range(1500):
            how, to, frm = (rnd.randrange(6), rnd.randrange(COHERENT_BLOCKS) * 4096,
                            rnd.randrange(COHERENT_BLOCKS) * 4096)
            if how < 4 or to != frm:
                v.change(how, to, frm, rnd.randrange(256))
            v.check(to, f"step {step}, way {how}")
            v.check(rnd.randrange(COHERENT_BLOCKS) * 4096, f"step {step}, elsewhere")
        v.close()
    vol.check()


@case(params=BOTH)
def few_slots(env, transport):
    """With only two slots in each loop, requests wait for a slot, and all are served."""
    if transport == "uring":
        need_ring()
    vol = env.volume(64)
    with vol.mount(f"transport={transport}", "queue_depth=2") as m:
        def work(k):
            for i in range(20):
                write_file(m.path(f"w{k}-{i}"), pattern(20_000, k), sync=i % 5 == 0)
        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        for k in range(6):
            expect(read_file(m.path(f"w{k}-19")) == pattern(20_000, k), "contents differ")
    vol.check()


@case(params=[f"{t}-{how}" for t in BOTH for how in ("term", "kill", "force")])
def ends(env, what):
    """
    The mount ends in the middle of I/O: no client hangs, and the file system can be served again.
    """
    transport, how = what.split("-")
    vol, m = prepare(env, transport)
    p = subprocess.Popen(["fio", "--name=x", f"--directory={m.point}", "--size=16m", "--rw=randrw",
                          "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=32",
                          "--numjobs=2", "--thread"], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, cwd=env.dir)
    time.sleep(0.6)
    if how == "force":
        run("umount", "-f", m.point, ok=None)
        run("umount", "-l", m.point, ok=None)
    else:
        m.proc.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
    p.wait(60)
    m.wait(60)
    run("umount", "-l", m.point, ok=None)
    with vol.mount(f"transport={transport}") as n:
        os.listdir(n.point)
    vol.check()


@case(kinds=("image", "loop"))
def not_offered(env):
    """
    If the kernel does not offer io_uring, transport=uring fails with advice, and auto serves over
    /dev/fuse.
    """
    need_ring()
    vol = env.volume(16)
    point = env.mkdir()
    no = dict(os.environ, **refusing(offer=1))
    with never_mounted(point):
        p = run(FUSEDIO, "-o", "transport=uring", vol.target, point, ok=None, env=no)
    expect(p.returncode == 32 and RING_SWITCH in p.stderr, f"{p.returncode}: {p.stderr}")
    p = run(FUSEDIO, "-s", "-o", "transport=uring", vol.target, point, ok=None)
    if os.cpu_count() > 1:
        expect(p.returncode != 0 and "-s" in p.stderr, f"-s: {p.returncode}: {p.stderr}")
    with vol.mount("transport=auto", environ=refusing(offer=1)) as m:
        with open(m.log) as f:
            expect("over /dev/fuse" in f.read(), "the ring is used though it is not offered")
    vol.check()


@case(params=("EINVAL", "ENOMEM", "EPERM", "ENOMEM-0", "EINVAL-1"))
def refused(env, what):
    """
    Registering all queues, or one of them, fails: the mount falls back to /dev/fuse, says so once,
    and works.
    """
    need_ring()
    name, _, queue = what.partition("-")
    if int(queue or 0) >= os.cpu_count():
        raise Skip(f"there is no queue {queue}")
    number = getattr(errno, name)
    vol = env.volume(64)
    with vol.mount("transport=uring",
                   environ=refusing(register=number, **({"queue": queue} if queue else {}))) as m:
        def work(k):
            write_file(m.path(f"w{k}"), pattern(300_000, k), sync=True)
            expect(read_file(m.path(f"w{k}")) == pattern(300_000, k), "contents differ")
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        run("fio", "--name=v", f"--directory={m.point}", "--size=4m", "--rw=randwrite", "--bs=4k",
            "--direct=1", "--ioengine=libaio", "--iodepth=32", "--numjobs=2", "--verify=crc32c",
            "--verify_fatal=1", "--verify_state_save=0", timeout=60)
        expect(len(os.listdir(m.point)) == 7, "files are missing")
        with open(m.log) as f:
            lines = [line for line in f if "refused the request ring" in line]
        expect(len(lines) == 1 and os.strerror(number) in lines[0]
               and "going on over /dev/fuse" in lines[0], f"it says {lines}")
    vol.check()


if __name__ == "__main__":
    main()
