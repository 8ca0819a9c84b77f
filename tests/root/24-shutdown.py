#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The shutdown ioctl: which calls fail afterwards and how, compared with the kernel's ext4; what is
there after the next mount; and shutdown as a way to crash a busy file system.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import threading
import time

from lib import Fail, case, expect, expect_eq, libc, main, pattern, read_file, wait_for, write_file

# _IOR('X', 125, __u32), as ext4 defines it. FUSE passes no argument with _IOR, so the daemon does
# not see the flags and takes the default.
SHUTDOWN = 0x8004587d
SHUTDOWN_FLAGS = 0x4004587d  # _IOW: FUSE passes the flags
DEFAULT, LOGFLUSH, NOLOGFLUSH = 0, 1, 2
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]


def shut(path, how, number=SHUTDOWN_FLAGS):
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.ioctl(fd, number, struct.pack("I", how)) < 0:
            e = ctypes.get_errno()
            raise OSError(e, os.strerror(e))
    finally:
        os.close(fd)


def fails(fn):
    try:
        fn()
        return "ok"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def syncfs(fd):
    if libc.syncfs(fd) < 0:
        raise OSError(ctypes.get_errno(), "")


def operations(d, number):
    """The result of each operation after a shutdown, by name."""
    def at(*names):
        return os.path.join(d, *names)
    for n in "abcdef":
        write_file(at(n), pattern(10_000), sync=True)
    os.mkdir(at("dir"))
    os.mkdir(at("empty"))
    write_file(at("dir", "in"), b"x")
    os.symlink("a", at("sym"))
    os.setxattr(at("a"), "user.x", b"1")
    fd, direct, top = (os.open(at("a"), os.O_RDWR), os.open(at("b"), os.O_RDWR | os.O_DIRECT),
                       os.open(d, os.O_RDONLY))
    os.pread(fd, 10_000, 0)
    buf = mmap.mmap(-1, 4096)
    said = {"wrong flags": fails(lambda: shut(d, 7, number)) if number == SHUTDOWN_FLAGS
            else "EINVAL"}
    said["shut down"] = fails(lambda: shut(d, NOLOGFLUSH, number))
    said["once more"] = fails(lambda: shut(d, NOLOGFLUSH, number))
    table = {
        "read": lambda: os.pread(fd, 100, 0), "read direct": lambda: os.preadv(direct, [buf], 0),
        "write": lambda: os.pwrite(fd, b"z", 0),
        "write direct": lambda: os.pwritev(direct, [buf], 0), "fsync": lambda: os.fsync(fd),
        "fsync of a directory": lambda: os.fsync(top), "ftruncate": lambda: os.ftruncate(fd, 5),
        "truncate": lambda: os.truncate(at("c"), 5),
        "fallocate": lambda: os.posix_fallocate(fd, 0, 20_000), "stat": lambda: os.stat(at("a")),
        "stat below": lambda: os.stat(at("dir", "in")),
        "stat of nothing": lambda: os.stat(at("none")), "statfs": lambda: os.statvfs(d),
        "open": lambda: os.open(at("c"), os.O_RDONLY),
        "open for writing": lambda: os.open(at("c"), os.O_WRONLY),
        "create": lambda: os.open(at("new"), os.O_CREAT | os.O_WRONLY),
        "mkdir": lambda: os.mkdir(at("newdir")), "unlink": lambda: os.unlink(at("d")),
        "rmdir": lambda: os.rmdir(at("empty")), "rename": lambda: os.rename(at("e"), at("e2")),
        "link": lambda: os.link(at("f"), at("f2")), "symlink": lambda: os.symlink("q", at("s2")),
        "readlink": lambda: os.readlink(at("sym")), "chmod": lambda: os.chmod(at("a"), 0o600),
        "utime": lambda: os.utime(at("a")), "mknod": lambda: os.mknod(at("node")),
        "getxattr": lambda: os.getxattr(at("a"), "user.x"),
        "listxattr": lambda: os.listxattr(at("a")),
        "setxattr": lambda: os.setxattr(at("a"), "user.y", b"1"),
        "removexattr": lambda: os.removexattr(at("a"), "user.x"), "list": lambda: os.listdir(d),
        "seek": lambda: os.lseek(fd, 0, os.SEEK_DATA),
        "tmpfile": lambda: os.open(d, os.O_TMPFILE | os.O_RDWR),
        "setflags": lambda: fcntl.ioctl(fd, 0x40086602, struct.pack("Q", 0x80))}
    for name, fn in table.items():
        said[name] = fails(fn)
    for f in (fd, direct, top):
        os.close(f)
    return said


@case(kinds=("image", "loop"), params=(SHUTDOWN, SHUTDOWN_FLAGS))
def as_the_kernel(env, number):
    """Each operation afterwards succeeds or fails as on the kernel's ext4, and unmounting works."""
    vol, other = env.volume(64), env.volume(64)
    with other.kmount() as d:
        theirs = operations(d, SHUTDOWN)
    with vol.mount() as m:
        ours = operations(m.point, number)
    differ = {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]}
    expect(not differ, f"(ours, the kernel's): {differ}")
    with vol.mount() as m:
        expect_eq(read_file(m.path("a")), pattern(10_000), "contents after mounting again")
        write_file(m.path("after"), b"x")
    vol.check()


@case(kinds=("image", "loop"), params=(DEFAULT, LOGFLUSH, NOLOGFLUSH))
def what_is_left(env, how):
    """
    Synced data is there after a shutdown of any kind; other data is there if that kind includes
    syncing.
    """
    vol = env.volume(64)
    with vol.mount("commit=300") as m:
        for k in range(20):
            write_file(m.path(f"synced{k}"), pattern(5000 * k, k), sync=True)
        top = os.open(m.point, os.O_RDONLY)
        os.fsync(top)
        os.close(top)
        for k in range(20):
            write_file(m.path(f"loose{k}"), pattern(3000, k))
        os.rename(m.path("synced3"), m.path("renamed"))
        shut(m.point, how)
        expect_eq(fails(lambda: os.mkdir(m.path("late"))), "EIO", "mkdir after it")
    expect("needs_recovery" in vol.super()["Filesystem features"], "the log was to be replayed")
    with vol.mount() as m:
        for k in range(20):
            if k != 3:
                expect_eq(read_file(m.path(f"synced{k}")), pattern(5000 * k, k), f"synced{k}")
        moved = [n for n in ("synced3", "renamed") if os.path.exists(m.path(n))]
        expect_eq(len(moved), 1, "names of the renamed file")
        expect_eq(read_file(m.path(moved[0])), pattern(15_000, 3), moved[0])
        loose = [k for k in range(20) if os.path.exists(m.path(f"loose{k}"))]
        for k in loose:
            expect_eq(read_file(m.path(f"loose{k}")), pattern(3000, k), f"loose{k}")
        if how != NOLOGFLUSH:
            expect_eq(len(loose), 20, "files that were not synced")
            expect_eq(moved, ["renamed"], "name of the renamed file")
        else:
            expect_eq(loose, [], "files of a transaction that was thrown away")
        expect(not os.path.exists(m.path("late")), "made after the end")
    vol.check()


def writer(d, k, noted, errors, stop):
    n = 0
    try:
        while not stop.is_set():
            p = os.path.join(d, f"w{k}-{n}")
            write_file(p, pattern(4000 + 17 * n, k * 1000 + n), sync=n % 3 == 0)
            if n % 3 == 0:
                noted.append((k, n))
            if n % 5 == 4:
                os.rename(p, p + "r")
            n += 1
    except OSError as e:
        errors.append(e.errno)


@case(kinds=("image", "loop"), timeout=240)
def crash_test(env):
    """
    A busy file system is shut down again and again: nothing that was synced is lost, and e2fsck
    finds nothing.
    """
    vol = env.volume(96)
    for turn in range(4):
        noted, errors, stop = [], [], threading.Event()
        with vol.mount() as m:
            top = m.path(f"t{turn}")
            os.mkdir(top)
            threads = [threading.Thread(target=writer, args=(top, k, noted, errors, stop))
                       for k in range(4)]
            for t in threads:
                t.start()
            wait_for(lambda: len(noted) > 15 or errors, "some files")
            time.sleep(0.05 * turn)
            done = list(noted)
            shut(m.point, NOLOGFLUSH)
            for t in threads:
                t.join(30)
            stop.set()
            expect(not any(t.is_alive() for t in threads), "a writer still waits")
            expect_eq(errors, [errno.EIO] * 4, "how the writers ended")
        with vol.mount() as m:
            for k, n in done:
                p = m.path(f"t{turn}", f"w{k}-{n}")
                p = p if os.path.exists(p) else p + "r"
                if not os.path.exists(p):
                    raise Fail(f"turn {turn}: {p} was synced and is gone")
                expect_eq(read_file(p), pattern(4000 + 17 * n, k * 1000 + n), p)
        vol.check()


@case()
def only_root(env):
    """Only root may shut a file system down."""
    vol = env.volume(64)
    with vol.mount("allow_other") as m:
        pid = os.fork()
        if pid == 0:
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
            codes = {fails(lambda: shut(m.point, DEFAULT, n)) for n in (SHUTDOWN, SHUTDOWN_FLAGS)}
            os._exit(0 if codes == {"EPERM"} else 1)
        expect_eq(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0,
                  "status of the child: want EPERM")
        write_file(m.path("f"), b"still works")
    vol.check()


if __name__ == "__main__":
    main()
