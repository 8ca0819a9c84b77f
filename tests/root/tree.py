# SPDX-License-Identifier: GPL-2.0-or-later
"""
A tree of files that uses every kind of object that ext4 has, and comparison of two such trees.
fill() makes the tree below a directory, scan() reads one into a table, differences() compares two
tables. The same code runs on a mount by the kernel and on one by fusedio.
"""
import contextlib
import ctypes
import errno
import hashlib
import os
import stat
import struct

from lib import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate, pattern

TIMES = [  # nanoseconds since the epoch: before 1970, around the ends of 32 bits, far ahead
    0, 1, 999_999_999, -1, -1_000_000_000, -86_400 * 365 * 10**9 - 5, -(2**31) * 10**9,
    (2**31 - 1) * 10**9 + 999_999_999, 2**31 * 10**9, (2**32 - 1) * 10**9 + 7, 2**32 * 10**9,
    (2**33 + 12345) * 10**9 + 123_456_789, 15032385535 * 10**9,
]
# for inodes of 128 bytes, which store seconds only
SHORT_TIMES = [0, 10**9, -(2**31) * 10**9, (2**31 - 1) * 10**9, 1_700_000_000 * 10**9]


def acl(*entries):
    """A POSIX ACL as the kernel's extended attribute; entries are (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xffffffff)
                                           for t, p, i in entries)


ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 1, 2, 4, 8, 16, 32
ACCESS = acl((ACL_USER_OBJ, 6, -1), (ACL_USER, 4, 1000), (ACL_USER, 7, 70000),
             (ACL_GROUP_OBJ, 4, -1), (ACL_GROUP, 5, 2000), (ACL_MASK, 5, -1), (ACL_OTHER, 0, -1))
DEFAULT = acl((ACL_USER_OBJ, 7, -1), (ACL_USER, 6, 1001), (ACL_GROUP_OBJ, 5, -1), (ACL_MASK, 7, -1),
              (ACL_OTHER, 1, -1))
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep


def put(path, data, mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)


def fragmented(path, bs, extents):
    """Writes every other block of a file, so that it has as many extents as blocks."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    block = pattern(bs, 7)
    for i in range(extents):
        os.pwrite(fd, block[i % bs:] + block[:i % bs], i * 2 * bs)
    os.close(fd)


def fill_files(d, bs, huge):
    for i, n in enumerate((0, 1, bs - 1, bs, bs + 1, 3 * bs + 17, 100_000, (1 << 20) + 7)):
        put(os.path.join(d, b"size-%d" % n), pattern(n, i))
    fd = os.open(os.path.join(d, b"sparse"), os.O_CREAT | os.O_RDWR, 0o640)
    end = 3 << 32 if huge else 3 << 20
    for off in (0, 5 * bs, 5 * bs + 1, 1 << 20, end // 3 - 1, end):
        os.pwrite(fd, b"here", off)
    os.ftruncate(fd, end + 12345)
    os.close(fd)
    fd = os.open(os.path.join(d, b"only-hole"), os.O_CREAT | os.O_RDWR, 0o640)
    os.ftruncate(fd, 1 << (30 if huge else 22))
    os.close(fd)
    fd = os.open(os.path.join(d, b"preallocated"), os.O_CREAT | os.O_RDWR, 0o600)
    fallocate(fd, 0, 0, 1 << 20)
    os.pwrite(fd, pattern(3 * bs, 3), 10 * bs)
    os.pwrite(fd, b"x", 100 * bs + 5)
    os.close(fd)
    fd = os.open(os.path.join(d, b"preallocated-beyond"), os.O_CREAT | os.O_RDWR, 0o600)
    os.pwrite(fd, pattern(bs + 9, 4), 0)
    fallocate(fd, FALLOC_KEEP_SIZE, 0, 512 << 10)
    os.close(fd)
    fd = os.open(os.path.join(d, b"punched"), os.O_CREAT | os.O_RDWR, 0o600)
    os.pwrite(fd, pattern(64 * bs, 5), 0)
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 3 * bs + 10, 20 * bs)
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 50 * bs, bs)
    os.close(fd)


def fill_links(d, bs):
    for n in (1, 58, 59, 60, 61, 255, bs - 1):
        os.symlink((b"t/" * n)[:n], os.path.join(d, b"symlink-%d" % n))
    put(os.path.join(d, b"linked"), b"three names\n")
    os.link(os.path.join(d, b"linked"), os.path.join(d, b"linked-2"))
    os.mkdir(os.path.join(d, b"sub"))
    os.link(os.path.join(d, b"linked"), os.path.join(d, b"sub", b"linked-3"))
    for name, kind, dev in ((b"fifo", stat.S_IFIFO, 0), (b"socket", stat.S_IFSOCK, 0),
                            (b"char", stat.S_IFCHR, os.makedev(1, 3)),
                            (b"block", stat.S_IFBLK, os.makedev(7, 200)),
                            (b"big-dev", stat.S_IFCHR, os.makedev(300, 70000))):
        os.mknod(os.path.join(d, name), kind | 0o640, dev)


def fill_attrs(d, bs, acls=True):
    for i, (mode, uid, gid) in enumerate(((0o4755, 0, 0), (0o2755, 1, 2), (0o1777, 65534, 65534), (
            0o000, 70000, 80000), (0o600, 4294967294, 4294967294), (0o6111, 1000, 0))):
        p = os.path.join(d, b"owner-%d" % i)
        put(p, b"%d" % i)
        os.chown(p, uid, gid)
        os.chmod(p, mode)
    p = os.path.join(d, b"xattr-small")
    put(p, b"")
    os.setxattr(p, "user.a", b"1")
    os.setxattr(p, "user.empty", b"")
    os.setxattr(p, "trusted.t", b"\0\1\2")
    p = os.path.join(d, b"xattr-block")
    put(p, b"block")
    for i in range(5):
        os.setxattr(p, f"user.number-{i}", pattern(bs // 8, i))
    p = os.path.join(d, b"xattr-both")
    put(p, b"both")
    os.setxattr(p, "user.in-inode", b"little")
    os.setxattr(p, "security.capability", CAPABILITY)
    os.setxattr(p, "user.large", pattern(bs // 2, 9))
    if acls:
        p = os.path.join(d, b"acl")
        put(p, b"acl")
        os.setxattr(p, "system.posix_acl_access", ACCESS)
        p = os.path.join(d, b"acl-dir")
        os.mkdir(p)
        os.setxattr(p, "system.posix_acl_default", DEFAULT)
        put(os.path.join(p, b"inherits"), b"", 0o666)
        os.mkdir(os.path.join(p, b"inherits-dir"))


def fill_names(d, entries):
    for i in range(entries):
        os.close(os.open(os.path.join(d, b"entry-%06d-of-a-directory-with-an-index" % i),
                         os.O_CREAT | os.O_WRONLY, 0o644))
    for i in range(0, entries, 3):
        os.unlink(os.path.join(d, b"entry-%06d-of-a-directory-with-an-index" % i))
    for name in (b"\xff\xfe not UTF-8", b"new\nline", b" ", b"...", b"-rf", b"x" * 255,
                 "snö".encode()):
        put(os.path.join(d, name), name)


def fill(root, bs, extents=2000, entries=6000, times=None, acls=True, huge=True):
    """
    Makes the whole tree below root (bytes or str). huge: with holes of gigabytes, too long for
    tests that run programs which read files through.
    """
    root = os.fsencode(root)
    for sub in (b"files", b"links", b"attrs", b"names", b"times", b"deep"):
        os.mkdir(os.path.join(root, sub))
    fill_files(os.path.join(root, b"files"), bs, huge)
    fragmented(os.path.join(root, b"files", b"fragmented"), bs, extents)
    fill_links(os.path.join(root, b"links"), bs)
    fill_attrs(os.path.join(root, b"attrs"), bs, acls)
    fill_names(os.path.join(root, b"names"), entries)
    p = os.path.join(root, b"deep")
    for i in range(40):
        p = os.path.join(p, b"level-%d" % i)
        os.mkdir(p)
    put(os.path.join(p, b"bottom"), b"bottom\n")
    for i, ns in enumerate(times or TIMES):
        p = os.path.join(root, b"times", b"time-%d" % i)
        put(p, b"")
        os.utime(p, ns=(ns, ns))
    os.chmod(os.path.join(root, b"links"), 0o2775)
    os.utime(os.path.join(root, b"deep"), ns=(123, 456))


def segments(fd, size):
    """The ranges of data in a file, by SEEK_DATA and SEEK_HOLE."""
    out = []
    off = 0
    while off < size:
        try:
            start = os.lseek(fd, off, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                break
            raise
        off = os.lseek(fd, start, os.SEEK_HOLE)
        out.append((start, off))
    return out


def digest(fd, segs):
    """A hash of the data in these ranges. It does not read holes, which may be gigabytes long."""
    h = hashlib.sha256()
    for start, end in segs:
        off = start
        while off < end:
            b = os.pread(fd, min(1 << 20, end - off), off)
            if not b:
                break
            h.update(b)
            off += len(b)
        h.update(b"|%d" % off)
    return h.hexdigest()


class Statx(ctypes.Structure):
    _fields_ = [("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32),
                ("attributes", ctypes.c_uint64), ("nlink", ctypes.c_uint32),
                ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32), ("mode", ctypes.c_uint16),
                ("pad0", ctypes.c_uint16),
                ("ino", ctypes.c_uint64), ("size", ctypes.c_uint64), ("blocks", ctypes.c_uint64),
                ("attributes_mask", ctypes.c_uint64),
                ("times", ctypes.c_int64 * 8), ("rest", ctypes.c_uint64 * 24)]


_libc = ctypes.CDLL(None, use_errno=True)


def birth(path):
    """The time of creation in ns, or None if statx does not return it."""
    sx = Statx()
    if _libc.statx(-100, path, 0x100, 0x800, ctypes.byref(sx)) < 0 or not sx.mask & 0x800:
        return None
    return sx.times[2] * 10**9 + (sx.times[3] & 0xffffffff)


def record(path, is_root):
    st = os.lstat(path)
    r = {"mode": oct(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "nlink": st.st_nlink,
         "mtime": st.st_mtime_ns, "ctime": st.st_ctime_ns, "atime": st.st_atime_ns,
         "blocks": st.st_blocks, "ino": st.st_ino}
    if not stat.S_ISDIR(st.st_mode) or not is_root:
        r["birth"] = birth(path)
    if not stat.S_ISDIR(st.st_mode):
        r["size"] = st.st_size
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        r["rdev"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
    if stat.S_ISLNK(st.st_mode):
        r["target"] = os.readlink(path)
    if stat.S_ISREG(st.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        try:
            segs = segments(fd, st.st_size)
            r["segments"] = segs
            r["sha256"] = digest(fd, segs)
            if segs and segs[0][0] > 0:
                r["hole"] = os.pread(fd, 16, segs[0][0] - 16).hex()
        finally:
            os.close(fd)
    with contextlib.suppress(OSError):
        r["xattrs"] = {n: os.getxattr(path, n, follow_symlinks=False)
                       for n in sorted(os.listxattr(path, follow_symlinks=False))
                       if n != "security.selinux"}
    return r


def scan(root):
    """A table of everything below root (path: fields of record), the root itself as b''."""
    root = os.fsencode(root)
    out = {b"": record(root, True)}
    todo = [b""]
    while todo:
        rel = todo.pop()
        with os.scandir(os.path.join(root, rel) if rel else root) as it:
            entries = sorted((e.name, e.is_dir(follow_symlinks=False), e.inode()) for e in it)
        for name, is_dir, ino in entries:
            sub = os.path.join(rel, name) if rel else name
            out[sub] = record(os.path.join(root, sub), False)
            if is_dir != (stat.S_ISDIR(int(out[sub]["mode"], 8))) or ino != out[sub]["ino"]:
                out[sub]["dirent"] = (is_dir, ino)
            if is_dir:
                todo.append(sub)
    return out


def differences(a, b, ignore=(), limit=5):
    """
    Lines that say where two tables differ, at most about limit; fields in ignore do not count.
    """
    out = []
    for p in sorted(set(a) | set(b)):
        if p not in a or p not in b:
            out.append(f"{p!r}: only in the {'first' if p in a else 'second'}")
        else:
            for k in sorted(set(a[p]) | set(b[p])):
                if k not in ignore and a[p].get(k) != b[p].get(k):
                    out.append(f"{p!r}: {k}: {str(a[p].get(k))[:150]} / {str(b[p].get(k))[:150]}")
        if len(out) >= limit:
            break
    return out
