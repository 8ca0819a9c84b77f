#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The semantics of system calls, one by one, as POSIX or the kernel's ext4 define them."""
import errno
import fcntl
import mmap
import os
import stat
import struct
import time

import tree
from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, RENAME_EXCHANGE,
                 RENAME_NOREPLACE, RENAME_WHITEOUT, Skip, case, drop_caches, expect, expect_eq,
                 expect_errno, fallocate, libc, main, pattern, read_file, renameat2, run, syscheck,
                 write_file)

BOTH = ("image", "loop")


def on_mount(fn):
    """Gives the case a mount of a small file system, which e2fsck checks afterwards."""
    def wrapped(env):
        vol = env.volume(64, "-b", "4096")
        with vol.mount() as m:
            fn(m)
        vol.check()
    wrapped.__name__ = fn.__name__
    return wrapped


@case()
@on_mount
def rename_replaces(m):
    write_file(m.path("a"), b"a")
    write_file(m.path("b"), b"b")
    keep = os.open(m.path("b"), os.O_RDONLY)
    os.rename(m.path("a"), m.path("b"))
    expect_eq(read_file(m.path("b")), b"a", "new contents")
    expect_eq(os.read(keep, 10), b"b", "contents of the file replaced, still open")
    expect_eq(os.fstat(keep).st_nlink, 0, "its links")
    os.close(keep)
    expect(not os.path.exists(m.path("a")), "the old name is still there")
    os.rename(m.path("b"), m.path("b"))
    os.link(m.path("b"), m.path("c"))
    os.rename(m.path("b"), m.path("c"))  # two names of one file: rename does nothing
    expect(os.path.exists(m.path("b")), "rename between names of one file removed one")


@case()
@on_mount
def rename_directories(m):
    os.makedirs(m.path("d/sub/deep"))
    os.mkdir(m.path("e"))
    write_file(m.path("f"), b"")
    expect_eq(os.stat(m.path("d")).st_nlink, 3, "links of d")
    with expect_errno(errno.EINVAL):
        os.rename(m.path("d"), m.path("d/sub/inside"))
    with expect_errno(errno.EISDIR):
        os.rename(m.path("f"), m.path("e"))
    with expect_errno(errno.ENOTDIR):
        os.rename(m.path("e"), m.path("f"))
    with expect_errno(errno.ENOTEMPTY):
        os.rename(m.path("e"), m.path("d"))
    os.rename(m.path("d/sub"), m.path("e"))
    expect_eq(os.stat(m.path("d")).st_nlink, 2, "links of d afterwards")
    expect_eq(os.stat(m.path("e")).st_nlink, 3, "links of e")
    expect_eq(os.stat(m.path("e/..")).st_ino, os.stat(m.point).st_ino, "parent of e")
    os.rename(m.path("e/deep"), m.path("d/deep"))
    expect_eq(os.stat(m.path("d/deep/..")).st_ino, os.stat(m.path("d")).st_ino, "parent of deep")


@case()
@on_mount
def rename_flags(m):
    write_file(m.path("a"), b"a")
    os.makedirs(m.path("d/in"))
    with expect_errno(errno.EEXIST):
        renameat2(m.path("a"), m.path("d"), RENAME_NOREPLACE)
    renameat2(m.path("a"), m.path("n"), RENAME_NOREPLACE)
    before = os.stat(m.path("d")).st_ino
    renameat2(m.path("n"), m.path("d"), RENAME_EXCHANGE)
    expect_eq(read_file(m.path("d")), b"a", "exchanged file")
    expect_eq(os.stat(m.path("n")).st_ino, before, "exchanged directory")
    with expect_errno(errno.ENOENT):
        renameat2(m.path("n"), m.path("nothing"), RENAME_EXCHANGE)
    renameat2(m.path("d"), m.path("n/in/moved"),
              RENAME_EXCHANGE if os.path.exists(m.path("n/in/moved")) else RENAME_WHITEOUT)
    st = os.lstat(m.path("d"))
    expect(stat.S_ISCHR(st.st_mode) and st.st_rdev == 0, "no whiteout is left behind")
    expect_eq(read_file(m.path("n/in/moved")), b"a", "moved file")


@case(kinds=BOTH)
@on_mount
def unlinked_but_open(m):
    fd = os.open(m.path("f"), os.O_CREAT | os.O_RDWR)
    os.write(fd, pattern(200_000))
    os.fsync(fd)
    free = os.statvfs(m.point).f_bfree
    os.unlink(m.path("f"))
    expect(not os.path.exists(m.path("f")), "the name is still there")
    expect_eq(os.pread(fd, 200_001, 0), pattern(200_000), "contents")
    os.pwrite(fd, b"more", 500_000)
    os.ftruncate(fd, 300_000)
    expect_eq(os.fstat(fd).st_size, 300_000, "size")
    expect_eq(os.fstat(fd).st_nlink, 0, "links")
    os.close(fd)
    end = time.monotonic() + 10
    while os.statvfs(m.point).f_bfree <= free and time.monotonic() < end:
        time.sleep(0.05)
    expect(os.statvfs(m.point).f_bfree > free, "the blocks are not free again")


@case()
@on_mount
def tmpfile(m):
    fd = os.open(m.point, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"temporary")
    expect_eq(os.fstat(fd).st_nlink, 0, "links")
    # Python's os.link does not follow the links in /proc
    syscheck(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(m.path("named")), 0x400),
             "linkat")
    os.close(fd)
    expect_eq(read_file(m.path("named")), b"temporary", "contents")
    expect_eq(os.stat(m.path("named")).st_nlink, 1, "links once named")
    os.close(os.open(m.point, os.O_TMPFILE | os.O_RDWR, 0o600))


@case()
@on_mount
def links(m):
    write_file(m.path("a"), b"a")
    os.link(m.path("a"), m.path("b"))
    expect_eq(os.stat(m.path("a")).st_nlink, 2, "links")
    expect_eq(os.stat(m.path("a")).st_ino, os.stat(m.path("b")).st_ino, "inode")
    with expect_errno(errno.EEXIST):
        os.link(m.path("a"), m.path("b"))
    os.mkdir(m.path("d"))
    with expect_errno(errno.EPERM):
        os.link(m.path("d"), m.path("e"))
    os.unlink(m.path("a"))
    expect_eq(os.stat(m.path("b")).st_nlink, 1, "links after unlink")
    with expect_errno(errno.EISDIR):
        os.unlink(m.path("d"))
    with expect_errno(errno.ENOTDIR):
        os.rmdir(m.path("b"))
    write_file(m.path("d/x"), b"")
    with expect_errno(errno.ENOTEMPTY):
        os.rmdir(m.path("d"))
    os.unlink(m.path("d/x"))
    os.rmdir(m.path("d"))
    with expect_errno(errno.ENOENT):
        os.stat(m.path("d"))
    os.symlink("b", m.path("s"))
    os.link(m.path("s"), m.path("s2"), follow_symlinks=False)
    expect_eq(os.readlink(m.path("s2")), "b", "target of the linked symlink")


@case()
@on_mount
def xattrs(m):
    p = m.path("f")
    write_file(p, b"")
    with expect_errno(errno.ENODATA):
        os.getxattr(p, "user.none")
    os.setxattr(p, "user.a", b"1", os.XATTR_CREATE)
    with expect_errno(errno.EEXIST):
        os.setxattr(p, "user.a", b"2", os.XATTR_CREATE)
    with expect_errno(errno.ENODATA):
        os.setxattr(p, "user.b", b"2", os.XATTR_REPLACE)
    os.setxattr(p, "user.a", b"longer than before" * 10, os.XATTR_REPLACE)
    expect_eq(os.getxattr(p, "user.a"), b"longer than before" * 10, "value")
    with expect_errno(errno.ENOSPC, errno.E2BIG, errno.ERANGE):
        os.setxattr(p, "user.huge", b"x" * 65536)
    with expect_errno(errno.ENOSPC):
        os.setxattr(p, "user.big", b"x" * 4096)
    expect_eq(os.getxattr(p, "user.a"), b"longer than before" * 10, "value after a failure")
    for i in range(20):
        os.setxattr(p, f"user.n{i}", b"%d" % i * i)
    for i in range(0, 20, 2):
        os.removexattr(p, f"user.n{i}")
    expect_eq(sorted(os.listxattr(p)), sorted(["user.a"] + [f"user.n{i}" for i in range(1, 20, 2)]),
              "names")
    drop_caches()
    for i in range(1, 20, 2):
        expect_eq(os.getxattr(p, f"user.n{i}"), b"%d" % i * i, f"user.n{i}")
    with expect_errno(errno.ENODATA):
        os.removexattr(p, "user.n0")
    with expect_errno(errno.EOPNOTSUPP):
        os.setxattr(p, "nosuch.a", b"1")
    os.symlink("x", m.path("s"))
    with expect_errno(errno.EPERM):
        os.setxattr(m.path("s"), "user.a", b"1", follow_symlinks=False)
    os.setxattr(m.path("s"), "trusted.a", b"1", follow_symlinks=False)
    expect_eq(os.getxattr(m.path("s"), "trusted.a", follow_symlinks=False), b"1",
              "value on a symlink")


@case()
@on_mount
def acls(m):
    p = m.path("f")
    write_file(p, b"secret")
    os.chmod(p, 0o600)
    os.chmod(m.point, 0o755)
    os.setxattr(p, "system.posix_acl_access", tree.ACCESS)
    expect_eq(stat.S_IMODE(os.stat(p).st_mode), 0o650, "mode that follows from the ACL")
    os.chmod(p, 0o600)
    got = os.getxattr(p, "system.posix_acl_access")
    mask = [struct.unpack_from("<HHI", got, o) for o in range(4, len(got), 8)]
    expect_eq([e[1] for e in mask if e[0] == tree.ACL_MASK], [0], "mask after chmod 600")
    os.chmod(p, 0o660)
    run("setpriv", "--reuid", "1000", "--regid", "4000", "--clear-groups", "cat", p)
    expect(run("setpriv", "--reuid", "1005", "--regid", "4000", "--clear-groups", "cat", p,
               ok=None).returncode != 0, "a user without an entry can read")
    os.mkdir(m.path("d"))
    os.setxattr(m.path("d"), "system.posix_acl_default", tree.DEFAULT)
    old = os.umask(0o077)
    write_file(m.path("d/new"), b"")
    os.umask(old)
    expect_eq(stat.S_IMODE(os.stat(m.path("d/new")).st_mode), 0o660, "mode below a default ACL")


@case()
@on_mount
def permissions(m):
    write_file(m.path("f"), b"x")
    os.chmod(m.path("f"), 0o6755)
    os.chmod(m.point, 0o777)
    run("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c",
        f"echo > {m.path('mine')}")
    expect_eq(os.stat(m.path("mine")).st_uid, 1000, "owner of a new file")
    p = run("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "chmod", "777",
            m.path("f"), ok=None)
    expect(p.returncode != 0, "a stranger may chmod")
    os.chmod(m.path("f"), 0o6777)
    run("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--bounding-set=-all",
        "--inh-caps=-all", "dd", "if=/dev/zero", f"of={m.path('f')}", "bs=1", "count=1",
        "conv=notrunc", ok=(0,))
    expect_eq(stat.S_IMODE(os.stat(m.path("f")).st_mode), 0o777,
              "mode after a write by another user")
    os.mkdir(m.path("g"))
    os.chown(m.path("g"), 0, 3000)
    os.chmod(m.path("g"), 0o2775)
    write_file(m.path("g/f"), b"")
    os.mkdir(m.path("g/d"))
    expect_eq(os.stat(m.path("g/f")).st_gid, 3000, "group of a file in a setgid directory")
    expect_eq(oct(os.stat(m.path("g/d")).st_mode & 0o2000), oct(0o2000),
              "setgid of its subdirectory")
    os.chown(m.path("f"), 5, 6)
    st = os.stat(m.path("f"))
    expect_eq((st.st_uid, st.st_gid), (5, 6), "owner")


@case(kinds=BOTH)
@on_mount
def allocation(m):
    fd = os.open(m.path("f"), os.O_CREAT | os.O_RDWR)
    fallocate(fd, 0, 0, 1 << 20)
    st = os.fstat(fd)
    expect_eq((st.st_size, st.st_blocks >= 2048), (1 << 20, True),
              "size and blocks of an allocation")
    expect_eq(os.pread(fd, 1 << 20, 0), bytes(1 << 20), "contents of allocated blocks")
    fallocate(fd, FALLOC_KEEP_SIZE, 1 << 20, 1 << 20)
    expect_eq(os.fstat(fd).st_size, 1 << 20, "size kept")
    os.pwrite(fd, pattern(1 << 20), 0)
    os.fsync(fd)
    used = os.fstat(fd).st_blocks
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100, 300_000)
    want = bytearray(pattern(1 << 20))
    want[100:300_100] = bytes(300_000)
    expect_eq(os.pread(fd, 1 << 20, 0) == bytes(want), True, "contents around a hole")
    expect(os.fstat(fd).st_blocks < used, "punching freed nothing")
    fallocate(fd, FALLOC_ZERO_RANGE, 400_000, 100_000)
    want[400_000:500_000] = bytes(100_000)
    expect_eq(os.pread(fd, 1 << 20, 0) == bytes(want), True, "contents around zeroes")
    fallocate(fd, FALLOC_ZERO_RANGE, (1 << 20) - 10, 1000)
    expect_eq(os.fstat(fd).st_size, (1 << 20) + 990, "size after zeroing past the end")
    with expect_errno(errno.EOPNOTSUPP, errno.EINVAL):
        fallocate(fd, FALLOC_PUNCH_HOLE, 0, 4096)
    with expect_errno(errno.EINVAL):
        fallocate(fd, 0, 0, 0)
    os.close(fd)


@case(kinds=BOTH)
@on_mount
def seek(m):
    fd = os.open(m.path("f"), os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 4096, 8 * 4096)
    os.ftruncate(fd, 100 * 4096)
    os.fsync(fd)
    expect_eq(os.lseek(fd, 0, os.SEEK_DATA), 8 * 4096, "first data")
    expect_eq(os.lseek(fd, 0, os.SEEK_HOLE), 0, "first hole")
    expect_eq(os.lseek(fd, 8 * 4096 + 5, os.SEEK_DATA), 8 * 4096 + 5, "data inside data")
    expect_eq(os.lseek(fd, 8 * 4096, os.SEEK_HOLE), 9 * 4096, "hole after data")
    with expect_errno(errno.ENXIO):
        os.lseek(fd, 9 * 4096, os.SEEK_DATA)
    with expect_errno(errno.ENXIO):
        os.lseek(fd, 100 * 4096, os.SEEK_HOLE)
    os.ftruncate(fd, 9 * 4096)
    expect_eq(os.lseek(fd, 8 * 4096, os.SEEK_HOLE), 9 * 4096, "the hole at the end")
    os.close(fd)


@case(kinds=BOTH)
@on_mount
def truncation(m):
    """Data that a truncation cut off does not come back when the file grows."""
    p = m.path("f")
    write_file(p, b"\xa5" * 20_000, sync=True)
    os.truncate(p, 5000)
    os.truncate(p, 20_000)
    expect_eq(read_file(p) == b"\xa5" * 5000 + bytes(15_000), True,
              "contents after shrinking and growing")
    drop_caches()
    expect_eq(read_file(p) == b"\xa5" * 5000 + bytes(15_000), True,
              "contents, read from the device")
    os.truncate(p, 1 << 40)
    expect_eq(os.stat(p).st_size, 1 << 40, "a large size")
    os.truncate(p, 0)
    expect_eq((os.stat(p).st_size, os.stat(p).st_blocks), (0, 0), "size and blocks")
    with expect_errno(errno.EFBIG, errno.EINVAL):
        os.truncate(p, (1 << 63) - 1)
    write_file(p, b"abc")
    fd = os.open(p, os.O_WRONLY | os.O_TRUNC)
    expect_eq(os.fstat(fd).st_size, 0, "size after O_TRUNC")
    os.close(fd)


@case()
@on_mount
def append(m):
    fd = os.open(m.path("f"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    other = os.open(m.path("f"), os.O_WRONLY | os.O_APPEND)
    for i in range(100):
        os.write(fd if i % 2 else other, b"%03d\n" % i)
    os.close(fd)
    os.close(other)
    expect_eq(read_file(m.path("f")), b"".join(b"%03d\n" % i for i in range(100)), "contents")


@case(kinds=BOTH)
@on_mount
def mapped(m):
    """A shared mapping, read(2) and a direct read show the same bytes."""
    size = 1 << 20
    write_file(m.path("f"), bytes(size))
    fd = os.open(m.path("f"), os.O_RDWR)
    mm = mmap.mmap(fd, size)
    mm[5000:5000 + 70_000] = pattern(70_000)
    expect_eq(os.pread(fd, 70_000, 5000), pattern(70_000), "read after a store")
    mm.flush()
    dfd = os.open(m.path("f"), os.O_RDONLY | os.O_DIRECT)
    buf = mmap.mmap(-1, size)
    expect_eq(os.preadv(dfd, [buf], 0), size, "length of the direct read")
    expect_eq(buf[5000:75_000], pattern(70_000), "direct read after msync")
    os.pwrite(fd, b"written", 300_000)
    expect_eq(mm[300_000:300_007], b"written", "mapping after a write")
    wfd = os.open(m.path("f"), os.O_WRONLY | os.O_DIRECT)
    buf[0:8192] = b"D" * 8192
    expect_eq(os.pwritev(wfd, [memoryview(buf)[0:8192]], 409_600), 8192,
              "length of the direct write")
    expect_eq(mm[409_600:417_792], b"D" * 8192, "mapping after a direct write")
    for f in (fd, dfd, wfd):
        os.close(f)
    mm.close()


@case()
@on_mount
def times(m):
    p = m.path("f")
    write_file(p, b"x")
    os.utime(p, ns=(10**18 + 1, 10**18 + 2))
    st = os.stat(p)
    expect_eq((st.st_atime_ns, st.st_mtime_ns), (10**18 + 1, 10**18 + 2), "times set")
    before = os.stat(p).st_ctime_ns
    time.sleep(0.02)
    os.chmod(p, 0o600)
    expect(os.stat(p).st_ctime_ns > before, "chmod leaves ctime")
    expect_eq(os.stat(p).st_mtime_ns, 10**18 + 2, "mtime after chmod")
    d = os.stat(m.point).st_mtime_ns
    time.sleep(0.02)
    write_file(m.path("g"), b"")
    expect(os.stat(m.point).st_mtime_ns > d, "creating leaves the directory's mtime")
    fd = os.open(p, os.O_WRONLY)
    os.write(fd, b"y")
    os.close(fd)
    expect(os.stat(p).st_mtime_ns > 10**18 + 2, "writing leaves mtime")
    birth = tree.birth(os.fsencode(p))
    expect(birth is None or birth > 10**18, f"time of birth {birth}")


@case()
@on_mount
def flags(m):
    """The flags that chattr +i and +a set are obeyed."""
    FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
    p = m.path("f")
    write_file(p, b"abc")

    def setflags(value):
        fd = os.open(p, os.O_RDONLY)
        try:
            got = struct.unpack("I", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4])[0]
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("Q", got & ~0x30 | value))
        except OSError as e:
            if e.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS):
                raise Skip("this ioctl is not served") from None
            raise
        finally:
            os.close(fd)

    setflags(0x10)
    with expect_errno(errno.EPERM):
        os.unlink(p)
    with expect_errno(errno.EPERM):
        os.open(p, os.O_WRONLY)
    setflags(0x20)
    with expect_errno(errno.EPERM):
        os.open(p, os.O_WRONLY)
    fd = os.open(p, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"def")
    with expect_errno(errno.EPERM):
        os.ftruncate(fd, 0)
    os.close(fd)
    with expect_errno(errno.EPERM):
        os.truncate(p, 0)
    setflags(0)
    expect_eq(read_file(p), b"abcdef", "contents")


@case()
@on_mount
def listing_while_changing(m):
    """
    A name that is there all the time is listed exactly once, whatever is created and removed
    meanwhile.
    """
    os.mkdir(m.path("d"))
    stay = {f"stay-{i:04}" for i in range(2000)}
    for n in stay:
        write_file(m.path("d", n), b"")
    for i in range(1000):
        write_file(m.path("d", f"go-{i}"), b"")
    seen = []
    with os.scandir(m.path("d")) as it:
        for i, e in enumerate(it):
            seen.append(e.name)
            if i % 3 == 0 and i < 900:
                os.unlink(m.path("d", f"go-{i}"))
                write_file(m.path("d", f"come-{i}-{'x' * 60}"), b"")
    expect_eq(len(seen), len(set(seen)), "names listed twice")
    expect(stay <= set(seen), f"not listed: {sorted(stay - set(seen))[:3]}")


@case()
@on_mount
def locks(m):
    write_file(m.path("f"), b"")
    a = os.open(m.path("f"), os.O_RDWR)
    b = os.open(m.path("f"), os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    with expect_errno(errno.EAGAIN):
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(a, fcntl.LOCK_UN)
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a)
    os.close(b)


if __name__ == "__main__":
    main()
