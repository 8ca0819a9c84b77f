#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A full file system: calls fail with ENOSPC, nothing is damaged, and freed space can be used at once.
"""
import contextlib
import errno
import mmap
import os
import time

from lib import (SLOW, case, expect, expect_eq, expect_errno, main, pattern, read_file, run,
                 write_file)

BOTH = ("image", "loop")


def fill_up(path, direct):
    """Writes until ENOSPC; returns how many bytes were written."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | (os.O_DIRECT if direct else 0), 0o644)
    buf = mmap.mmap(-1, 65536)
    buf[:] = pattern(65536, 3)
    total = 0
    try:
        while True:
            n = os.write(fd, buf)
            total += n
    except OSError as e:
        expect_eq(e.errno, errno.ENOSPC, "error of a full file system")
    finally:
        os.close(fd)
    return total


@case(kinds=BOTH, params=("direct", "buffered"))
def data(env, how):
    vol = env.volume(40, "-b", "4096", "-m", "0")
    with vol.mount() as m:
        write_file(m.path("before"), pattern(500_000), sync=True)
        for turn in range(3):
            n = fill_up(m.path("big"), how == "direct")
            expect(n > 10 << 20, f"only {n} bytes fitted in")
            expect_eq(os.stat(m.path("big")).st_size, n, "size")
            body = read_file(m.path("big"))
            expect(all(body[i:i + 65536] == pattern(65536, 3)[:len(body) - i]
                       for i in range(0, len(body), 65536)), "contents differ")
            expect_eq(read_file(m.path("before")), pattern(500_000), "an older file")
            os.unlink(m.path("big"))
        write_file(m.path("after"), pattern(5_000_000), sync=True)
        expect_eq(read_file(m.path("after")) == pattern(5_000_000), True,
                  "contents of a file made afterwards")
    vol.check()


@case(kinds=BOTH)
def names(env):
    """Without free inodes, every call that needs one fails with ENOSPC."""
    vol = env.volume(32, "-N", "256")
    with vol.mount() as m:
        made = 0
        with contextlib.suppress(OSError):
            while made < 1000:
                os.mkdir(m.path(f"d{made}")) if made % 2 else write_file(m.path(f"f{made}"), b"")
                made += 1
        expect(100 < made < 300, f"{made} files in 256 inodes")
        for op in (os.mkdir, lambda p: write_file(p, b""), lambda p: os.symlink("t", p), os.mkfifo):
            with expect_errno(errno.ENOSPC):
                op(m.path("one-more"))
        os.unlink(m.path("f0"))
        os.mkdir(m.path("one-more"))
        expect_eq(os.statvfs(m.point).f_ffree, 0, "free inodes")
    vol.check()


@case(kinds=BOTH)
def what_is_removed_is_free(env):
    """
    The next call can use the inode and the blocks of a file that was just removed, however often
    that happens.
    """
    vol = env.volume(32, "-b", "4096", "-N", "256", "-m", "0")
    with vol.mount() as m:
        names = []
        with contextlib.suppress(OSError):
            while len(names) < 1000:
                write_file(m.path(f"f{len(names)}"), b"")
                names.append(m.path(f"f{len(names)}"))
        for i in range(60):
            os.unlink(names[i % len(names)])
            (os.mkdir if i % 2 else os.mkfifo)(m.path("new"))
            (os.rmdir if i % 2 else os.unlink)(m.path("new"))
            write_file(names[i % len(names)], b"")
        for n in names[:8]:
            os.unlink(n)
        n = fill_up(m.path("big"), False)
        for i in range(10):
            os.unlink(m.path("big"))
            with open(m.path("big"), "wb") as f:
                os.posix_fallocate(f.fileno(), 0, n - (1 << 20)) if i % 2 else f.write(
                    bytes(n - (1 << 20)))
    vol.check()


@case(kinds=BOTH, params=("open", "cwd"))
def deleted_open_files_delay_no_write(env, how):
    """
    A write that finds no space waits for deletions that are under way, but not for a deleted file
    that is still open, nor for a deleted directory that is somebody's working directory: nobody
    knows when these end.
    """
    vol = env.volume(32, "-b", "4096", "-m", "0")
    with vol.mount() as m:
        for i in range(5):
            os.mkdir(m.path(f"d{i}"))
        x = os.open(m.path("x"), os.O_CREAT | os.O_RDWR)
        gone = os.open(m.path("gone"), os.O_CREAT | os.O_RDWR)
        fill_up(m.path("big"), False)
        fill_up(m.path("rest"), True)
        took = 0
        os.unlink(m.path("gone"))
        try:
            for i in range(5 if how == "cwd" else 60):
                if how == "cwd":
                    os.chdir(m.path(f"d{i}"))
                    os.rmdir(m.path(f"d{i}"))
                before = time.monotonic()
                with contextlib.suppress(OSError):
                    os.pwrite(x, b"q" * (1 << 20), i << 20)
                took += time.monotonic() - before
        finally:
            os.chdir("/")
        os.close(gone)
        os.close(x)
        expect(took < 0.6 * SLOW, f"writes without space took {took:.1f} s in all")
    vol.check()


@case(kinds=BOTH)
def no_blocks_for_names(env):
    """
    Without free blocks, directories cannot grow and large attributes cannot be set; a call that
    fails leaves nothing behind.
    """
    vol = env.volume(32, "-b", "1024", "-m", "0", "-N", "8192")
    with vol.mount() as m:
        os.mkdir(m.path("d"))
        fill_up(m.path("big"), False)
        with contextlib.suppress(OSError):
            with open(m.path("rest"), "wb", buffering=0) as f:
                while f.write(b"x" * 1024):
                    pass
        made = 0
        err = 0
        try:
            while made < 5000:
                os.close(os.open(m.path("d", f"a-name-of-some-length-{made}"),
                                 os.O_CREAT | os.O_WRONLY))
                made += 1
        except OSError as e:
            err = e.errno
        expect_eq(err, errno.ENOSPC, f"error after {made} names")
        expect_eq(len(os.listdir(m.path("d"))), made, "names")
        with expect_errno(errno.ENOSPC):
            os.mkdir(m.path("e"))
        os.truncate(m.path("big"), 1 << 20)
        for i in range(500):
            write_file(m.path("d", f"later-{i}"), b"x")
        expect_eq(len(os.listdir(m.path("d"))), made + 500, "names afterwards")
    vol.check()


@case(kinds=BOTH)
def reserved_blocks(env):
    """Only root can use the reserved blocks, for data and for everything else."""
    vol = env.volume(64, "-b", "4096", "-m", "10")
    with vol.mount() as m:
        os.chmod(m.point, 0o777)
        p = run("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "dd",
                "if=/dev/zero", f"of={m.path('user')}", "bs=64k", ok=None)
        expect(p.returncode != 0 and "No space" in p.stderr, f"dd: {p.stderr!r}")
        st = os.statvfs(m.point)
        expect(st.f_bavail < 40, f"{st.f_bavail} blocks available to users")
        expect(st.f_bfree > 500, f"only {st.f_bfree} blocks kept")
        # Root can use the reserve for everything that takes a block, not only for data.
        os.mkdir(m.path("d"))
        os.symlink("t" * 200, m.path("long-link"))
        os.setxattr(m.path("user"), "user.large", b"v" * 2000)
        for i in range(200):
            os.close(os.open(m.path("d", f"a-name-of-some-length-so-that-blocks-fill-{i}"),
                             os.O_CREAT | os.O_WRONLY))
        write_file(m.path("root"), pattern(1_000_000), sync=True)
    vol.check()


if __name__ == "__main__":
    main()
