#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Hostile images and hostile clients over real mounts. tests/fuzz/fuzz_image damages the images (a
failure names the seed); the daemon must refuse them, or serve them and end. Clients die in the
middle of I/O, open thousands of files, look up names without end, use every byte in names and
absurd numbers in calls, and have their daemon killed.
"""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import subprocess
import sys
import time

from lib import (BUILD, FUSEDIO, SLOW, Fail, Skip, case, expect, expect_eq, expect_errno, libc,
                 main, mountinfo, offer_ring, pattern, read_file, wait_for, write_file)

BOTH = ("devfuse", "uring")
FUZZER = os.path.join(BUILD, "tests/fuzz/fuzz_image")


def transport(name):
    if name == "uring":
        offer_ring()
    return "transport=" + name


# ---- images

def look(path, rnd):
    """Everything an ordinary program may do to one file or directory."""
    with contextlib.suppress(OSError):
        st = os.lstat(path)
        for x in os.listxattr(path, follow_symlinks=False)[:50]:
            os.getxattr(path, x, follow_symlinks=False)
        if (st.st_mode & 0o170000) == 0o120000:
            os.readlink(path)
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
                     | (os.O_DIRECT if rnd.random() < 0.3 else 0))
        buf = mmap.mmap(-1, 16384)
        try:
            size = os.fstat(fd).st_size
            for off in (0, 4096, size // 8192 * 4096, size & ~4095):
                with contextlib.suppress(OSError):
                    os.preadv(fd, [buf], off)
                with contextlib.suppress(OSError):
                    os.pwritev(fd, [memoryview(buf)[:4096]], off)
            with contextlib.suppress(OSError):
                os.ftruncate(fd, rnd.choice((0, 1, size // 2, size + 100)))
            with contextlib.suppress(OSError):
                os.fsync(fd)
        finally:
            os.close(fd)


def walk(top, seed):
    """
    Looks at a bounded number of files below top. The caller runs it in a child process, to bound
    its time.
    """
    rnd = random.Random(seed)
    todo, left = [top], 400
    while todo and left > 0:
        d = todo.pop()
        try:
            names = os.listdir(d)[:200]
        except OSError:
            continue
        for n in names:
            p = os.path.join(d, n)
            left -= 1
            look(p, rnd)
            if len(p) < 2000 and os.path.isdir(p) and not os.path.islink(p):
                todo.append(p)
        for fn in (lambda: os.mkdir(os.path.join(d, "new")),
                   lambda: write_file(os.path.join(d, "file"), b"x" * 9000, True),
                   lambda: os.rename(os.path.join(d, names[0]), os.path.join(d, "renamed")),
                   lambda: os.unlink(os.path.join(d, names[-1])),
                   lambda: os.symlink("s" * 300, os.path.join(d, "link"))):
            with contextlib.suppress(OSError, IndexError):
                fn()
    with contextlib.suppress(OSError):
        libc.syncfs(os.open(top, os.O_RDONLY))


def walk_in_child(m, seed):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            walk(m.point, seed)
        os._exit(0)
    end = time.monotonic() + 30 * SLOW
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            m.proc.kill()
            os.waitpid(pid, 0)
            raise Fail(f"seed {seed}: no end of the walk: {m.tail()}")
        time.sleep(0.005)


@case(timeout=400, params=(1, 2, 3))
def broken_images(env, part):
    if not os.access(FUZZER, os.X_OK):
        raise Skip(f"no {FUZZER}")
    served = 0
    args = []
    seeds = range(part * 1000, part * 1000 + 12)
    for s in seeds:
        args += ["--save", str(s), env.path(f"seed{s}")]
    subprocess.run([FUZZER, *args], check=True, stdout=subprocess.DEVNULL, timeout=200 * SLOW)
    for s in seeds:
        vol = env.volume(1, fresh=False)
        os.rename(env.path(f"seed{s}"), vol.file)
        m = vol.mount(("errors=continue", "errors=remount-ro")[s % 2], transport(BOTH[s // 2 % 2]),
                      ok=False)
        wait_for(lambda: m.served() or m.proc.poll() is not None, f"seed {s}: mount or refusal", 30)
        if m.proc.poll() is None:
            served += 1
            walk_in_child(m, s)
            expect(m.proc.poll() is None,
                   f"seed {s}: the daemon ended: {m.proc.poll()}: {m.tail()}")
            m.umount(status=None)
        expect(m.proc.wait(60) >= 0,
               f"seed {s}: the daemon was killed by signal {-m.proc.returncode}: {m.tail()}")
        os.unlink(vol.file)
    expect(served > 2, f"only {served} of {len(seeds)} were served at all")


# ---- clients

DIRECT = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT)
b = mmap.mmap(-1, 1 << 20)
k = 0
while True:
    os.pwritev(fd, [b], k % 16 << 20)
    os.preadv(fd, [b], (k * 7 + 3) % 16 << 20)
    k += 1
"""


@case(params=BOTH, timeout=180)
def killed_in_direct_io(env, how):
    vol = env.volume(192)
    with vol.mount(transport(how)) as m:
        for turn in range(4):
            ps = [subprocess.Popen([sys.executable, "-c", DIRECT, m.path(f"d{k}")])
                  for k in range(6)]
            time.sleep(0.4 + 0.13 * turn)
            for p in ps:
                p.kill()
            for p in ps:
                p.wait(30)
            write_file(m.path("f"), pattern(20_000, turn), sync=True)
            expect_eq(read_file(m.path("f")), pattern(20_000, turn), "contents")
    vol.check()


@case()
def thousands_open(env):
    """Three thousand files are open at once, and deleted while they are."""
    vol = env.volume(64, "-N", "8192")
    with vol.mount() as m:
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        n = min(3000, hard - 100)
        resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, hard))
        try:
            fds = [os.open(m.path(f"f{k}"), os.O_CREAT | os.O_RDWR) for k in range(n)]
            for k, fd in enumerate(fds):
                os.pwrite(fd, b"%d" % k, 0)
            for k in range(0, n, 2):
                os.unlink(m.path(f"f{k}"))
            for k, fd in enumerate(fds):
                expect_eq(os.pread(fd, 20, 0), b"%d" % k, "contents")
            for fd in fds:
                os.close(fd)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        expect_eq(len(os.listdir(m.point)), n // 2 + 1, "entries")
    vol.check()


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


LOOKUPS = int(os.environ.get("FDIO_LOOKUPS") or 60_000)


@case(timeout=300 + LOOKUPS // 500)
def lookups_without_end(env):
    """
    Each new inode costs a lookup and its deletion a forget; names come and go. The daemon's memory
    must not grow with their number.
    """
    rounds = LOOKUPS // 1000
    vol = env.volume(64, "-N", "4096")
    with vol.mount() as m:
        before = None
        for r in range(rounds):
            for k in range(500):
                os.close(os.open(m.path(f"f{k}"), os.O_CREAT | os.O_WRONLY))
                with contextlib.suppress(FileNotFoundError):
                    os.stat(m.path(f"none{r}-{k}"))
            for k in range(500):
                os.unlink(m.path(f"f{k}"))
            if r == rounds // 4:
                before = rss_kib(m.pid)
        grown = rss_kib(m.pid) - before
        expect(grown < 16 << 10, f"{grown} KiB more after {rounds * 1000} lookups")
        print(f"#   {rounds * 1000} lookups, {grown} KiB more than after a quarter of them",
              flush=True)
    vol.check()


@case(timeout=180, params=(1024, 4096))
def every_byte_in_names(env, block):
    vol = env.volume(64, "-b", str(block), "-N", "16384")
    names = {bytes([b]) for b in range(1, 256) if b not in b"/."} | {
        bytes([b]) * 255 for b in range(1, 256) if b != 0x2f}
    names = sorted(names
                   | {b"..." + bytes([b, 0xff, 0xfe, 0xc0]) for b in range(1, 256) if b != 0x2f})
    with vol.mount() as m:
        for turn in range(6):
            random.Random(turn).shuffle(names)
            top = os.fsencode(m.path(f"d{turn}"))
            os.mkdir(top)
            for n in names:
                with open(top + b"/" + n, "wb") as f:
                    f.write(n)
            expect_eq(set(os.listdir(top)), set(names), "names")
            for n in names:
                with open(top + b"/" + n, "rb") as f:
                    expect_eq(f.read(), n, "contents")
            for n in names:
                os.rename(top + b"/" + n, top + b"/" + n[:100] + b"\x01")
        with expect_errno(errno.ENAMETOOLONG):
            os.mkdir(top + b"/" + b"x" * 256)
    vol.check()


@case(timeout=180)
def deep_directories(env):
    """Six hundred levels of directories are made, walked up and down, moved, and removed."""
    vol = env.volume(64, "-N", "4096")
    with vol.mount() as m:
        fds = [os.open(m.point, os.O_RDONLY)]
        for k in range(600):
            os.mkdir(f"level{k}", dir_fd=fds[-1])
            fds.append(os.open(f"level{k}", os.O_RDONLY, dir_fd=fds[-1]))
            if k % 50 == 49:
                with os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1]),
                               "wb") as f:
                    f.write(b"x" * k)
        up = os.dup(fds[-1])
        for _ in range(600):
            up, old = os.open("..", os.O_RDONLY, dir_fd=up), up
            os.close(old)
        expect_eq(os.fstat(up).st_ino, 2, "inode at the top")
        os.close(up)
        os.mkdir(m.path("other"))
        with expect_errno(errno.EINVAL):
            os.rename(m.path("level0"), "inside", dst_dir_fd=fds[-1])
        os.rename(m.path("level0"), m.path("other", "moved"))
        while len(fds) > 2:
            os.close(fds.pop())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"level{len(fds) - 1}/file", dir_fd=fds[-1])
            os.rmdir(f"level{len(fds) - 1}", dir_fd=fds[-1])
        for fd in fds:
            os.close(fd)
        os.rmdir(m.path("other", "moved"))
    vol.check()


WAITERS = {
    "direct": DIRECT,
    "fsync": "import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\nwhile True:\n    "
    "os.pwrite(fd, b'x' * 9000, 0)\n    os.fsync(fd)\n",
    "names": "import os, sys\nk = 0\nwhile True:\n    os.mkdir(sys.argv[1] + str(k))\n    "
    "os.rmdir(sys.argv[1] + str(k))\n    k += 1\n",
    "reads": "import os, sys\nopen(sys.argv[1], 'wb').write(b'x' * 500000)\nfd = "
    "os.open(sys.argv[1], os.O_RDONLY)\nwhile True:\n"
    "    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n    os.pread(fd, 500000, 0)\n"}


@case(params=BOTH, timeout=180)
def daemon_killed_under_clients(env, how):
    """When the daemon is killed, its clients get errors at once."""
    vol = env.volume(192)
    m = vol.mount(transport(how))
    ps = [subprocess.Popen([sys.executable, "-c", text, m.path(f"{name}{k}")],
                           stderr=subprocess.DEVNULL) for name, text in WAITERS.items()
          for k in range(3)]
    env.undo.callback(lambda: [p.kill() for p in ps])
    time.sleep(1)
    expect(all(p.poll() is None for p in ps), "a client ended early")
    m.proc.kill()
    m.proc.wait(30)
    wait_for(lambda: all(p.poll() is not None for p in ps), "the clients' end", 20)
    expect_eq({p.poll() for p in ps}, {1}, "how they ended")
    with expect_errno(errno.ENOTCONN, errno.ECONNABORTED):
        os.listdir(m.point)
    m.destroy()
    expect(mountinfo(m.point) is None, "still mounted")
    with vol.mount(transport(how)) as again:
        os.listdir(again.point)
    vol.check()


def absurd_calls(fd, path, rnd):
    top = 2 ** 63 - 1
    buf = ctypes.create_string_buffer(70_000)
    numbers = (0, 1, 511, 4095, 4097, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 44, top - 4096, top - 1,
               top)
    for a in numbers:
        for fn in (lambda: os.pread(fd, 4096, a), lambda: os.pwrite(fd, b"x", a) if a > 1 << 44
                   else None, lambda: os.ftruncate(fd, a), lambda: os.ftruncate(fd, 100),
                   lambda: os.lseek(fd, a, os.SEEK_DATA), lambda: os.lseek(fd, a, os.SEEK_HOLE),
                   lambda: os.copy_file_range(fd, fd, 4096, a, rnd.choice(numbers)),
                   lambda: os.truncate(path, a), lambda: os.truncate(path, 100)):
            with contextlib.suppress(OSError, OverflowError, ValueError):
                fn()
        for mode in (0, 1, 2, 3, 8, 16, 17, 32, 64, 0x7f):
            libc.fallocate(fd, mode, a, rnd.choice(numbers))
            os.ftruncate(fd, 100)
    for size in (0, 1, 65535, 65536, 65537):
        libc.getxattr(os.fsencode(path), b"user.x", buf, ctypes.c_size_t(size))
        libc.listxattr(os.fsencode(path), buf, ctypes.c_size_t(size))
        libc.setxattr(os.fsencode(path), b"user." + b"n" * rnd.choice((0, 1, 250, 251, 300)), buf,
                      ctypes.c_size_t(size), rnd.randrange(8))
        libc.setxattr(os.fsencode(path), b"system.posix_acl_access",
                      bytes(rnd.randbytes(size % 4000)), ctypes.c_size_t(size % 4000), 0)


@case(timeout=180)
def absurd_numbers(env):
    """
    Unknown ioctls of all sizes, enormous offsets and lengths, attributes that are too large, system
    calls on /dev/fuse.
    """
    rnd = random.Random(7)
    vol = env.volume(64)
    with vol.mount("allow_other") as m:
        write_file(m.path("f"), b"x" * 10_000)
        os.mkdir(m.path("d"))
        for p in (m.path("f"), m.path("d"), m.point):
            fd = os.open(p, os.O_RDONLY)
            for _ in range(400):
                number = (rnd.getrandbits(32) if rnd.random() < 0.5 else rnd.choice((
                    0x58, 0x66, 0x76, 0x94)) << 8 | rnd.getrandbits(8) | rnd.randrange(4) << 30
                          | rnd.choice((0, 1, 4, 8, 24, 28, 4096, 16383)) << 16)
                if number & 0xffff in (0x587d, 0x5878, 0x5877, 0x5879):
                    continue  # shut down, thaw, freeze, trim
                with contextlib.suppress(OSError):
                    fcntl.ioctl(fd, number, bytearray(rnd.randbytes(16384)))
            os.close(fd)
        fd = os.open(m.path("f"), os.O_RDWR)
        absurd_calls(fd, m.path("f"), rnd)
        os.close(fd)
        direct = os.open(m.path("f"), os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 65536)
        for _ in range(200):
            with contextlib.suppress(OSError):
                view = memoryview(page)[rnd.randrange(1000):][:rnd.randrange(60_000)]
                os.preadv(direct, [view] * rnd.randrange(1, 5),
                          rnd.choice((0, 1, 512, 4095, 2 ** 40, 2 ** 63 - 70_000)))
        os.close(direct)
        other = os.open("/dev/fuse", os.O_RDWR)
        for fn in (lambda: os.read(other, 200_000), lambda: os.write(other, os.urandom(100)),
                   lambda: fcntl.ioctl(other, 0x8004e500, (m.pid).to_bytes(4, "little"))):
            with contextlib.suppress(OSError):
                fn()
        os.close(other)
        write_file(m.path("after"), pattern(100))
        expect_eq(read_file(m.path("after")), pattern(100), "contents")
        expect(os.access(FUSEDIO, os.X_OK) and m.proc.poll() is None, "the daemon is there")
    vol.check()


if __name__ == "__main__":
    main()
