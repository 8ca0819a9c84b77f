#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Idmapped mounts (Linux 6.12): the same script runs on an idmapped mount by fusedio and on one by the
kernel's ext4. What it sees, and what is on the disk afterwards, must be the same.
"""
import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import subprocess

from lib import MIB, Skip, case, expect, expect_eq, main, offer_ring, renameat2, run, syscheck

BOTH = ("devfuse", "uring")
SHIFT = 100_000  # what is ID n on the disk is n + SHIFT in the mount
IDS = 1000
libc = ctypes.CDLL(None, use_errno=True)
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 0x1000, 1, 4
MOUNT_ATTR_IDMAP = 0x00100000
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FITRIM = 0xC0185879


def user_namespace():
    """A file descriptor of a user namespace with the map."""
    child = subprocess.Popen(["unshare", "-U", "sleep", "60"])
    try:
        for _ in range(1000):
            if os.readlink(f"/proc/{child.pid}/ns/user") != os.readlink("/proc/self/ns/user"):
                break
            os.sched_yield()
        for kind in ("uid", "gid"):
            with open(f"/proc/{child.pid}/{kind}_map", "w") as f:
                f.write(f"0 {SHIFT} {IDS}")
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY)
    finally:
        child.kill()
        child.wait()


@contextlib.contextmanager
def idmapped(env, point):
    """An idmapped copy of the mount on point, while the body runs."""
    target = env.mkdir("idmapped")
    namespace = user_namespace()
    tree = syscheck(libc.syscall(SYS_OPEN_TREE, -100, os.fsencode(point),
                                 OPEN_TREE_CLONE | os.O_CLOEXEC), "open_tree")
    attr = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, namespace)
    r = libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attr, len(attr))
    if r < 0 and ctypes.get_errno() == errno.EINVAL and kernel_version() < (6, 12):
        raise Skip("the kernel has no idmapped FUSE mounts")
    syscheck(r, "mount_setattr")
    syscheck(libc.syscall(SYS_MOVE_MOUNT, tree, b"", -100, os.fsencode(target),
                          MOVE_MOUNT_F_EMPTY_PATH), "move_mount")
    os.close(tree)
    os.close(namespace)
    try:
        yield target
    finally:
        run("umount", target)


def kernel_version():
    return tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])


def as_user(uid, fn, gid=None, groups=(), caps=False):
    """What fn returns, or the name of its error, in a process of this user."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(*[uid if gid is None else gid] * 3)
            if caps:
                libc.prctl(8, 1)  # PR_SET_KEEPCAPS
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            text = repr(fn())
        except OSError as e:
            text = errno.errorcode[e.errno]
        except BaseException as e:
            text = repr(e)
        os.write(write, text.encode()[:4000])
        os._exit(0)
    os.close(write)
    text = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(pid, 0)
    return text


def owner(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid, oct(st.st_mode)


def touch(path, mode=0o644, flags=0):
    fd = os.open(path, os.O_CREAT | os.O_RDWR | flags, mode)
    os.close(fd)


def tmpfile(d, name):
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
    syscheck(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(os.path.join(d, name)),
                         0x400), "linkat")  # AT_SYMLINK_FOLLOW
    os.close(fd)


def whiteout(old, new):
    renameat2(old, new, 4)


def append(path, data=b"x"):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, data)
    os.close(fd)


def set_acl(path, user):
    """An ACL that lets this user, as the mount shows it, read and write."""
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, who) for tag, perm, who in
        ((1, 6, 0xffffffff), (2, 6, user), (4, 4, 0xffffffff), (16, 6, 0xffffffff),
         (32, 0, 0xffffffff)))
    os.setxattr(path, "system.posix_acl_access", acl)


def flags_of(path, change=None):
    fd = os.open(path, os.O_RDONLY)
    try:
        buf = bytearray(8)
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, buf)
        flags = struct.unpack("Q", buf)[0]
        if change is not None:
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("Q", flags & ~0x70 | change))
        return flags & 0x70
    finally:
        os.close(fd)


def trim(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FITRIM, bytearray(struct.pack("QQQ", 0, 2 ** 64 - 1, 2 ** 40)))
    finally:
        os.close(fd)


def script(d):
    """Works in the idmapped mount on d, and yields what it sees."""
    def p(name):
        return os.path.join(d, name)

    def as_root(fn):  # root of the container
        return as_user(SHIFT, fn)

    # root of the host has no number on the disk
    yield "create by the host's root", as_user(0, lambda: touch(p("host")))
    yield "the top directory", owner(d)
    yield "home", as_root(lambda: os.mkdir(p("home"), 0o777))
    yield "home is open", as_root(lambda: os.chmod(p("home"), 0o1777))
    a, b = SHIFT + 5, SHIFT + 6

    def q(name):
        return p("home/" + name)
    for what, fn in (("file", lambda: touch(q("file"))), ("dir", lambda: os.mkdir(q("dir"))),
                     ("fifo", lambda: os.mkfifo(q("fifo"))),
                     ("link", lambda: os.symlink("file", q("link"))),
                     ("hard", lambda: os.link(q("file"), q("hard"))),
                     ("tmp", lambda: tmpfile(p("home"), "tmp"))):
        yield what, as_user(a, fn), owner(q(what))
    yield "other user reads", as_user(b, lambda: os.listdir(q("dir")))
    yield "other user changes", as_user(b, lambda: touch(q("dir/x")))
    yield "other user unlinks in a sticky directory", as_user(b, lambda: os.unlink(q("file")))
    yield "the user with that number on the disk", as_user(5, lambda: append(q("file")))
    yield "chown by the owner", as_user(a, lambda: os.chown(q("file"), b, b))
    yield "chown by root", as_root(lambda: os.chown(q("file"), b, a)), owner(q("file"))
    yield "chown by the host's root", as_user(0, lambda: os.chown(q("file"), b, b)), owner(
        q("file"))
    yield "chown to an ID outside", as_user(0, lambda: os.chown(q("file"), 7, 7))
    yield "rename of another's", as_user(a, lambda: os.rename(q("file"), q("mine")))
    yield "rename", as_user(b, lambda: os.rename(q("file"), q("renamed"))), owner(q("renamed"))
    yield "whiteout", as_root(lambda: whiteout(q("tmp"), q("tmp2"))), owner(q("tmp"))
    yield "acl", as_user(b, lambda: set_acl(q("renamed"), a)), os.getxattr(
        q("renamed"), "system.posix_acl_access")
    yield "acl admits", as_user(a, lambda: append(q("renamed")))
    yield "acl does not admit", as_user(SHIFT + 9, lambda: append(q("renamed")))
    yield "user attribute", as_user(b, lambda: os.setxattr(q("renamed"), "user.x", b"y"))
    yield "trusted attribute", as_user(0, lambda: os.setxattr(q("renamed"), "trusted.x", b"y"))
    yield "trusted attribute by root", as_root(lambda: os.setxattr(q("renamed"), "trusted.y", b""))
    for who in (0, SHIFT, a, b):
        yield "list", who, as_user(who, lambda: sorted(
            x for x in os.listxattr(q("renamed")) if not x.startswith("system.")))
    for mode in (0o4755, 0o2755, 0o6755):
        for who in (0, SHIFT, a, b):
            name = f"s{mode:o}-{who}"
            as_user(b, lambda name=name: touch(q(name)))
            os.chmod(q(name), mode | 0o022)
            yield name, "write", as_user(who, lambda name=name: append(q(name))), owner(q(name))
            os.chmod(q(name), mode | 0o022)
            yield name, "truncate", as_user(who, lambda name=name: os.truncate(q(name), 9)), owner(
                q(name))
            os.chmod(q(name), mode | 0o022)
            yield name, "fallocate", as_user(who, lambda name=name: allocate(q(name))), owner(
                q(name))
            os.chmod(q(name), mode)
            yield name, "chown", as_user(who, lambda name=name: os.chown(q(name), -1, b)), owner(
                q(name))
            os.chmod(q(name), mode)
            yield name, "chmod", as_user(who, lambda name=name: os.chmod(q(name), 0o2750)), owner(
                q(name))
    yield "setgid directory", as_user(a, lambda: os.mkdir(q("sgid"))), owner(q("sgid"))
    os.chown(q("sgid"), a, SHIFT + 77)
    os.chmod(q("sgid"), 0o2777)
    for who, groups in ((a, ()), (a, (SHIFT + 77,)), (b, (77,)), (SHIFT, ())):
        name = q(f"sgid/{who}-{len(groups)}-{sum(groups)}")
        yield "in it", as_user(who, lambda name=name: touch(name, 0o2775), groups=groups), owner(
            name)
        yield "directory in it", as_user(who, lambda name=name: os.mkdir(name + "d"),
                                         groups=groups), owner(name + "d")
    yield "flags", as_user(b, lambda: flags_of(q("renamed"), 0x40)), flags_of(q("renamed"))
    yield "flags of another", as_user(a, lambda: flags_of(q("renamed"), 0)), flags_of(q("renamed"))
    yield "immutable by root", as_root(lambda: flags_of(q("renamed"), 0x10))
    yield "immutable", as_user(0, lambda: flags_of(q("renamed"), 0x10)), flags_of(q("renamed"))
    yield "change of an immutable file", as_root(lambda: os.chmod(q("renamed"), 0o600))
    yield "mutable", as_user(0, lambda: flags_of(q("renamed"), 0)), flags_of(q("renamed"))
    for who in (SHIFT, b):
        yield "trim", who, as_user(who, lambda: trim(p("home")))
    yield "times of another", as_user(a, lambda: os.utime(q("renamed"), (1, 1)))
    yield "unlink by root", as_root(lambda: os.unlink(q("renamed")))


def allocate(path):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(fd, 0, 20_000)
    finally:
        os.close(fd)


def tree(top):
    """The owners and modes of all files, as they are on the disk."""
    return sorted((os.path.relpath(os.path.join(d, n), top), *owner(os.path.join(d, n)))
                  for d, dirs, files in os.walk(top) for n in dirs + files)


@case(kinds=("image", "loop"), params=BOTH)
def as_ext4(env, transport):
    if transport == "uring" and not offer_ring():
        raise Skip("the kernel has no FUSE over io_uring")
    ours, theirs = env.volume(64), env.volume(64)
    with theirs.kmount() as k:
        os.chmod(k, 0o777)
        with idmapped(env, k) as d:
            want = list(script(d))
        on_disk = tree(k)
    with ours.mount("transport=" + transport) as m:
        os.chmod(m.point, 0o777)
        with idmapped(env, m.point) as d:
            got = list(script(d))
        different = [(g, w) for g, w in zip(got, want) if g != w]
        expect(not different and len(got) == len(want), f"fusedio, and ext4: {different}")
        expect_eq(tree(m.point), on_disk, "owners on the disk")


def fill(path):
    """Appends until that fails."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        while True:
            os.write(fd, bytes(64 << 10))
    finally:
        os.close(fd)


@case(kinds=("loop",), params=BOTH)
def reserve(env, transport):
    """Root of a container may not use the reserved blocks, whatever its number on the disk."""
    if transport == "uring" and not offer_ring():
        raise Skip("the kernel has no FUSE over io_uring")
    for how in ("ext4", "fusedio"):
        vol = env.volume(32, "-m", "20")
        with (vol.kmount() if how == "ext4" else vol.mount("transport=" + transport)) as m:
            point = m if how == "ext4" else m.point
            os.chown(point, 0, 0)
            with idmapped(env, point) as d:
                path = os.path.join(d, "f")
                expect_eq(as_user(SHIFT, lambda: fill(path)), "ENOSPC", f"{how}: it fills")
                size = os.stat(path).st_size
                free = os.statvfs(d)
                expect(free.f_bfree * free.f_frsize > 5 * MIB, f"{how}: the reserve is used")
                # what root of the host writes may have the blocks
                expect_eq(as_user(0, lambda: fill(path)), "ENOSPC", f"{how}: root fills")
                expect(os.stat(path).st_size > size + 5 * MIB, f"{how}: root has not got the rest")
        vol.check()


if __name__ == "__main__":
    main()
