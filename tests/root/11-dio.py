#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The rules of direct I/O: alignment, end of file, holes, coherence with the page cache, truncation
while I/O is in flight.
"""
import errno
import mmap
import os
import random
import subprocess
import threading

from lib import (BUILD, Fail, case, expect, expect_eq, expect_errno, main, pattern, read_file, run,
                 write_file)

BOTH = ("image", "loop")
AIOTOOL = os.path.join(BUILD, "tests/root/aiotool")


def aligned(n, fill=b""):
    buf = mmap.mmap(-1, (n + 4095) // 4096 * 4096)
    buf[:len(fill)] = fill
    return buf


def dread(path, off, n):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        buf = aligned(n)
        got = os.preadv(fd, [memoryview(buf)[:n]], off)
        return bytes(buf[:got])
    finally:
        os.close(fd)


def dwrite(path, off, data, flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT | flags, 0o644)
    try:
        return os.pwritev(fd, [memoryview(aligned(len(data), data))[:len(data)]], off)
    finally:
        os.close(fd)


@case(kinds=BOTH)
def strict(env):
    """
    By default, an offset or a length that is not a multiple of the sector is refused, as by the
    kernel.
    """
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:
        p = m.path("f")
        write_file(p, pattern(65_536), sync=True)
        for off, n in ((0, 100), (100, 512), (1, 4096), (512, 777), (4096, 5)):
            with expect_errno(errno.EINVAL):
                dread(p, off, n)
            with expect_errno(errno.EINVAL):
                dwrite(p, off, b"x" * n)
        for off, n in ((0, 512), (512, 1024), (4096, 4096), (8192, 32_768)):
            expect_eq(dread(p, off, n), pattern(65_536)[off:off + n], f"{n} bytes at {off}")
            expect_eq(dwrite(p, off, pattern(65_536)[off:off + n]), n, "length written")
        expect_eq(read_file(p) == pattern(65_536), True, "contents afterwards")
    vol.check()


@case(kinds=BOTH)
def relaxed(env):
    """-o dio=relaxed serves any offset and length."""
    vol = env.volume(64, "-b", "4096")
    want = bytearray(pattern(65_536))
    rng = random.Random(1)
    with vol.mount("dio=relaxed") as m:
        p = m.path("f")
        write_file(p, bytes(want), sync=True)
        for i in range(200):
            off, n = rng.randrange(60_000), rng.randrange(1, 5000)
            data = pattern(n, i)
            dwrite(p, off, data)
            want[off:off + n] = data
            expect_eq(dread(p, off, n), data, f"{n} bytes at {off}")
        expect_eq(read_file(p) == bytes(want), True, "contents afterwards")
    vol.check()


@case(kinds=BOTH)
def end_of_file(env):
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:
        for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 10_000, 1_044_480, 1_044_481):
            p = m.path(f"s{size}")
            write_file(p, pattern(size), sync=True)
            for off in {0, 512, 4096, size // 512 * 512, (size + 511) // 512 * 512,
                        size // 4096 * 4096 + 8192}:
                for n in (512, 4096, 8192, 1 << 20, 3 << 20):
                    want = pattern(size)[off:off + n]
                    got = dread(p, off, n)
                    if got != want:
                        raise Fail(f"size {size}, {n} bytes at {off}: {len(got)} bytes, want "
                                   f"{len(want)}, equal {got == want[:len(got)]}")
    vol.check()


@case(kinds=BOTH)
def holes_and_preallocation(env):
    """
    Direct reads of holes and of unwritten blocks return zeroes, whatever the device holds there.
    """
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:  # leaves old bytes on the device
        write_file(m.path("old"), b"\xa5" * (40 << 20), sync=True)
        os.unlink(m.path("old"))
    with vol.mount() as m:
        p = m.path("f")
        run("fallocate", "-l", "8M", p)
        expect_eq(dread(p, 0, 8 << 20) == bytes(8 << 20), True, "preallocated blocks")
        dwrite(p, 4096 + 512, pattern(1024))
        want = bytearray(8 << 20)
        want[4608:5632] = pattern(1024)
        expect_eq(dread(p, 0, 1 << 20) == bytes(want[:1 << 20]), True,
                  "around a partial write of an unwritten block")
        dwrite(m.path("g"), 1 << 20, pattern(512, 2))
        expect_eq(dread(m.path("g"), 0, 2 << 20) == bytes(1 << 20) + pattern(512, 2), True,
                  "around a partial write of a hole")
        os.truncate(m.path("g"), 2 << 20)
        expect_eq(dread(m.path("g"), 0, 2 << 20) == bytes(1 << 20) + pattern(512, 2)
                  + bytes((1 << 20) - 512), True, "behind it")
    vol.check()


@case(kinds=BOTH)
def big_requests(env):
    """
    Requests larger than the kernel passes on in one piece, from buffers that are not page-aligned.
    """
    vol = env.volume(128, "-b", "4096")
    n = 5 << 20
    with vol.mount() as m:
        fd = os.open(m.path("f"), os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
        raw = mmap.mmap(-1, n + 4096)
        for shift in (0, 512, 1536):
            view = memoryview(raw)[shift:shift + n]
            view[:] = pattern(n, shift)
            expect_eq(os.pwritev(fd, [view], 4096), n, "bytes written")
            view[:] = bytes(n)
            expect_eq(os.preadv(fd, [view], 4096), n, "bytes read")
            expect(bytes(view) == pattern(n, shift), f"contents differ with a buffer at {shift}")
            view.release()
        os.close(fd)
    vol.check()


@case(kinds=BOTH)
def dsync_aio(env):
    """
    Asynchronous O_DSYNC writes are durable when they complete: a kill -9 right afterwards loses
    none.
    """
    vol = env.volume(64, "-b", "4096")
    m = vol.mount()
    write_file(m.path("over"), bytes(1 << 20), sync=True)
    write_file(m.path("new"), b"", sync=True)
    for name in ("over", "new"):
        out = run(AIOTOOL, "write", m.path(name), 0, 4096, 0x5a, 64, "dsync").stdout.split()
        expect_eq(out, ["64", "0"], f"completions and first error for {name}")
    m.kill()
    with vol.mount() as m:
        for name in ("over", "new"):
            expect_eq(read_file(m.path(name))[:64 * 4096] == b"\x5a" * (64 * 4096), True,
                      f"contents of {name} after kill -9")
    vol.check()


@case(kinds=BOTH)
def cache_is_not_stale(env):
    """After an asynchronous direct write, a cached read shows the new bytes."""
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:
        write_file(m.path("f"), bytes(4 << 20), sync=True)
        for i in range(20):
            expect_eq(run(AIOTOOL, "cached", m.path("f"), i * 65536, 65536, i + 1).stdout.strip(),
                      "fresh", f"round {i}")
    vol.check()


@case(kinds=BOTH)
def truncate_under_io(env):
    """
    Files are truncated, and others grow into the freed blocks, while direct writes are in flight:
    no write may land in a block that has a new owner.
    """
    vol = env.volume(64, "-b", "4096")
    with vol.mount() as m:
        a = m.path("a")
        size = 8 << 20
        write_file(a, bytes(size), sync=True)
        storm = subprocess.Popen([AIOTOOL, "storm", a, str(size), "4096", "4"],
                                 stdout=subprocess.PIPE, text=True)
        try:
            i = 0
            while storm.poll() is None:
                i += 1
                os.truncate(a, random.Random(i).randrange(0, size, 4096))
                b = m.path(f"b{i % 4}")
                data = b"\xb5" * (2 << 20)
                write_file(b, data, sync=True)
                expect(dread(b, 0, len(data)) == data, "a foreign write in a new file")
                expect(read_file(b) == data, "a foreign write in a new file's cached view")
                os.truncate(a, size)
        finally:
            storm.kill()
            out, _ = storm.communicate(timeout=60)
        expect(out.split() and out.split()[1] == "0", f"the storm ended with {out!r}")
        expect(i > 5, f"only {i} rounds")
        data = read_file(a)
        for blk in range(0, len(data), 4096):
            block = data[blk:blk + 4096]
            expect(block == bytes(4096) or block == (blk // 4096).to_bytes(8, "little") * 512,
                   f"block {blk // 4096} of a is foreign")
    vol.check()


@case(kinds=BOTH)
def parallel_appends(env):
    """
    Several threads extend one file with direct writes at their own offsets; every block is there in
    the end.
    """
    vol = env.volume(128, "-b", "4096")
    with vol.mount() as m:
        p = m.path("f")
        write_file(p, b"")
        errors = []

        def work(k):
            try:
                for i in range(k, 400, 4):
                    dwrite(p, i * 8192, pattern(8192, i))
            except OSError as e:
                errors.append(e)
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect(not errors, f"errors: {errors[:2]}")
        data = read_file(p)
        expect_eq(len(data), 400 * 8192, "size")
        for i in range(400):
            expect(data[i * 8192:(i + 1) * 8192] == pattern(8192, i), f"piece {i} differs")
    vol.check()


@case(kinds=("loop",))
def sectors_of_4096(env):
    """On a device with sectors of 4 KiB, a direct request of 512 bytes is refused."""
    vol = env.volume(64, "-b", "4096", sector=4096)
    with vol.mount() as m:
        p = m.path("f")
        write_file(p, pattern(65_536), sync=True)
        with expect_errno(errno.EINVAL):
            dread(p, 512, 4096)
        with expect_errno(errno.EINVAL):
            dwrite(p, 0, b"x" * 512)
        expect_eq(dread(p, 4096, 4096), pattern(65_536)[4096:8192], "4096 bytes")
    vol.check()


if __name__ == "__main__":
    main()
