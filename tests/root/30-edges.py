#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The edges of a file system, compared with the kernel's ext4 (beside.py): the last byte of the
largest file, the last name of a file, the last block, the last inode, and the largest size that a
process may write. Calls must fail with the same errors, and the others work. (29-limits.py tests
the daemon's own limits.)
"""
import contextlib
import mmap
import os
import stat
import sys

from beside import Notes, beside_ext4, compare
from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, case, expect, fallocate, main, pattern, run,
                 write_file)


def big_files(top, notes, block):
    top_byte = ((1 << 32) - 1) * block
    p = os.path.join(top, "f")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    dfd = os.open(p, os.O_RDWR | os.O_DIRECT)
    buf = mmap.mmap(-1, 4096)
    buf[:] = b"L" * 4096

    def size():
        st = os.fstat(fd)
        return st.st_size, st.st_blocks * 512 // block <= 16

    def note_size(label):
        notes.put(label, size())
    notes.do("write the last byte", os.pwrite, fd, b"x", top_byte - 1)
    note_size("size")
    notes.do("read it", os.pread, fd, 10, top_byte - 1)
    notes.do("read behind", os.pread, fd, 10, top_byte)
    notes.do("write behind", os.pwrite, fd, b"x", top_byte)
    notes.do("write over the end", os.pwrite, fd, b"abcdef", top_byte - 3)
    notes.do("read what went in", os.pread, fd, 10, top_byte - 3)
    afd = os.open(p, os.O_WRONLY | os.O_APPEND)
    notes.do("append", os.write, afd, b"x")
    os.close(afd)
    notes.do("direct write of the last block", os.pwritev, dfd, [buf], top_byte - 4096)
    notes.do("direct read of it", lambda: (os.preadv(dfd, [buf], top_byte - 4096), bytes(buf[:4])))
    notes.do("direct write behind", os.pwritev, dfd, [buf], top_byte)
    notes.do("direct write far behind", os.pwritev, dfd, [buf], (1 << 62))
    notes.do("truncate to the most", os.truncate, p, top_byte)
    notes.do("truncate to one more", os.truncate, p, top_byte + 1)
    notes.do("truncate to the most there is", os.truncate, p, (1 << 63) - 1)
    notes.do("truncate below zero", os.truncate, p, -1)
    notes.do("seek to the most", os.lseek, fd, top_byte, os.SEEK_SET)
    # (lseek behind the limit is not compared: the kernel checks it, and its FUSE client does not
    # know the limit of this file system.)
    notes.do("seek for data", os.lseek, fd, 0, os.SEEK_DATA)
    notes.do("seek for a hole in it", os.lseek, fd, top_byte - 1, os.SEEK_HOLE)
    notes.do("seek for data behind", os.lseek, fd, top_byte, os.SEEK_DATA)
    notes.do("fallocate at the end", fallocate, fd, 0, top_byte - block, block)
    notes.do("fallocate behind", fallocate, fd, 0, top_byte, block)
    notes.do("fallocate over the end", fallocate, fd, FALLOC_KEEP_SIZE, top_byte - block, 2 * block)
    notes.do("punch over the end", fallocate, fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
             top_byte - block, 2 * block)
    notes.do("punch all", fallocate, fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, top_byte)
    note_size("size then")
    with mmap.mmap(fd, block, offset=(top_byte - block) // mmap.PAGESIZE * mmap.PAGESIZE) as mm:
        notes.put("mapped end", mm[:4])
        mm[:4] = b"last"
        mm.flush()
    notes.do("read that", os.pread, fd, 4, (top_byte - block) // mmap.PAGESIZE * mmap.PAGESIZE)
    notes.do("copy_file_range behind", os.copy_file_range, fd, fd, 10, 0, top_byte)
    notes.do("back to nothing", os.truncate, p, 0)
    note_size("size in the end")
    os.close(fd)
    os.close(dfd)


@case()
@beside_ext4(mkfs=("-b", "4096"))
def sixteen_tebibytes(top, notes):
    """The largest file with blocks of 4 KiB, to the byte."""
    big_files(top, notes, 4096)


@case()
@beside_ext4(mkfs=("-b", "1024"))
def four_tebibytes(top, notes):
    """The largest file with blocks of 1 KiB."""
    big_files(top, notes, 1024)


@case(timeout=180)
def link_counts(env):
    """
    65,000 names of a file and 64,998 subdirectories of one directory: the next one fails with
    EMLINK or, with the feature dir_nlink, the directory's link count becomes 1.
    """
    vol = env.volume(160, "-b", "1024", "-N", "66000", "-O", "^dir_nlink")
    with vol.kmount() as k:  # the kernel makes so many faster
        for d in ("names", "dirs", "other", "other/child", "other/empty"):
            os.mkdir(os.path.join(k, d))
        write_file(os.path.join(k, "f"), b"")
        for i in range(64_998):
            os.link(os.path.join(k, "f"), os.path.join(k, "names", str(i)))
        for i in range(64_997):
            os.mkdir(os.path.join(k, "dirs", str(i)))
    got = []
    others = [vol, vol.copy()]
    run("tune2fs", "-O", "dir_nlink", others[1].file)
    counting = others + [others[0].copy(), others[1].copy()]
    for n, v in enumerate(counting):
        with (v.mount() if n < 2 else v.kmount()) as m:
            top = m.point if n < 2 else m
            notes = Notes()
            at_the_edge(top, notes)
            got.append(notes.list)
        v.check()
    compare(got[0], got[2])
    compare(got[1], got[3])
    expect(("one more directory", "EMLINK") in got[0] and ("one more directory", None) in got[1],
           f"{got[0]}")


def at_the_edge(top, notes):
    def p(*names):
        return os.path.join(top, *names)

    def count(name):
        notes.put(f"links of {name}", os.stat(p(name)).st_nlink)
    notes.do("the last name", os.link, p("f"), p("last"))
    count("f")
    notes.do("one more name", os.link, p("f"), p("more"))
    notes.do("one instead of another", os.rename, p("last"), p("names", "5"))
    notes.do("again", os.unlink, p("names", "6"))
    notes.do("a name again", os.link, p("f"), p("last"))
    notes.do("and no more", os.link, p("f"), p("more"))
    count("f")
    notes.do("the last directory", os.mkdir, p("dirs", "last"))
    count("dirs")
    notes.do("one more directory", os.mkdir, p("dirs", "more"))
    count("dirs")
    notes.do("a file there", write_file, p("dirs", "file"), b"")
    notes.do("a directory moved there", os.rename, p("other", "child"), p("dirs", "moved"))
    notes.do("over an empty one there", os.rename, p("other", "empty"), p("dirs", "8"))
    notes.do("one less", os.rmdir, p("dirs", "9"))
    notes.do("one instead", os.mkdir, p("dirs", "instead"))
    count("dirs")
    count("other")


@case(timeout=180)
def nothing_left(env):
    """
    With no free block, calls that need one fail with ENOSPC as on ext4, others work, and a block
    that is freed can be used.
    """
    vol = env.volume(24, "-b", "1024", "-m", "0", "-N", "512")
    with vol.kmount() as k:
        os.mkdir(os.path.join(k, "d"))
        write_file(os.path.join(k, "f"), pattern(10_000))
        write_file(os.path.join(k, "holes"), b"")
        os.truncate(os.path.join(k, "holes"), 1 << 20)
        write_file(os.path.join(k, "short"), b"x" * 100)
    others = [vol, vol.copy()]
    got = []
    for n, v in enumerate(others):
        with (v.mount() if n == 0 else v.kmount()) as m:
            notes = Notes()
            without_space(m.point if n == 0 else m, notes)
            got.append(notes.list)
        v.check()
    compare(*got)


def without_space(top, notes):
    def p(*names):
        return os.path.join(top, *names)
    ballast = os.open(p("ballast"), os.O_CREAT | os.O_RDWR)
    size, part = 0, 1 << 22
    while part >= 1024:
        try:
            fallocate(ballast, 0, size, part)
            size += part
        except OSError:
            os.ftruncate(ballast, size)
            os.fsync(ballast)
            part //= 2
    notes.put("left", os.statvfs(top).f_bfree)
    f = os.open(p("f"), os.O_RDWR)
    direct = os.open(p("f"), os.O_RDWR | os.O_DIRECT)
    holes = os.open(p("holes"), os.O_RDWR)
    hole_direct = os.open(p("holes"), os.O_RDWR | os.O_DIRECT)
    short = os.open(p("short"), os.O_RDWR)
    page = mmap.mmap(-1, 4096)
    notes.do("a file", write_file, p("d", "empty"), b"")
    notes.do("overwrite", os.pwrite, f, b"o" * 5000, 100)
    notes.do("direct overwrite", os.pwritev, direct, [page], 4096)
    notes.do("within the last block", os.pwrite, short, b"y" * 500, 100)
    notes.do("into a hole", os.pwrite, holes, b"h", 5000)
    notes.do("behind the end", os.pwrite, f, b"h", 100_000)
    notes.do("direct into a hole", os.pwritev, hole_direct, [page], 8192)
    notes.do("fallocate", fallocate, holes, 0, 0, 4096)
    notes.do("fallocate of what is there", fallocate, f, 0, 0, 8192)
    notes.do("zero what is there", fallocate, f, 0x10, 0, 2048)
    notes.do("longer", os.ftruncate, holes, 1 << 21)
    notes.do("a directory", os.mkdir, p("e"))
    notes.do("a short link", os.symlink, "x" * 50, p("s"))
    notes.do("a long link", os.symlink, "x" * 100, p("l"))
    notes.do("a FIFO", os.mkfifo, p("p"))
    notes.do("a small attribute", os.setxattr, p("f"), "user.a", b"1")
    notes.do("a larger one", os.setxattr, p("f"), "user.b", bytes(500))
    notes.do("a name more", os.link, p("f"), p("g"))
    notes.do("another", os.rename, p("g"), p("d", "g"))
    notes.do("a file without a name", lambda: os.close(os.open(top, os.O_TMPFILE | os.O_RDWR)))
    notes.do("the link is not there", os.lstat, p("l"))
    os.ftruncate(ballast, size - 20 * 1024)
    os.fsync(ballast)
    notes.do("into a hole, with some", os.pwrite, holes, b"h" * 3000, 4096)
    notes.do("a long link, with some", os.symlink, "x" * 100, p("l"))
    notes.do("a directory, with some", os.mkdir, p("e"))
    notes.do("more than there is", fallocate, holes, 0, 100_000, 100 * 1024)
    for fd in (f, direct, holes, hole_direct, short, ballast):
        os.close(fd)
    os.unlink(p("ballast"))
    notes.do("room again", write_file, p("big"), bytes(5_000_000), True)


@case(timeout=180)
@beside_ext4(24, ("-b", "1024", "-N", "256"))
def no_inode_left(top, notes):
    """
    With no free inode, calls that need one fail with ENOSPC as on ext4, others work, and an inode
    that is freed can be used by any call.
    """
    def p(*names):
        return os.path.join(top, *names)

    def fill():
        n = 0
        with contextlib.suppress(OSError):
            while True:
                os.close(os.open(p("many", str(n)), os.O_CREAT | os.O_WRONLY))
                n += 1
        return n
    makers = {
        "a file": lambda: write_file(p("new"), b""),
        "a directory": lambda: os.mkdir(p("new")),
        "a short link": lambda: os.symlink("x" * 50, p("new")),
        "a long link": lambda: os.symlink("x" * 100, p("new")),
        "a FIFO": lambda: os.mkfifo(p("new")),
        "a socket": lambda: os.mknod(p("new"), stat.S_IFSOCK | 0o600),
        "a device": lambda: os.mknod(p("new"), stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "a file without a name": lambda: os.close(os.open(top, os.O_TMPFILE | os.O_RDWR)),
    }
    os.mkdir(p("many"))
    write_file(p("f"), pattern(5000))
    notes.put("as many as", fill() > 200)
    notes.put("left", os.statvfs(top).f_ffree)
    for what, make in makers.items():
        notes.do(what, make)
        notes.put(f"nothing is left of {what}", os.path.lexists(p("new")))
    notes.do("a name more", os.link, p("f"), p("g"))
    notes.do("another", os.rename, p("g"), p("many", "g"))
    notes.do("writing", write_file, p("f"), pattern(50_000))
    notes.do("an attribute", os.setxattr, p("f"), "user.a", b"1" * 300)
    for what, make in makers.items():
        os.unlink(p("many", "0"))
        notes.do(f"{what} instead of one", make)
        if os.path.lexists(p("new")):
            os.rmdir(p("new")) if os.path.isdir(p("new")) else os.unlink(p("new"))
        notes.do("and that again", write_file, p("many", "0"), b"")
        notes.do("but no more", write_file, p("many", "more"), b"")


@case()
@beside_ext4()
def resource_limits(top, notes):
    """At RLIMIT_FSIZE a write is cut short, then fails with EFBIG and SIGXFSZ."""
    p = os.path.join(top, "f")
    code = """
import os, resource, signal, sys, mmap, errno
got = []
signal.signal(signal.SIGXFSZ, lambda *a: got.append('SIGXFSZ'))
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
d = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
def do(fn, *a):
    try:
        got.append(fn(*a))
    except OSError as e:
        got.append(errno.errorcode[e.errno])
do(os.pwrite, fd, bytes(8000), 0)
do(os.pwrite, fd, bytes(8000), 8000)
do(os.pwrite, fd, b'x', 10000)
do(os.ftruncate, fd, 10000)
do(os.ftruncate, fd, 10001)
do(os.posix_fallocate, fd, 0, 20000)
do(os.pwritev, d, [mmap.mmap(-1, 4096)], 4096)
do(os.pwritev, d, [mmap.mmap(-1, 4096)], 12288)
got.append(os.fstat(fd).st_size)
print(got)
"""
    notes.put("what happened", run(sys.executable, "-c", code, p).stdout)


if __name__ == "__main__":
    main()
