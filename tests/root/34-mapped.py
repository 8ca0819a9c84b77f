#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What programs store through shared mappings, of which FUSE tells nobody until the page is written
back: copies, the time that utime set, the count of blocks, and what is stored behind the end of a
file, which must not become part of it.
"""
import contextlib
import mmap
import os
import shutil
import time

from lib import case, expect, expect_eq, fallocate, main, pattern, read_file, run, write_file

PAGE = 4096
MODES = ("noparallel_dio", "parallel_dio")


@contextlib.contextmanager
def mapped(path, size, data=b""):
    """A new file with data at its beginning, open and mapped."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, size)
        with mmap.mmap(fd, (size + PAGE - 1) // PAGE * PAGE if size % PAGE == 0 else size) as mm:
            yield fd, mm
    finally:
        os.close(fd)


# ---- behind the end ----

def whole_page(fd):
    """All of the page that holds the end of the file, which Python would not map."""
    import ctypes  # pylint: disable=import-outside-toplevel
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
    at = libc.mmap(None, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    expect(at not in (None, ctypes.c_void_p(-1).value), "mmap failed")
    page = (ctypes.c_char * PAGE).from_address(at)
    page.unmap = lambda: libc.munmap(ctypes.c_void_p(at), PAGE)
    return page


def direct_write(path, off):
    buf = mmap.mmap(-1, PAGE)
    buf.write(b"z" * PAGE)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        os.pwrite(fd, buf, off)
    finally:
        os.close(fd)


GROW = {
    "write in the page": lambda fd, path: os.pwrite(fd, b"z", 1000),
    "write to its end": lambda fd, path: os.pwrite(fd, b"z" * 3096, 1000),
    "write over its end": lambda fd, path: os.pwrite(fd, b"z" * 9000, 3000),
    "write behind the page": lambda fd, path: os.pwrite(fd, b"z" * 100, 50_000),
    "direct write behind the page": lambda fd, path: direct_write(path, 8192),
    "truncate in the page": lambda fd, path: os.ftruncate(fd, 1000),
    "truncate behind the page": lambda fd, path: os.truncate(path, 50_000),
    "fallocate": lambda fd, path: fallocate(fd, 0, 0, 50_000),
    "copy_file_range": lambda fd, path: os.copy_file_range(fd, fd, 50, 0, 9000),
    "append, then write": lambda fd, path: (os.pwrite(fd, b"z" * 50, 100),
                                            os.pwrite(fd, b"z", 3000)),
}


def stored_behind_the_end(path, how, grow, again):
    """again: the page was there and is gone, and nobody read it since."""
    write_file(path, b"a" * 100)
    fd = os.open(path, os.O_RDWR)
    page = whole_page(fd)
    try:
        page[50:51] = b"b"
        page[200:300] = b"F" * 100
        if again:
            os.fsync(fd)
            page[200:300] = b"F" * 100
        grow(fd, path)
        want = b"a" * 50 + b"b" + b"a" * 49
        got = read_file(path)
        expect_eq(got[:100], want, f"{how}: what was stored before the end")
        expect(b"F" not in got, f"{how}: foreign bytes in the file, from {got.find(b'F')}")
        expect_eq(page[200:300], got[200:300].ljust(100, b"\0"), f"{how}: the mapping")
        page[200:210] = b"legitimate"  # now it is part of the file
        os.fsync(fd)
    finally:
        page.unmap()
        os.close(fd)
    return got[:200] + b"legitimate" + got[210:]


@case(params=MODES)
def behind_the_end(env, options):
    vol = env.volume(64, "-b", "4096")
    want = {}
    with vol.mount(options) as m:
        for k, (how, grow) in enumerate(GROW.items()):
            for again in (False, True):
                name = f"f{k}{again:d}"
                want[name] = stored_behind_the_end(m.path(name), how, grow, again)
    vol.check()
    with vol.kmount("ro") as k:
        for name, data in want.items():
            expect_eq(read_file(os.path.join(k, name)), data, f"{name} on disk")


@case(params=MODES)
def page_no_longer_in_memory(env, options):
    """
    A write that leaves a gap locks the page, which was read and is gone: it ends all the same.
    """
    vol = env.volume(64, "-b", "4096")
    with vol.mount(options) as m:
        write_file(m.path("f"), b"a" * 100)
        fd = os.open(m.path("f"), os.O_RDWR)
        for k in range(2):  # the second time nothing is known of the page
            if not k:
                os.pread(fd, 10, 0)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pwrite(fd, b"z", 1000 * (k + 1))
        os.close(fd)
        want = b"a" * 100 + bytes(900) + b"z" + bytes(999) + b"z"
        expect_eq(read_file(m.path("f")), want, "the file")
    vol.check()


# ---- in holes ----

SIZE = 100_000


def copies(path, to):
    """Programs that look for holes; qemu-img (qemu-utils) if it is installed."""
    run("cp", "--sparse=always", path, to + ".cp")
    yield "cp", to + ".cp"
    run("tar", "-C", os.path.dirname(path), "-S", "-cf", to + ".tar", os.path.basename(path))
    os.mkdir(to + ".d")
    run("tar", "-C", to + ".d", "-xf", to + ".tar")
    yield "tar -S", os.path.join(to + ".d", os.path.basename(path))
    if shutil.which("qemu-img"):
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", path, to + ".img")
        yield "qemu-img", to + ".img"


def stores(mm, size, round_no):
    data = bytearray(mm[:size])
    for at in (0, 5000, 40_960, size - 10):
        data[at:at + 10] = mm[at:at + 10] = pattern(10, at + round_no)
    return bytes(data)


@case(params=MODES, timeout=180)
def copied_while_mapped(env, options):
    vol = env.volume(64, "-b", "4096")
    with vol.mount(options) as m:
        for name in ("cp", "tar -S", "qemu-img"):
            for round_no in range(2):
                path = m.path(f"{name} {round_no}")
                with mapped(path, SIZE) as (_, mm):
                    want = stores(mm, SIZE, round_no)
                    for how, copy in copies(path, env.unique("copy")):
                        if how == name:
                            got = read_file(copy)[:SIZE].ljust(SIZE, b"\0")
                            expect(got == want, f"{how}: the copy lacks what was stored")
    vol.check()


@case(params=MODES)
def blocks_and_holes(env, options):
    """Each store is seen by the next stat and lseek."""
    vol = env.volume(64, "-b", "4096")
    with vol.mount(options) as m, mapped(m.path("f"), 20 * PAGE) as (fd, mm):
        for k, page in enumerate((7, 3, 12)):
            expect_eq(os.stat(m.path("f")).st_blocks, k * 8, "blocks before the store")
            mm[page * PAGE:page * PAGE + 4] = b"data"
            if k % 2:
                at, end = page * PAGE, (page + 1) * PAGE
                expect_eq(os.lseek(fd, at, os.SEEK_DATA), at, f"data in page {page}")
                expect_eq(os.lseek(fd, at, os.SEEK_HOLE), end, f"hole behind page {page}")
            expect_eq(os.stat(m.path("f")).st_blocks, (k + 1) * 8, "blocks after the store")
    vol.check()


@case(params=MODES)
def many_at_once(env, options):
    """More dirty files than there are threads and records: everyone is answered."""
    vol = env.volume(64, "-b", "4096")
    with vol.mount(options) as m, contextlib.ExitStack() as open_files:
        for k in range(150):
            _, mm = open_files.enter_context(mapped(m.path(f"f{k}"), SIZE))
            mm[5000:5010] = b"0123456789"
        run("sh", "-c", "for k in $(seq 0 149); do cp --sparse=always f$k c$k & done; wait",
            cwd=m.point)
        for k in range(150):
            expect_eq(read_file(m.path(f"c{k}"))[5000:5010], b"0123456789", f"copy {k}")
    vol.check()


# ---- times ----

@case(params=MODES)
def time_set_after_a_store(env, options):
    vol = env.volume(64, "-b", "4096")
    with vol.mount(options) as m:
        write_file(m.path("f"), b"x" * 10_000)
        fd = os.open(m.path("f"), os.O_RDWR)
        with mmap.mmap(fd, 10_000) as mm:
            for when in (10**9, 10**9 + 5):
                mm[100] = mm[100] ^ 1
                os.utime(m.path("f"), (when, when))
                mm.flush()
                expect_eq(os.stat(m.path("f")).st_mtime, when, "the time that utime set")
            mm[100] = 7
            mm.flush()
            late = time.time() - os.stat(m.path("f")).st_mtime
            expect(abs(late) < 600, "a store after utime leaves the old time")
        os.close(fd)
    vol.check()


if __name__ == "__main__":
    main()
