#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Direct, buffered, mapped and spliced I/O on one file agree byte for byte, one after the other and at
the same time. Most cases run a part of cohtool.c.
"""
import contextlib
import ctypes
import errno
import mmap
import os
import signal
import subprocess
import threading
import time
import zlib

from lib import (BUILD, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, Fail, case, expect, expect_eq,
                 expect_errno, fallocate, main, pattern, read_file, run, write_file)

COHTOOL = os.path.join(BUILD, "tests/root/cohtool")
FSXTOOL = os.path.join(BUILD, "tests/root/fsxtool")
MODES = ("noparallel_dio", "parallel_dio")
PAGE = 4096


def on_mount(fn):
    """
    Gives the case a mount with the options of its parameter (joined by +). e2fsck checks the volume
    afterwards.
    """
    def wrapped(env, options="noparallel_dio"):
        vol = env.volume(128, "-b", "4096")
        with vol.mount(*options.split("+")) as m:
            fn(m)
        vol.check()
    wrapped.__name__ = fn.__name__
    return wrapped


def coh(m, *args):
    out = run(COHTOOL, args[0], m.path("f"), *args[1:], timeout=60).stdout
    expect(out.startswith("ok"), f"cohtool {' '.join(args)}: {out}")
    return out.split()


@contextlib.contextmanager
def opened(path, flags):
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def dread(path, off, n):
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd:
        buf = mmap.mmap(-1, (n + PAGE - 1) // PAGE * PAGE)
        got = os.preadv(fd, [memoryview(buf)[:n]], off)
        return bytes(buf[:got])


def every_way(path, what, want):
    """read, a direct read and a mapping must all show these bytes."""
    for how, got in (("read", read_file(path)),
                     ("a direct read", dread(path, 0, (len(want) + 511) // 512 * 512 + 512))):
        if got != want:
            at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b),
                      min(len(got), len(want)))
            raise Fail(
                f"{what}: {how} shows {len(got)} bytes, want {len(want)}; they differ from {at} on")
    if want:
        with opened(path, os.O_RDONLY) as fd, mmap.mmap(fd, len(want), prot=mmap.PROT_READ) as mm:
            expect(mm[:] == want, f"{what}: a mapping differs")


@case(kinds=("image",),
      params=("noparallel_dio", "parallel_dio", "dio=relaxed", "dio=relaxed+noparallel_dio"))
def model(env, options):
    """
    A long random sequence of all operations (fsxtool.c), compared with a model in memory, and at
    the end through the kernel's ext4.
    """
    sums = {}
    relaxed = "relaxed" in options
    vol = env.volume(64, "-b", "1024" if options == "parallel_dio" else "4096")
    with vol.mount(*options.split("+")) as m:
        for seed in (1, 2):
            p = run(FSXTOOL, m.path(f"f{seed}"), seed, 1200 if relaxed else 2500, 256 << 10,
                    1 if relaxed else 512, timeout=100)
            sums[seed] = p.stdout.split()
    vol.check()
    with vol.kmount("ro") as k:
        for seed, (size, crc, _) in sums.items():
            data = read_file(os.path.join(k, f"f{seed}"))
            expect_eq((len(data), f"{zlib.crc32(data):08x}"), (int(size), crc),
                      f"what the kernel reads of f{seed}")


@case()
@on_mount
def stopped_and_continued(m):
    """
    A client that is stopped and continued again and again, as by a debugger, gets right results.
    """
    argv = [FSXTOOL, m.path("f"), "1", str(10**9), str(64 << 10), "512", "seconds=3"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        try:
            while p.poll() is None:
                p.send_signal(signal.SIGSTOP)
                time.sleep(0.0005)
                p.send_signal(signal.SIGCONT)
                time.sleep(0.002)
        finally:
            p.send_signal(signal.SIGCONT)
            p.kill()
        out = p.stdout.read().strip()
    expect_eq((p.returncode, len(out.split())), (0, 3), f"the end of fsxtool: {out[:300]}")


@case(params=MODES)
@on_mount
def lockstep(m):
    """
    A write by any way is seen at once by a read by any way; descriptors and a mapping stay open.
    """
    coh(m, "lockstep")


@case(params=[f"{e}-{o}" for e in ("aio", "uring") for o in MODES])
def asynchronous_writes_against_the_cache(env, what):
    engine, options = what.split("-")
    on_mount(lambda m: coh(m, "stale", engine))(env, options)


@case(params=MODES)
@on_mount
def mapped_stores_against_direct_reads(m):
    coh(m, "mapdirect")


@case(params=MODES)
@on_mount
def memory_of_the_same_file(m):
    """
    Direct I/O whose buffer is a mapping of the same file, or of the same range, ends and tears
    nothing.
    """
    ways = coh(m, "selfbuf")[1:]
    expect_eq(len(ways), 16, "cases")
    expect(ways.count("full") >= 8, f"of those that may overlap, none goes through: {ways}")


@case(params=[f"{w}-{r}" for w in ("buffered", "direct", "aio")
              for r in ("buffered", "direct", "map")])
def appends_against_readers(env, what):
    writer, reader = what.split("-")
    on_mount(lambda m: coh(m, "tail", writer, reader))(env, "parallel_dio" if writer == "aio"
                                                       else "noparallel_dio")


@case(params=MODES)
@on_mount
def many_appenders(m):
    """
    Six processes write with O_APPEND: every record is whole, none is lost, and those of one process
    are in order.
    """
    coh(m, "append", "buffered")
    coh(m, "append", "direct")


@case()
@on_mount
def fork_under_reads(m):
    coh(m, "fork")


@case(params=MODES)
@on_mount
def sectors_of_one_block(m):
    """
    Asynchronous writes of sectors into a hole or into unwritten blocks do not undo each other where
    they share a block.
    """
    coh(m, "sectors")


@case(params=MODES)
@on_mount
def odd_and_even_blocks(m):
    """Two writers of different kinds fill a hole, each every other block."""
    coh(m, "odd")


@case(kinds=("image", "loop"), params=MODES)
def shrinking_under_io(env, options):
    """
    Truncate, punch and zero while direct writes are in flight and others read. Every byte read is
    zero or the writer's: old contents of the device never show, and files that get the freed blocks
    keep their contents.
    """
    vol = env.volume(40, "-b", "4096")
    with vol.mount(options) as m:
        write_file(m.path("old"), b"\xa5" * (24 << 20), sync=True)
        os.unlink(m.path("old"))
        bad = []
        done = threading.Event()

        def neighbour():
            i = 0
            while not done.is_set():
                i += 1
                p = m.path(f"n{i % 3}")
                data = bytes([0xb0 + i % 4]) * (256 << 10)
                write_file(p, data, sync=True)
                if dread(p, 0, len(data)) != data or read_file(p) != data:
                    bad.append(i)
        t = threading.Thread(target=neighbour)
        t.start()
        try:
            coh(m, "shrink", "0xa5")
        finally:
            done.set()
            t.join()
        expect(not bad, f"a neighbour's blocks were written by somebody else, rounds {bad[:3]}")
    vol.check()


@case(params=MODES)
@on_mount
def end_inside_a_block(m):
    """
    Direct reads are short at the end of the file; the rest of a mapped page is zero, also after the
    file grew over it.
    """
    p = m.path("f")
    for size in (1, 511, 512, 513, 1000, 4095, 4097, 6000, 70_001):
        write_file(p, pattern(size, size))
        with opened(p, os.O_RDWR) as fd:
            with mmap.mmap(fd, size) as mm:
                pages = (size + PAGE - 1) // PAGE * PAGE
                expect_eq(len(mm), size, "length of the mapping")
                mm[0:1] = mm[0:1]
            every_way(p, f"size {size}", pattern(size, size))
            os.ftruncate(fd, pages + PAGE)
            every_way(p, f"size {size}, grown", pattern(size, size) + bytes(pages + PAGE - size))
            os.ftruncate(fd, size)
            # A direct write behind the end leaves zeroes in between.
            with opened(p, os.O_WRONLY | os.O_DIRECT) as d:
                buf = mmap.mmap(-1, PAGE)
                buf[:] = b"D" * PAGE
                expect_eq(os.pwritev(d, [buf], pages + PAGE), PAGE, "bytes written")
            every_way(p, f"size {size}, written behind",
                      pattern(size, size) + bytes(pages + PAGE - size) + b"D" * PAGE)


@case()
@on_mount
def stores_behind_the_end(m):
    """
    Bytes that a program stores in the last mapped page behind the end of the file do not reach the
    device. (While the page is dirty only the kernel can clear them when the file grows, which its
    FUSE client does not do.)
    """
    p = m.path("f")
    write_file(p, pattern(1000), sync=True)
    with opened(p, os.O_RDWR) as fd:
        mm = mmap.mmap(fd, 1000)
        base = ctypes.addressof(ctypes.c_char.from_buffer(mm))
        ctypes.memset(base + 1000, 0x77, PAGE - 1000)
        os.fsync(fd)
        os.ftruncate(fd, 3000)
        every_way(p, "grown by truncate", pattern(1000) + bytes(2000))
        ctypes.memset(base + 3000, 0x77, PAGE - 3000)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pwrite(fd, b"end", 8000)
        expect_eq(dread(p, 0, 8192), pattern(1000) + bytes(7000) + b"end",
                  "a direct read, grown by write")


@case(params=MODES)
@on_mount
def vectors(m):
    """
    readv and writev with vectors of odd and of zero length, as many as are allowed; direct ones
    with whole sectors.
    """
    p = m.path("f")
    lengths = [0, 1, 511, 0, 513, 4096, 3, 9000, 0, 70_000, 17]
    pieces = [pattern(n, i) for i, n in enumerate(lengths)]
    whole = b"".join(pieces)
    with opened(p, os.O_CREAT | os.O_RDWR) as fd:
        expect_eq(os.pwritev(fd, pieces, 777), len(whole), "bytes written")
        into = [bytearray(n) for n in reversed(lengths)]
        expect_eq(os.preadv(fd, into, 777), len(whole), "bytes read")
        expect(b"".join(into) == whole, "the vectors differ")
        many = [bytes([i % 256]) for i in range(1024)]
        expect_eq(os.pwritev(fd, many, 100_000), 1024, "bytes of 1024 vectors")
    every_way(p, "odd vectors",
              bytes(777) + whole + bytes(100_000 - 777 - len(whole)) + b"".join(many))
    with opened(p, os.O_RDWR | os.O_DIRECT | os.O_TRUNC) as fd:
        raw = mmap.mmap(-1, 1 << 20)
        at, views = 0, []
        for n in (512, 4096, 1024, 65_536, 512, 8192):
            views.append(memoryview(raw)[at:at + n])
            views[-1][:] = pattern(n, n)
            at += n + 512 * (n % 5)
        want = b"".join(bytes(v) for v in views)
        expect_eq(os.pwritev(fd, views, 512), len(want), "bytes written directly")
        for v in views:
            v[:] = bytes(len(v))
        expect_eq(os.preadv(fd, views, 512), len(want), "bytes read directly")
        expect(b"".join(bytes(v) for v in views) == want, "the direct vectors differ")
        for v in views:
            v.release()
    every_way(p, "direct vectors", bytes(512) + want)


@case(params=MODES)
@on_mount
def copies_inside_the_kernel(m):
    """
    splice, sendfile and copy_file_range copy bytes that were written just before by any way, and
    give what read gives.
    """
    size = 1_500_001
    src, dst = m.path("src"), m.path("dst")
    for how in ("buffered", "direct", "mapped"):
        data = bytearray(pattern(size, len(how)))
        write_file(src, bytes(size))
        with opened(src, os.O_RDWR) as s:
            if how == "buffered":
                os.pwrite(s, data, 0)
            elif how == "mapped":
                with mmap.mmap(s, size) as mm:
                    mm[:] = bytes(data)
            else:
                read_file(src)
                with opened(src, os.O_WRONLY | os.O_DIRECT) as d:
                    buf = mmap.mmap(-1, 1 << 20)
                    buf[:] = bytes(data[:1 << 20])
                    os.pwritev(d, [buf], 0)
                os.pwrite(s, data[1 << 20:], 1 << 20)
            for name in ("copy_file_range", "sendfile", "splice"):
                with opened(dst, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as d:
                    if name == "splice":
                        splice_all(s, d, size)
                    else:
                        done = 0
                        while done < size:
                            n = (os.copy_file_range(s, d, size - done, done, done)
                                 if name == "copy_file_range"
                                 else os.sendfile(d, s, done, size - done))
                            expect(n > 0, f"{name} moves nothing at {done}")
                            done += n
                every_way(dst, f"{name} of what was written {how}", bytes(data))
    with opened(src, os.O_RDWR) as s:  # within one file, over bytes that a mapping just stored
        with mmap.mmap(s, size) as mm:
            mm[0:100_000] = b"Z" * 100_000
            mm[500_000:600_000] = b"Y" * 100_000
            data[0:100_000] = b"Z" * 100_000
            data[500_000:600_000] = b"Y" * 100_000
            expect_eq(os.copy_file_range(s, s, 100_000, 0, 450_000), 100_000,
                      "bytes copied inside the file")
            data[450_000:550_000] = data[0:100_000]
            expect(mm[:] == bytes(data), "a mapping differs after a copy inside the file")
    every_way(src, "a copy inside the file", bytes(data))
    with opened(src, os.O_RDWR) as s:
        with expect_errno(errno.EINVAL):
            os.copy_file_range(s, s, 100_000, 0, 50_000)
        expect_eq(os.copy_file_range(s, s, 1000, size + 5, 0), 0,
                  "bytes copied from behind the end")


def splice_all(src, dst, size):
    r, w = os.pipe()
    try:
        done = 0
        while done < size:
            n = os.splice(src, w, min(65_536, size - done), offset_src=done)
            expect(n > 0, f"splice moves nothing at {done}")
            out = 0
            while out < n:
                out += os.splice(r, dst, n - out, offset_dst=done + out)
            done += n
    finally:
        os.close(r)
        os.close(w)


@case(params=MODES)
@on_mount
def reads_over_holes_and_data(m):
    """One direct read over data, holes, unwritten blocks and a punched range."""
    p = m.path("f")
    size = 1 << 20
    want = bytearray(size)
    with opened(p, os.O_CREAT | os.O_RDWR) as fd:
        os.ftruncate(fd, size)
        for i in range(0, size, 36 << 10):
            n = min(9000, size - i)
            os.pwrite(fd, pattern(n, i), i)
            want[i:i + n] = pattern(n, i)
        fallocate(fd, 0, 300 << 10, 64 << 10)
        fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 500_000, 200_001)
        want[500_000:700_001] = bytes(200_001)
        every_way(p, "data and holes", bytes(want))
        for off in range(0, size, 77 * 512):
            expect(dread(p, off, 128 << 10) == bytes(want[off:off + (128 << 10)]),
                   f"128 KiB at {off} differ")


if __name__ == "__main__":
    main()
