#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A device that does not answer. The image is a file in a mount of tests/root/hangfs, which holds back
or delays the requests it is told to. The daemon uses that file, or a loop device with direct I/O
over it, so that only those requests hang. Programs that use other files must go on; SIGTERM and
umount -f must end the mount within a bounded time and let all clients go; the log must say what was
in flight; everything that was durable must be there afterwards.
"""
import contextlib
import errno
import mmap
import os
import re
import signal
import threading
import time

from hangdisk import Disk
from lib import (BUILD, MIB, Skip, case, expect, expect_eq, main, mountinfo, offer_ring, pattern,
                 read_file, run, wait_for, write_file)

BOTH = ("devfuse", "uring")


def transport(name):
    if name == "uring":
        offer_ring()
    return "transport=" + name


def first_block(path):
    """The physical block at which the file begins."""
    out = run(os.path.join(BUILD, "fusedioctl"), "map", path).stdout
    row = re.search(r"^ *0: +0\.\. *\d+: *(\d+)\.\.", out, re.M)
    expect(row, f"no extents of {path}: {out!r}")
    return int(row[1])


class Client(threading.Thread):
    """
    Runs fn in a child process with a thread that waits for it, so that a system call that hangs
    does not hang the test.
    """

    def __init__(self, fn):
        super().__init__(daemon=True)
        self.pid = os.fork()
        if self.pid == 0:
            code = 0
            try:
                fn()
            except OSError as e:
                code = e.errno
            except BaseException:
                code = 255
            os._exit(code)
        self.code = None
        self.start()

    def run(self):
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def done(self):
        return self.code is not None


def direct(path, how, off=0):
    """One direct request of 4 KiB."""
    fd = os.open(path, (os.O_RDONLY if how == "read" else os.O_RDWR) | os.O_DIRECT)
    buf = mmap.mmap(-1, 4096)
    buf[:] = b"w" * 4096
    try:
        n = os.preadv(fd, [buf], off) if how == "read" else os.pwritev(fd, [buf], off)
        expect_eq(n, 4096, "bytes")
    finally:
        os.close(fd)


def work_of_others(m, seed):
    """
    Data and metadata operations, cached, direct and durable, on another file than the one that
    hangs.
    """
    p = m.path(f"other{seed}")
    write_file(p, pattern(200_000, seed), sync=True)
    direct(p, "write")
    direct(p, "read")
    expect_eq(read_file(p)[4096:], pattern(200_000, seed)[4096:], "contents")
    os.mkdir(p + ".d")
    os.rename(p, p + ".d/moved")
    os.listdir(m.point)
    fd = os.open(p + ".d", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def gone(pid):
    """Whether the process has ended, except for threads that a driver holds."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def log_of(m):
    with open(m.log, errors="replace") as f:
        return f.read()


def stuck_file(m, disk, how):
    """A file whose first block hangs, and a client that waits for it."""
    write_file(m.path("stuck"), pattern(64 << 10), sync=True)
    disk.hold_blocks(how[0], [first_block(m.path("stuck"))])
    c = Client(lambda: direct(m.path("stuck"), how))
    wait_for(disk.held, "the request to hang")
    return c


@case(kinds=("loop",), params=[f"{h}-{t}" for h in ("read", "write") for t in BOTH])
def others_go_on(env, param):
    """
    While one read or write of one file gets no answer, all other requests are served. When it is
    answered, it completes with the right bytes.
    """
    how, name = param.split("-")
    disk = Disk(env, env.kind)
    with disk.mount(transport(name)) as m:
        c = stuck_file(m, disk, how)
        for k in range(10):
            work_of_others(m, k)
        expect(not c.done() and disk.held() == 1, "the device answered")
        disk.tell("go")
        wait_for(c.done, "the end of the client")
        expect_eq(c.code, 0, "result of the client")
        want = (b"w" * 4096 if how == "write" else pattern(4096)) + pattern(64 << 10)[4096:]
        expect(read_file(m.path("stuck")) == want, "contents differ")
    disk.check()


@case(kinds=("loop",), params=BOTH)
def many_hang(env, name):
    """Ten clients wait for the same block; readers and writers of mapped data are served."""
    disk = Disk(env, env.kind)
    with disk.mount(transport(name)) as m:
        write_file(m.path("other"), pattern(1 << 20), sync=True)
        c = [stuck_file(m, disk, "read")]
        c += [Client(lambda: direct(m.path("stuck"), "read")) for _ in range(9)]
        wait_for(lambda: disk.held() == 10, "all to hang")
        for off in range(0, 1 << 20, 4096):
            direct(m.path("other"), "read" if off & 4096 else "write", off)
        disk.tell("go")
        wait_for(lambda: all(x.done() for x in c), "the end of the clients")
        expect_eq({x.code for x in c}, {0}, "results")
    disk.check()


ENDS = [f"{how}-{end}-{t}" for how in ("read", "write") for end in ("term", "force") for t in BOTH]


@case(kinds=("loop", "image"), params=ENDS)
def ends_in_time(env, param):
    """
    A request is never answered: SIGTERM and umount -f let all clients go and end the daemon, which
    logs what was in flight.
    """
    how, end, name = param.split("-")
    disk = Disk(env, env.kind)
    m = disk.mount(transport(name), "drain_timeout=2")
    write_file(m.path("kept"), pattern(50_000, 9), sync=True)
    c = stuck_file(m, disk, how)
    begun = time.monotonic()
    if end == "term":
        m.proc.send_signal(signal.SIGTERM)
    else:
        run("umount", "-f", m.point, ok=None)
        run("umount", "-l", m.point, ok=None)
    wait_for(c.done, "the end of the client", 25)
    wait_for(lambda: gone(m.pid), "the end of the daemon", 25)
    took = time.monotonic() - begun
    expect(c.code in (errno.EIO, errno.ECONNABORTED, errno.ENOTCONN, errno.ENODEV),
           f"result of the client: {c.code}")
    expect(mountinfo(m.point) is None, "still mounted")
    text = log_of(m)
    expect("giving up" in text and "in flight" in text, f"the log does not say so: {m.tail()}")
    expect(f"no answer yet to {how.upper()} of inode" in text,
           f"the log does not name the request: {m.tail()}")
    print(f"#   {how}, {end}, {env.kind}: {took:.1f} s", flush=True)
    vol = disk.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "kept")), pattern(50_000, 9), "what was durable")


@case(kinds=("image",), params=BOTH)
def flush_hangs(env, name):
    """fsync waits for a flush that is never answered; SIGTERM ends the mount."""
    disk = Disk(env, env.kind)
    m = disk.mount(transport(name), "drain_timeout=2")
    write_file(m.path("read"), pattern(100_000), sync=True)
    fd = os.open(m.path("f"), os.O_CREAT | os.O_WRONLY)
    disk.tell(f"hold f 0 {1 << 40}")
    c = Client(lambda: (os.write(fd, b"x" * 10_000), os.fsync(fd)))
    wait_for(disk.held, "the flush to hang")
    os.close(fd)
    direct(m.path("read"), "read")
    m.proc.send_signal(signal.SIGTERM)
    wait_for(c.done, "the end of the client", 25)
    wait_for(lambda: gone(m.pid), "the end of the daemon", 25)
    expect("dev_flush" in log_of(m), f"the log does not name the flush: {m.tail()}")
    disk.tell("go")
    disk.check()


@case(kinds=("loop", "image"))
def slow_device(env):
    """
    With 20 ms for each request everything works, umount waits until all is written, and the
    watchdog does not act.
    """
    disk = Disk(env, env.kind)
    m = disk.mount("drain_timeout=1")
    disk.tell("slow 20")
    for k in range(3):
        work_of_others(m, k)
    write_file(m.path("big"), pattern(4 * MIB))
    m.umount()
    expect("giving up" not in log_of(m), f"gave up: {m.tail()}")
    disk.tell("go")
    vol = disk.check()
    with vol.kmount("ro") as k:
        expect(read_file(os.path.join(k, "big")) == pattern(4 * MIB), "contents differ")


@contextlib.contextmanager
def time_limit(**limits):
    """Sets the kernel's time limits of FUSE requests, which count for mounts made meanwhile."""
    names = {f"/proc/sys/fs/fuse/{name}_request_timeout": value for name, value in limits.items()}
    if not all(os.access(name, os.W_OK) for name in names):
        raise Skip("the kernel has no time limits of FUSE requests")
    before = {name: read_file(name) for name in names}
    try:
        for name, value in names.items():
            write_file(name, b"%d" % value)
        yield
    finally:
        for name, value in before.items():
            write_file(name, value)


@case(kinds=("loop",), timeout=240)
def time_limits(env):
    """
    A read takes longer than fs.fuse.default_request_timeout: it is served. One takes longer than
    max_request_timeout, which the log warns of at mount: the kernel ends the connection, and the
    daemon ends in order.
    """
    disks = [Disk(env, env.kind) for _ in range(4)]
    usual, most = [], []
    with time_limit(default=15):
        usual = [(disk.mount(transport(name)), disk) for disk, name in zip(disks[:2], BOTH)]
    with time_limit(max=15):
        most = [(disk.mount(transport(name), "drain_timeout=100"), disk)
                for disk, name in zip(disks[2:], BOTH)]
    clients = [stuck_file(m, disk, "read") for m, disk in usual + most]
    begun = time.monotonic()
    wait_for(lambda: all(c.done() for c in clients[2:]), "the kernel's time limit", 60)
    for c in clients[2:]:
        expect(c.code in (errno.EIO, errno.ECONNABORTED, errno.ENOTCONN),
               f"result of the client: {c.code}")
    time.sleep(max(0, begun + 45 - time.monotonic()))
    for (m, disk), c in zip(usual, clients):
        expect(not c.done(), f"the client has ended with {c.code}")
        expect("request takes longer" not in log_of(m), f"the log warns: {m.tail()}")
        disk.tell("go")
        wait_for(c.done, "the client", 20)
        expect_eq(c.code, 0, "result of the client")
        m.umount()
        disk.check()
    for m, disk in most:
        text = log_of(m)
        expect("if a request takes longer than 15 s" in text.splitlines()[0] and
               "fs.fuse.max_request_timeout" in text, f"the log does not warn: {text}")
        expect("the kernel has ended the connection" in text, f"the log does not say: {text}")
        disk.tell("go")
        expect_eq(m.wait(), 0, f"exit status ({m.tail()})")
        expect("unmounted from" in log_of(m) and mountinfo(m.point) is None,
               f"the mount is left behind: {m.tail()}")
        disk.saved().check()


@case(kinds=("loop",))
def patience(env):
    """
    The device answers again before the time limit: SIGTERM ends the mount in order, with everything
    written.
    """
    disk = Disk(env, env.kind)
    m = disk.mount("drain_timeout=30")
    c = stuck_file(m, disk, "write")
    write_file(m.path("g"), pattern(100_000))
    m.proc.send_signal(signal.SIGTERM)
    time.sleep(1)
    expect(m.proc.poll() is None, "it did not wait")
    disk.tell("go")
    expect_eq(m.wait(), 0, f"exit status ({m.tail()})")
    wait_for(c.done, "the end of the client")
    expect_eq(c.code, 0, "result of the client")
    vol = disk.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "stuck"))[:4096], b"w" * 4096, "what was in flight")
        expect_eq(read_file(os.path.join(k, "g")), pattern(100_000), "what was cached")


if __name__ == "__main__":
    main()
