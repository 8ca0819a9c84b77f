#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What programs expect of a local file system, compared with the kernel's ext4 (beside.py): locks,
leases, inotify, times, privileges that writing removes, inheritance of groups and ACLs, file
handles.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import time

import tree
from beside import GID, UID, as_user, beside_ext4, child
from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, case, expect, expect_eq, expect_errno,
                 fallocate, libc, main, need, pattern, read_file, run, syscheck, write_file)

OTHER_GID = 1236
O_PATH = getattr(os, "O_PATH", 0o10000000)


# ------------------------------------------------------------------ locks, leases, inotify

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def lockt(kind, start=0, length=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


@case()
@beside_ext4()
def locks(top, notes):
    """
    fcntl locks of processes and of open file descriptions, and flock: conflicts between them, fork,
    close.
    """
    p = os.path.join(top, "f")
    write_file(p, bytes(1000))
    a, b = os.open(p, os.O_RDWR), os.open(p, os.O_RDWR)
    rd = os.open(p, os.O_RDONLY)

    def in_child(cmd, kind, start=0, length=0):
        def fn():
            fd = os.open(p, os.O_RDWR)
            out = fcntl.fcntl(fd, cmd, lockt(kind, start, length))
            return struct.unpack("hhqqi4x", out)[:4]
        return child(fn)
    notes.do("lock 0-99", fcntl.fcntl, a, fcntl.F_SETLK, lockt(fcntl.F_WRLCK, 0, 100))
    notes.put("the same from a child", in_child(fcntl.F_SETLK, fcntl.F_WRLCK, 50, 10))
    notes.put("who has it", in_child(fcntl.F_GETLK, fcntl.F_RDLCK, 0, 0))
    notes.put("beside it", in_child(fcntl.F_SETLK, fcntl.F_WRLCK, 100, 10))
    notes.put("read lock over it", in_child(fcntl.F_SETLK, fcntl.F_RDLCK, 99, 2))
    notes.do("downgrade a part", fcntl.fcntl, b, fcntl.F_SETLK, lockt(fcntl.F_RDLCK, 20, 10))
    notes.put("read lock of the part", in_child(fcntl.F_SETLK, fcntl.F_RDLCK, 20, 10))
    notes.put("read lock of more", in_child(fcntl.F_SETLK, fcntl.F_RDLCK, 20, 11))
    notes.do("write lock on a read-only descriptor", fcntl.fcntl, rd, fcntl.F_SETLK,
             lockt(fcntl.F_WRLCK, 500, 1))
    notes.do("close of another descriptor", os.close, b)
    notes.put("all gone with it", in_child(fcntl.F_SETLK, fcntl.F_WRLCK, 0, 0))
    b = os.open(p, os.O_RDWR)
    notes.do("OFD lock", fcntl.fcntl, a, F_OFD_SETLK, lockt(fcntl.F_WRLCK, 0, 10))
    notes.do("OFD lock of another description", fcntl.fcntl, b, F_OFD_SETLK,
             lockt(fcntl.F_WRLCK, 5, 10))
    notes.do("process lock against it", fcntl.fcntl, b, fcntl.F_SETLK, lockt(fcntl.F_WRLCK, 5, 10))
    notes.put("a child inherits the description",
              child(lambda: len(fcntl.fcntl(a, F_OFD_SETLK, lockt(fcntl.F_WRLCK, 3, 3)))))
    notes.do("OFD unlock", fcntl.fcntl, a, F_OFD_SETLK, lockt(fcntl.F_UNLCK, 0, 0))
    notes.do("free again", fcntl.fcntl, b, F_OFD_SETLK, lockt(fcntl.F_WRLCK, 5, 10))
    notes.do("and released", fcntl.fcntl, b, F_OFD_SETLK, lockt(fcntl.F_UNLCK, 0, 0))
    notes.do("flock", fcntl.flock, a, fcntl.LOCK_SH)
    notes.do("another, shared", fcntl.flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB)
    notes.do("upgrade", fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    notes.do("unlock", fcntl.flock, b, fcntl.LOCK_UN)
    notes.do("upgrade, alone", fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    notes.do("flock and fcntl do not meet", fcntl.fcntl, b, fcntl.F_SETLK,
             lockt(fcntl.F_WRLCK, 0, 0))
    d = os.open(top, os.O_RDONLY)
    notes.do("flock of a directory", fcntl.flock, d, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(d)

    def waits():
        fd = os.open(p, os.O_RDWR)
        signal.alarm(10)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return "got it"
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        os._exit(0)  # the child's copy of a shares the lock: only the last close releases it
    os.close(a)
    notes.put("waiting for a lock of a process that ends", child(waits))
    os.waitpid(pid, 0)
    for fd in (b, rd):
        os.close(fd)


@case()
@beside_ext4()
def leases(top, notes):
    """Leases are given, refused and broken."""
    p = os.path.join(top, "f")
    write_file(p, b"x")
    names = {fcntl.F_RDLCK: "read", fcntl.F_WRLCK: "write", fcntl.F_UNLCK: "none"}

    def lease(fd):
        return names[fcntl.fcntl(fd, fcntl.F_GETLEASE)]
    broken = []
    old = signal.signal(signal.SIGIO, lambda *_: broken.append(1))
    try:
        fd = os.open(p, os.O_RDONLY)
        notes.do("read lease", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        notes.do("what it is", lease, fd)
        notes.put("open for reading by another",
                  child(lambda: os.close(os.open(p, os.O_RDONLY | os.O_NONBLOCK))))
        notes.put("open for writing by another",
                  child(lambda: os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK))))
        time.sleep(0.05)
        notes.put("SIGIO", len(broken) > 0)
        notes.do("what it is to be", lease, fd)
        notes.do("given up", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        notes.put("open for writing now",
                  child(lambda: os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK))))
        wr = os.open(p, os.O_WRONLY)
        notes.do("read lease while open for writing", fcntl.fcntl, fd, fcntl.F_SETLEASE,
                 fcntl.F_RDLCK)
        os.close(fd)
        os.close(wr)
        rw = os.open(p, os.O_RDWR)
        notes.do("write lease", fcntl.fcntl, rw, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        notes.do("what it is", lease, rw)
        notes.put("open for reading by another, against it",
                  child(lambda: os.close(os.open(p, os.O_RDONLY | os.O_NONBLOCK))))
        notes.put("truncate by another",
                  child(lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK))))
        os.close(rw)
        one, two = os.open(p, os.O_RDWR), os.open(p, os.O_RDONLY)
        notes.do("write lease of a file opened twice", fcntl.fcntl, one, fcntl.F_SETLEASE,
                 fcntl.F_WRLCK)
        os.close(one)
        os.close(two)
        d = os.open(top, os.O_RDONLY)
        notes.do("lease of a directory", fcntl.fcntl, d, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        os.close(d)
    finally:
        signal.signal(signal.SIGIO, old)


IN = {1: "ACCESS", 2: "MODIFY", 4: "ATTRIB", 8: "CLOSE_WRITE", 0x10: "CLOSE_NOWRITE", 0x20: "OPEN",
      0x40: "MOVED_FROM", 0x80: "MOVED_TO", 0x100: "CREATE", 0x200: "DELETE", 0x400: "DELETE_SELF",
      0x800: "MOVE_SELF", 0x2000: "UNMOUNT", 0x8000: "IGNORED", 0x40000000: "ISDIR"}


@case()
@beside_ext4()
def inotify(top, notes):
    """The same events in the same order, for what happens in a directory and to a file."""
    d = os.path.join(top, "d")
    os.mkdir(d)
    fd = syscheck(libc.inotify_init1(os.O_NONBLOCK), "inotify_init1")
    watches = {}

    def watch(path, name):
        wd = syscheck(libc.inotify_add_watch(fd, os.fsencode(path), 0xfff), "inotify_add_watch")
        watches[wd] = name

    def events(label):
        time.sleep(0.02)
        out = []
        try:
            buf = os.read(fd, 65_536)
        except BlockingIOError:
            buf = b""
        at = 0
        while at < len(buf):
            wd, mask, _, n = struct.unpack_from("iIII", buf, at)
            name = buf[at + 16:at + 16 + n].rstrip(b"\0").decode()
            at += 16 + n
            out.append((watches.get(wd), "+".join(v for k, v in IN.items() if mask & k), name))
        notes.put(label, out)
    watch(d, "d")
    p = os.path.join(d, "f")
    write_file(p, b"hello")
    events("create and write")
    watch(p, "f")
    read_file(p)
    events("read")
    os.chmod(p, 0o600)
    os.utime(p)
    os.chown(p, 1, 1)
    os.setxattr(p, "user.x", b"1")
    os.removexattr(p, "user.x")
    events("attributes")
    os.truncate(p, 2)
    x = os.open(p, os.O_RDWR)
    fallocate(x, 0, 0, 8192)
    fallocate(x, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096)
    os.ftruncate(x, 100)
    os.pwrite(x, b"abc", 0)
    with mmap.mmap(x, 100) as mm:
        mm[0:3] = b"ABC"
    os.fsync(x)
    os.close(x)
    events("changes")
    os.link(p, os.path.join(d, "g"))
    os.rename(p, os.path.join(d, "h"))
    os.rename(os.path.join(d, "h"), os.path.join(top, "h"))
    events("link and rename")
    os.symlink("x", os.path.join(d, "s"))
    os.mkdir(os.path.join(d, "sub"))
    os.mknod(os.path.join(d, "fifo"), stat.S_IFIFO | 0o600)
    os.rmdir(os.path.join(d, "sub"))
    os.unlink(os.path.join(d, "s"))
    events("names")
    os.unlink(os.path.join(top, "h"))
    events("one name of two")
    os.unlink(os.path.join(d, "g"))
    events("the last name")
    write_file(os.path.join(d, "new"), b"1")
    write_file(os.path.join(d, "old"), b"2")
    events("two files")
    watch(os.path.join(d, "old"), "old")
    os.rename(os.path.join(d, "new"), os.path.join(d, "old"))
    events("rename over one that is watched")
    os.listdir(d)
    events("listing")
    os.unlink(os.path.join(d, "old"))
    os.unlink(os.path.join(d, "fifo"))
    os.rmdir(d)
    events("the directory itself")
    os.close(fd)


# ------------------------------------------------------------------ times

@case()
def birth_time(env):
    """statx returns the time of creation, and nothing that happens to the file later changes it."""
    vol = env.volume(32)
    with vol.mount() as m:
        begun = time.time()
        p = m.path("f")
        write_file(p, b"x")
        os.mkdir(m.path("d"))
        os.symlink("x", m.path("s"))
        births = {}
        for n in ("f", "d", "s"):
            births[n] = tree.birth(os.fsencode(m.path(n)))
            expect(births[n] is not None, f"no time of birth of {n}")
            expect(begun - 1 < births[n] / 1e9 < time.time() + 1,
                   f"{n} was born at {births[n]}, now is {begun}")
        time.sleep(0.02)
        os.chmod(p, 0o600)
        os.utime(p, (1, 1))
        write_file(p, b"more")
        os.rename(p, m.path("g"))
        os.setxattr(m.path("d"), "user.x", b"1")
        expect_eq(tree.birth(os.fsencode(m.path("g"))), births["f"], "time of birth later")
        births["g"] = births.pop("f")
    with vol.mount() as m:
        for n, t in births.items():
            expect_eq(tree.birth(os.fsencode(m.path(n))), t,
                      f"time of birth of {n} after a remount")
    vol.check()
    with vol.kmount("ro") as k:
        for n, t in births.items():
            expect_eq(tree.birth(os.fsencode(os.path.join(k, n))), t,
                      f"time of birth of {n} as the kernel reads it")


def forget(p):
    """Drops the file's pages, so that the next read reaches the file system."""
    fd = os.open(p, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def access_times(top, notes):
    p = os.path.join(top, "f")
    write_file(p, pattern(10_000))
    day = 86_400 * 10**9
    now = time.time_ns()

    def read_changes(label, atime, mtime, flags=0):
        os.utime(p, ns=(atime, mtime))
        forget(p)
        fd = os.open(p, os.O_RDONLY | flags)
        os.read(fd, 100)
        os.close(fd)
        time.sleep(0.05)
        notes.put(label, os.stat(p).st_atime_ns != atime)
    read_changes("older than mtime", now - 100 * day, now - 50 * day)
    read_changes("the same as mtime", now - 50 * day, now - 50 * day)
    read_changes("more than a day old", now - 2 * day, now - 50 * day)
    # (utime sets ctime to now, and relatime updates an atime older than ctime: so atime is set to
    # tomorrow.)
    read_changes("fresh", now + day, now - 50 * day)
    read_changes("fresh, O_NOATIME", now - 10 * day, now - 50 * day, os.O_NOATIME)
    read_changes("direct", now - 10 * day, now - 50 * day, 0)


def atimes(opts):
    def run_one(env):
        return beside_ext4(opts=opts)(access_times)(env)
    run_one.__name__ = "atime"
    return run_one


@case(params=("relatime", "noatime", "strictatime"))
def reading(env, option):
    """
    Access times follow the rule of the mount for reads that reach the file system (reads of cached
    pages do not).
    """
    atimes((option,))(env)


# ------------------------------------------------------------------ privileges

# revision 2, effective, cap_net_bind_service
CAPS = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def privileged(p, mode):
    write_file(p, pattern(10_000))
    os.chown(p, UID, GID)
    os.setxattr(p, "security.capability", CAPS)
    os.chmod(p, mode)


def state(p):
    try:
        os.getxattr(p, "security.capability")
        caps = True
    except OSError as e:
        caps = errno.errorcode[e.errno]
    return oct(stat.S_IMODE(os.stat(p).st_mode)), caps


def direct_buffer(n=4096):
    return mmap.mmap(-1, n)


def writers(p):
    def opened(flags, fn):
        def act():
            fd = os.open(p, flags)
            try:
                fn(fd)
            finally:
                os.close(fd)
        return act

    def mapped(fd):
        with mmap.mmap(fd, 4096) as mm:
            mm[0:3] = b"abc"
            mm.flush()

    def copied(fd):
        os.copy_file_range(fd, fd, 100, 0, 5000)

    def spliced(fd):
        r, w = os.pipe()
        os.write(w, b"spliced")
        os.splice(r, fd, 7)
    W, D = os.O_RDWR, os.O_RDWR | os.O_DIRECT
    return [
        ("write", opened(W, lambda fd: os.write(fd, b"abc"))),
        ("append", opened(W | os.O_APPEND, lambda fd: os.write(fd, b"abc"))),
        ("direct write", opened(D, lambda fd: os.pwritev(fd, [direct_buffer()], 0))),
        ("direct write behind the end",
         opened(D, lambda fd: os.pwritev(fd, [direct_buffer()], 16_384))),
        ("store through a mapping", opened(W, mapped)),
        ("ftruncate shorter", opened(W, lambda fd: os.ftruncate(fd, 100))),
        ("ftruncate longer", opened(W, lambda fd: os.ftruncate(fd, 20_000))),
        ("ftruncate to the same", opened(W, lambda fd: os.ftruncate(fd, 10_000))),
        ("truncate", lambda: os.truncate(p, 50)),
        ("O_TRUNC", opened(W | os.O_TRUNC, lambda fd: None)),
        ("fallocate", opened(W, lambda fd: fallocate(fd, 0, 0, 30_000))),
        ("punch",
         opened(W, lambda fd: fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 4096))),
        ("copy_file_range", opened(W, copied)),
        ("splice", opened(W, spliced)),
        ("empty write", opened(W, lambda fd: os.write(fd, b""))),
        ("open for writing", opened(W, lambda fd: None)),
        ("utimes", lambda: os.utime(p)),
    ]


@case(timeout=180)
@beside_ext4()
def privileges_that_writing_takes(top, notes):
    """
    A write by another user than root removes set-user-ID, set-group-ID and capabilities, by
    whatever way it is made; a write by root does what it does on ext4. Whether set-group-ID of a
    file without group execution stays depends on the writer's groups, also on supplementary ones.
    """
    for who, uid, gid, groups in (("owner", UID, GID, ()), ("root", 0, 0, ()),
                                  ("outsider", UID, 7, (8, 9)), ("member", UID, 7, (8, GID, 9))):
        for mode in (0o6777, 0o6767, 0o2767):
            for n, (label, _) in enumerate(writers("")):
                p = os.path.join(top, f"{who}-{mode:o}-{n}")
                privileged(p, mode)
                act = writers(p)[n][1]
                notes.put(f"{label} by {who}, mode {mode:o}",
                          (as_user(act, uid, gid, groups), *state(p)))


@case()
@beside_ext4()
def privileges_that_owners_take(top, notes):
    """chown, chgrp and chmod: what becomes of set-ID bits and capabilities."""
    def fresh(mode, kind="file"):
        p = os.path.join(top, f"x{len(notes.list)}")
        if kind == "dir":
            os.mkdir(p)
            os.chown(p, UID, GID)
            os.chmod(p, mode)
        else:
            privileged(p, mode)
        return p
    for kind in ("file", "dir"):
        for mode in (0o6777, 0o6767):
            p = fresh(mode, kind)
            notes.do(f"chown by root of a {kind} {mode:o}", os.chown, p, 7, 8)
            notes.put("then", state(p))
            p = fresh(mode, kind)
            notes.do("chown to the same", os.chown, p, UID, GID)
            notes.put("then", state(p))
            p = fresh(mode, kind)
            notes.put("chown to nobody in particular", as_user(lambda q=p: os.chown(q, -1, -1)))
            notes.put("then", state(p))
            p = fresh(mode, kind)
            notes.put("chgrp by the owner",
                      as_user(lambda q=p: os.chown(q, -1, OTHER_GID), groups=(OTHER_GID,)))
            notes.put("then", state(p))
            p = fresh(mode, kind)
            notes.put("chgrp by the owner to a foreign group",
                      as_user(lambda q=p: os.chown(q, -1, 99)))
            notes.put("then", state(p))
    p = fresh(0o777)
    os.chown(p, UID, 99)
    notes.put("set-group-ID by an owner outside the group", as_user(lambda: os.chmod(p, 0o2777)))
    notes.put("then", state(p))
    notes.put("by an owner inside it", as_user(lambda: os.chmod(p, 0o2777), groups=(99,)))
    notes.put("then", state(p))
    notes.put("capabilities by the owner",
              as_user(lambda: os.setxattr(p, "security.capability", CAPS)))
    notes.put("the sticky bit by the owner", as_user(lambda: os.chmod(p, 0o1777)))
    notes.put("then", state(p))


@case()
@beside_ext4()
def groups_that_are_inherited(top, notes):
    """
    Directories with the set-group-ID bit, sticky directories, permissions by supplementary groups.
    """
    os.umask(0)
    g = os.path.join(top, "g")
    os.mkdir(g)
    os.chown(g, 0, OTHER_GID)
    os.chmod(g, 0o2777)

    def owner(name):
        st = os.lstat(os.path.join(g, name))
        notes.put(f"{name}: mode, owner", (oct(st.st_mode), st.st_uid, st.st_gid))
    for label, groups in (("outside", ()), ("inside", (OTHER_GID,))):
        def make(x=label):
            os.close(os.open(os.path.join(g, f"{x}-f"), os.O_CREAT | os.O_WRONLY, 0o644))
            os.close(os.open(os.path.join(g, f"{x}-s"), os.O_CREAT | os.O_WRONLY, 0o2775))
            os.close(os.open(os.path.join(g, f"{x}-n"), os.O_CREAT | os.O_WRONLY, 0o2745))
            os.mkdir(os.path.join(g, f"{x}-d"), 0o755)
            os.mkdir(os.path.join(g, f"{x}-e"), 0o2755)
            os.symlink("x", os.path.join(g, f"{x}-l"))
            os.mknod(os.path.join(g, f"{x}-p"), stat.S_IFIFO | 0o2777)
            os.close(os.open(g, os.O_TMPFILE | os.O_WRONLY, 0o2775))
        notes.put(f"made by somebody {label} the group", as_user(make, groups=groups))
        for n in ("f", "s", "n", "d", "e", "l", "p"):
            owner(f"{label}-{n}")
    os.umask(0o022)
    t = os.path.join(top, "t")
    os.mkdir(t)
    os.chmod(t, 0o1777)
    write_file(os.path.join(t, "root"), b"")
    notes.put("a file of another in a sticky directory",
              as_user(lambda: os.unlink(os.path.join(t, "root"))))
    notes.put("renaming it",
              as_user(lambda: os.rename(os.path.join(t, "root"), os.path.join(t, "x"))))
    notes.put("one's own", as_user(
        lambda: (write_file(os.path.join(t, "own"), b""), os.unlink(os.path.join(t, "own")))[0]))
    write_file(os.path.join(top, "for-group"), b"secret")
    os.chown(os.path.join(top, "for-group"), 0, OTHER_GID)
    os.chmod(os.path.join(top, "for-group"), 0o640)
    notes.put("reading as a member", as_user(lambda: len(read_file(os.path.join(top, "for-group"))),
                                             groups=(5, OTHER_GID)))
    notes.put("reading as none", as_user(lambda: len(read_file(os.path.join(top, "for-group")))))


@case()
@beside_ext4()
def access_lists(top, notes):
    """setfacl and getfacl, inheritance of ACLs, the mask; rsync -A copies them."""
    need("setfacl", "getfacl", "rsync")
    d = os.path.join(top, "d")
    os.mkdir(d)

    def facl(path):
        return run("getfacl", "-n", "--omit-header", "-P", os.path.basename(path),
                   cwd=os.path.dirname(path)).stdout

    def acl(*args):
        notes.put(" ".join(args[:-1]), run("setfacl", *args, ok=None).returncode)
        if os.path.exists(args[-1]):
            notes.put("then", facl(args[-1]))
    acl("-m", f"u:{UID}:rwx,g:{OTHER_GID}:r-x", d)
    acl("-d", "-m", f"u:{UID}:rw-,g:{GID}:r--,o::---", d)
    for mask in (0o022, 0o077, 0):
        os.umask(mask)
        for mode in (0o666, 0o600, 0o777):
            p = os.path.join(d, f"f{mask:o}-{mode:o}")
            os.close(os.open(p, os.O_CREAT | os.O_WRONLY, mode))
            notes.put(f"a file made with {mode:o}, umask {mask:o}",
                      (oct(os.stat(p).st_mode), facl(p)))
        p = os.path.join(d, f"d{mask:o}")
        os.mkdir(p, 0o777)
        notes.put(f"a directory made with umask {mask:o}", (oct(os.stat(p).st_mode), facl(p)))
        os.mkfifo(os.path.join(d, f"p{mask:o}"), 0o666)
        notes.put("a pipe", facl(os.path.join(d, f"p{mask:o}")))
    os.umask(0o022)
    f = os.path.join(d, "f22-666")
    os.chmod(f, 0o640)
    notes.put("after chmod 640", facl(f))
    os.chmod(f, 0o607)
    notes.put("after chmod 607", facl(f))
    os.chown(f, 0, 0)
    write_file(f, b"data")
    notes.put("read by the named user", as_user(lambda: len(read_file(f)), gid=77))
    acl("-m", "m::rw", f)
    notes.put("read with a wider mask", as_user(lambda: len(read_file(f)), gid=77))
    notes.put("read by a stranger", as_user(lambda: len(read_file(f)), uid=77, gid=77))
    acl("-x", f"u:{UID}", f)
    acl("-b", f)
    acl("-k", d)
    acl("-m", "u:5000000:r", f)
    acl("-d", "-m", "u:5:r", f)
    acl("-R", "-m", f"u:{UID + 1}:r-X", d)
    many = ",".join(f"u:{10_000 + i}:r" for i in range(200))
    acl("-m", many, f)
    notes.put("set-group-ID and an ACL by somebody outside the group", gid_and_acl(top))
    os.mkdir(os.path.join(top, "copy"))
    run("rsync", "-aAXH", "--exclude", "copy", "--exclude", "lost+found", top + "/",
        os.path.join(top, "copy") + "/")
    notes.put("rsync -A", run("getfacl", "-n", "-R", "-P", "copy",
                              cwd=top).stdout.replace("copy/", "").splitlines()[4:])


def gid_and_acl(top):
    """setfacl by an owner who is not in the file's group removes the set-group-ID bit."""
    p = os.path.join(top, "sgid")
    write_file(p, b"")
    os.chown(p, UID, 99)
    os.chmod(p, 0o2775)
    r = as_user(lambda: os.setxattr(p, "system.posix_acl_access", tree.ACCESS))
    return r, oct(os.stat(p).st_mode)


# ------------------------------------------------------------------ handles

class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint32), ("type", ctypes.c_int), ("data", ctypes.c_uint8 * 128)]


def handle_of(path):
    h = Handle(bytes=128)
    mount_id = ctypes.c_int()
    syscheck(libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(h),
                                    ctypes.byref(mount_id), 0), "name_to_handle_at")
    return h


@case(kinds=("image", "loop"))
def handles_over_a_remount(env):
    """
    Handles that an NFS client holds are valid after a remount, except those of deleted files, even
    if their inode number was used again.
    """
    vol = env.volume(64)
    handles = {}
    with vol.mount() as m:
        os.makedirs(m.path("a/b/c"))
        for n in ("a/b/c/file", "gone", "again"):
            write_file(m.path(n), n.encode())
        os.symlink("target", m.path("a/link"))
        for n in ("a/b/c/file", "a/b/c", "a", "a/link", "gone", "again"):
            handles[n] = handle_of(m.path(n))
        handles["."] = handle_of(m.point)
        os.unlink(m.path("gone"))
        again = os.stat(m.path("again")).st_ino
        os.unlink(m.path("again"))
        for i in range(200):
            write_file(m.path(f"n{i}"), b"")
            if os.stat(m.path(f"n{i}")).st_ino == again:
                break
        os.rename(m.path("a/b"), m.path("a/moved"))
    with vol.mount() as m:
        root = os.open(m.point, os.O_RDONLY | os.O_DIRECTORY)

        def reopened(n, flags=os.O_RDONLY):
            return syscheck(libc.open_by_handle_at(root, ctypes.byref(handles[n]), flags),
                            "open_by_handle_at")
        fd = reopened("a/b/c/file")
        expect_eq(os.read(fd, 100), b"a/b/c/file", "contents")
        os.close(fd)
        for n, where in (("a/b/c", "a/moved/c"), ("a", "a"), (".", "")):
            fd = reopened(n, os.O_RDONLY | os.O_DIRECTORY)
            expect_eq(os.readlink(f"/proc/self/fd/{fd}"), os.path.join(m.point, where).rstrip("/"),
                      f"the path of {n}")
            expect_eq(sorted(os.listdir(fd)), sorted(os.listdir(m.path(where))), f"names in {n}")
            os.close(fd)
        fd = reopened("a/link", O_PATH | os.O_NOFOLLOW)
        expect_eq(os.readlink("", dir_fd=fd), "target", "the target of a link")
        os.close(fd)
        for n in ("gone", "again"):
            with expect_errno(errno.ESTALE):
                os.close(reopened(n))
        os.close(root)
    vol.check()


if __name__ == "__main__":
    main()
