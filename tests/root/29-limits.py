#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The daemon's own limits: no memory left while it writes (in a memory cgroup with next to nothing
free), limits of open files, file size and locked memory that are too small. And what it tells the
service manager.
"""
import contextlib
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import time

from lib import (FUSEDIO, MIB, SLOW, Skip, case, daemons_of, expect, expect_eq, main, mountinfo,
                 need, pattern, read_file, run, wait_for, write_file)

BOTH = ("image", "loop")
KIB = 1024
CAP_SYS_RESOURCE = 24


def status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(re.findall(r"^(\w+):\s*(.*)$", f.read(), re.M))


def major_faults(pid):
    """The major page faults of all threads."""
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[9])


def kib(text):
    return int(text.split()[0])


# ---- memory

class Group:
    """A memory cgroup, of version 1 or 2, whichever the machine has."""

    def __init__(self, env, limit):
        self.dir = None
        name = f"fdio-test-{os.getpid()}"
        for base, v2 in (("/sys/fs/cgroup/memory", False), ("/sys/fs/cgroup", True),
                         ("/sys/fs/cgroup/unified", True)):
            with contextlib.suppress(OSError):
                if v2 and "memory" not in read_file(base + "/cgroup.controllers").decode().split():
                    continue
                if v2:
                    write_file(base + "/cgroup.subtree_control", b"+memory")
                os.mkdir(f"{base}/{name}")
                self.dir, self.v2 = f"{base}/{name}", v2
                break
        if not self.dir:
            raise Skip("no memory cgroup can be made")
        env.undo.callback(self.remove)
        write_file(self.path("memory.max", "memory.limit_in_bytes"), str(limit).encode())

    def path(self, v2, v1):
        return os.path.join(self.dir, v2 if self.v2 else v1)

    def number(self, v2, v1):
        try:
            return int(read_file(self.path(v2, v1)))
        except FileNotFoundError:
            raise Skip("the kernel does not tell the peak of a cgroup") from None

    def peak(self):
        return self.number("memory.peak", "memory.max_usage_in_bytes")

    def take(self, pid):
        """
        Moves the process into the group. Memory that it has stays accounted where it was; later
        allocations are accounted here.
        """
        write_file(os.path.join(self.dir, "cgroup.procs"), str(pid).encode())

    def remove(self):
        with contextlib.suppress(OSError):
            for pid in read_file(os.path.join(self.dir, "cgroup.procs")).split():
                write_file(os.path.join(os.path.dirname(self.dir), "cgroup.procs"), pid)
        for _ in range(100):
            try:
                os.rmdir(self.dir)
                return
            except OSError:
                time.sleep(0.05)


def write_direct(path, total, flags=0):
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT | flags, 0o644)
    buf = mmap.mmap(-1, 256 * KIB)
    buf[:] = pattern(256 * KIB, 5)
    for off in range(0, total, 256 * KIB):
        expect_eq(os.pwritev(fd, [buf], off), 256 * KIB, "bytes written")
    os.fsync(fd)
    os.close(fd)


def write_out(m, turn):
    """Writes data in every way, over old and into new blocks, and makes each write durable."""
    write_direct(m.path("old"), 8 * MIB)
    write_direct(m.path("sync"), 1 * MIB, os.O_DSYNC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(m.path("new"))
    write_direct(m.path("new"), 4 * MIB)
    for name in ("cached", f"cached{turn % 2}"):
        with open(m.path(name), "r+b" if os.path.exists(m.path(name)) else "wb") as f:
            f.write(pattern(8 * MIB, turn))
            f.flush()
            os.fsync(f.fileno())
    fd = os.open(m.path("log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for k in range(40):
        os.write(fd, pattern(3000, k))
        os.fsync(fd)
    os.close(fd)


def sanitized():
    return run("sh", "-c", f"ldd {FUSEDIO} | grep -Eq 'lib(a|t|ub)san'", ok=None).returncode == 0


@case(kinds=BOTH, params=("mlock", "plain"), timeout=180)
def no_memory_left(env, how):
    """
    The daemon can allocate nothing more, and data still reaches the disk. With mlock, and without
    it where there is no swap.
    """
    if sanitized():
        raise Skip("sanitizers allocate as they go")
    if how == "mlock" and not int(status(os.getpid())["CapEff"], 16) >> CAP_SYS_RESOURCE & 1:
        raise Skip("no CAP_SYS_RESOURCE, which -o mlock needs")
    vol = env.volume(96, "-b", "4096")
    with open(vol.file, "r+b") as f:
        os.posix_fallocate(f.fileno(), 0, 96 * MIB)  # accounts the image's memory to this process
    with vol.mount("mlock" if how == "mlock" else "", "queue_depth=8") as m:
        for turn in range(4):
            write_out(m, turn)  # now it has allocated all that it keeps
        # the kernel accounts in steps of 256 KiB for each CPU
        limit = (128 + 256 * os.cpu_count()) * KIB
        group = Group(env, limit)
        before = status(m.pid)
        faults = major_faults(m.pid)
        if how == "mlock":
            expect(kib(before["VmLck"]) > 0, "nothing is locked")
        group.take(m.pid)
        for turn in range(4, 10):
            write_out(m, turn)
        after = status(m.pid)
        peak = group.peak()
        print(
            f"#   {how}, {env.kind}: 174 MiB written with {peak // KIB} KiB of new memory at most; "
            f"VmRSS {before['VmRSS']}, then {after['VmRSS']}", flush=True)
        expect(m.proc.poll() is None, "the daemon was killed")
        expect(peak <= limit, f"{peak} bytes allocated")
        expect_eq(after["VmData"], before["VmData"], "size of its data")
        expect(kib(after["VmRSS"]) <= kib(before["VmRSS"]) + 256,
               f"VmRSS {before['VmRSS']}, then {after['VmRSS']}")
        expect_eq(major_faults(m.pid), faults, "pages read back in")
        expect(read_file(m.path("cached")) == pattern(8 * MIB, 9), "contents differ")
        group.remove()
    vol.check()


# ---- limits

def start(env, vol, limits, *opts, user=None):
    """
    Runs fusedio in the background under these resource limits; returns (its process, the mount
    point).
    """
    point = env.mkdir()
    if user:
        os.chown(point, user, user)
    env.undo.callback(lambda: [os.kill(p, signal.SIGKILL) for p in daemons_of(vol.target)])
    env.undo.callback(run, "umount", "-l", point, ok=None)

    def prepare():
        for what, n in limits.items():
            resource.setrlimit(what, (n, n))
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
    p = subprocess.run([FUSEDIO] + (["-o", ",".join(opts)] if opts else []) + [vol.target, point],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, preexec_fn=prepare, timeout=60 * SLOW, check=False)
    return p, point


def refused(p, point, *words):
    """fusedio must print one line, which names the limit."""
    expect(p.returncode > 0, f"exit status {p.returncode}")
    lines = p.stderr.strip().splitlines()
    expect_eq(len(lines), 1, f"lines of {p.stderr!r}")
    expect(all(w in lines[0] for w in words), f"not {words} in {lines[0]!r}")
    expect(mountinfo(point) is None, "a mount is left behind")


@case()
def file_size(env):
    """
    RLIMIT_FSIZE is below the size of the image: fusedio raises it or, if it may not, refuses the
    mount, because data could not be written. A mount that writes nothing is served.
    """
    vol = env.volume(64)
    p, point = start(env, vol, {resource.RLIMIT_FSIZE: 1 * MIB})
    if p.returncode:
        refused(p, point, "RLIMIT_FSIZE")
    else:
        write_file(os.path.join(point, "f"), pattern(20 * MIB), sync=True)
        run("umount", point)
        wait_for(lambda: not daemons_of(vol.target), "end of the daemon")
        vol.check()
    # a mount that writes nothing
    p, point = start(env, vol, {resource.RLIMIT_FSIZE: 1 * MIB}, "ro", "norecovery")
    expect_eq(p.returncode, 0, f"exit status, read-only ({p.stderr.strip()})")
    os.listdir(point)
    run("umount", point)
    wait_for(lambda: not daemons_of(vol.target), "end of the daemon")


@case(params=(5, 8, 12, 20))
def open_files(env, n):
    if sanitized():
        raise Skip("sanitizers open files")
    vol = env.volume(32)
    p, point = start(env, vol, {resource.RLIMIT_NOFILE: n})
    if p.returncode:
        refused(p, point, "open files")
    else:
        write_file(os.path.join(point, "f"), pattern(100_000), sync=True)
        run("umount", point)
        wait_for(lambda: not daemons_of(vol.target), "end of the daemon")
    vol.check()


@case(params=("plain", "mlock"))
def locked_memory(env, how):
    """
    A small RLIMIT_MEMLOCK of an ordinary user: the mount is served, or refused with the name of the
    limit.
    """
    env.undo.callback(os.chmod, "/dev/fuse", os.stat("/dev/fuse").st_mode & 0o777)
    os.chmod("/dev/fuse", 0o666)
    need("fusermount3")
    vol = env.volume(32, "-E", "root_owner=65534:65534")
    os.chown(vol.file, 65534, 65534)
    global FUSEDIO
    exe = env.path("fusedio")
    run("install", "-m", "755", FUSEDIO, exe)
    FUSEDIO, was = exe, FUSEDIO
    try:
        p, point = start(env, vol, {resource.RLIMIT_MEMLOCK: 65536},
                         *(["mlock"] if how == "mlock" else []), user=65534)
    finally:
        FUSEDIO = was
    if p.returncode or how == "mlock":
        refused(p, point, "RLIMIT_MEMLOCK")
    else:
        run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "fusermount3",
            "-u", point)
        wait_for(lambda: not daemons_of(vol.target), "end of the daemon")
    vol.check()


# ---- the service manager

def next_state(sock):
    """The next READY=1 or STOPPING=1, skipping texts for people; None if there is none in time."""
    with contextlib.suppress(BlockingIOError, TimeoutError):
        while True:
            for line in sock.recv(1000).split(b"\n"):
                if line.startswith((b"READY=", b"STOPPING=")):
                    return line
                expect(line.startswith((b"STATUS=", b"EXTEND_TIMEOUT_USEC=")),
                       f"a line of the message: {line!r}")
    return None


@case(kinds=BOTH, params=("path", "abstract"))
def notify(env, form):
    """
    The service manager gets READY=1 once the mount serves and STOPPING=1 when it ends; neither if
    the mount fails.
    """
    vol = env.volume(32)
    name = "\0fdio-" + os.path.basename(env.dir) if form == "abstract" else env.path("notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(name)
        s.settimeout(30 * SLOW)
        os.environ["NOTIFY_SOCKET"] = name.replace("\0", "@")
        try:
            m = vol.mount()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        expect_eq(next_state(s), b"READY=1", "first message")
        expect(mountinfo(m.point) is not None, "ready before the mount")
        write_file(m.path("f"), pattern(10_000))
        m.proc.send_signal(signal.SIGTERM)
        expect_eq(next_state(s), b"STOPPING=1", "second message")
        expect_eq(m.wait(), 0, "exit status")
        s.setblocking(False)
        expect_eq(next_state(s), None, "one more message")
    vol.check()


if __name__ == "__main__":
    main()
