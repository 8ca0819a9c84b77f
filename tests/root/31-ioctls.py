#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Who may use which ioctl. The kernel checks permissions only for the ioctls it knows and passes all
others on, whoever calls. The daemon therefore checks by itself, and looks up the caller's
capabilities in /proc.
"""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import signal
import struct
import subprocess

from lib import (FUSEDIO, Skip, case, expect, expect_eq, libc, main, mountinfo, need, run, syscheck,
                 wait_for, write_file)

NOBODY = 65534
GETFLAGS, SETFLAGS, SETFLAGS_32 = 0x80086601, 0x40086602, 0x40046602
FSSETXATTR, FITRIM, GETLABEL, SETLABEL = 0x401c5820, 0xc0185879, 0x81009431, 0x41009432
SHUTDOWN, SHUTDOWN_FLAGS, MAP = 0x8004587d, 0x4004587d, 0xcc906440
FOR_ADMIN = {"trim": (FITRIM, struct.pack("<QQQ", 0, 1 << 40, 0)),
             "label": (SETLABEL, b"stranger".ljust(256, b"\0")), "shutdown": (SHUTDOWN, bytes(4)),
             "shutdown with flags": (SHUTDOWN_FLAGS, struct.pack("<I", 2))}
IMMUTABLE, APPEND, EXTENTS = 0x10, 0x20, 0x80000
CLONE_NEWUSER = 0x10000000


def name_of(code):
    return errno.errorcode.get(code, str(code)) if code else "ok"


def call(fd, number, arg):
    """The result of the ioctl, and the contents of the buffer afterwards."""
    buf = bytearray(arg.ljust(4096, b"\0"))
    try:
        fcntl.ioctl(fd, number, buf)
    except OSError as e:
        return name_of(e.errno), bytes(buf)
    return "ok", bytes(buf)


class Call32:
    """Makes the ioctl as a 32-bit program does: by int 0x80, with a buffer below 4 GiB."""

    def __init__(self):
        if platform.machine() != "x86_64":
            raise Skip("no 32-bit system calls on this machine")
        code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                         prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        # push rbx; mov ebx, edi; mov ecx, esi; mov eax, 54; int 0x80; pop rbx; ret
        code.write(bytes.fromhex("53 89fb 89f1 b836000000 cd80 5b c3"))
        self.code = code
        self.fn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(
            ctypes.addressof(ctypes.c_char.from_buffer(code)))
        # MAP_32BIT
        self.buf = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buf))

    def __call__(self, fd, number, arg):
        self.buf[:] = arg.ljust(4096, b"\0")
        r = self.fn(fd, number, self.address)
        return name_of(-r) if r < 0 else "ok", bytes(self.buf[:])


def child(fn, become=lambda: None):
    """The result of fn in a child process that has called become; None if a signal ended it."""
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(r)
            become()
            with os.fdopen(w, "w") as f:
                json.dump(fn(), f)
            status = 0
        finally:
            os._exit(status)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    expect(status == 0 and text, f"child process ended with {status}")
    return json.loads(text)


def be_nobody():
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_capabilities():
    """Root without any capability, as in many containers."""
    class Head(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    syscheck(libc.capset(ctypes.byref(Head(0x20080522, 0)), bytes(24)), "capset")


def every_number():
    """
    All ioctls that the daemon knows and their neighbours: each number in each direction, with each
    size of an argument that any of them has.
    """
    known = (("f", 1), ("f", 2), ("v", 1), ("v", 2), ("X", 31), ("X", 32), ("X", 121), ("X", 125),
             ("d", 64), ("\x94", 49), ("\x94", 50))
    for kind, nr in known:
        for size in (0, 1, 4, 8, 24, 28, 256, 3216):
            for direction in range(4):
                yield direction << 30 | size << 16 | ord(kind) << 8 | nr


def tries(paths, arg, short):
    """For each path and number, the result of the ioctl through a read-only descriptor."""
    fn = Call32() if short else call
    said = {}
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        for number in every_number():
            said[f"{os.path.basename(path)} {number:#x}"] = fn(fd, number, arg)[0]
        os.close(fd)
    return said


def prepare(point):
    """Makes files and a directory that root owns and everybody may read."""
    os.chmod(point, 0o755)
    for name, flags in (("plain", 0), ("kept", IMMUTABLE), ("grows", APPEND)):
        p = os.path.join(point, name)
        write_file(p, b"contents")
        os.chmod(p, 0o644)
        fd = os.open(p, os.O_RDONLY)
        expect_eq(call(fd, SETFLAGS, struct.pack("<Q", flags | EXTENTS))[0], "ok",
                  "setting flags as root")
        os.close(fd)
    os.mkdir(os.path.join(point, "dir"))
    return [os.path.join(point, n) for n in ("plain", "kept", "grows", "dir")]


def state(paths):
    """Everything that an ioctl of another user could have changed."""
    out = []
    for p in paths:
        fd = os.open(p, os.O_RDONLY)
        out.append((p, call(fd, GETFLAGS, b"")[1][:4], call(fd, 0x801c581f, b"")[1][:28],
                    call(fd, GETLABEL, b"")[1][:17]))
        os.close(fd)
    return out


def bind_read_only(env, point):
    d = env.mkdir("bind")
    run("mount", "--bind", point, d)
    env.undo.callback(run, "umount", d, ok=None)
    run("mount", "-o", "remount,bind,ro", d)
    return d


def strangers_results(env, point, arg):
    """
    Results on the mount and on a read-only bind mount of it, with numbers of both widths. Nothing
    may have changed.
    """
    paths = prepare(point)
    before = state(paths)
    bound = bind_read_only(env, point)
    out = {}
    for place, where in (("mount", paths), ("bound", [p.replace(point, bound) for p in paths])):
        for width in (64, 32):
            if width == 32 and platform.machine() != "x86_64":
                continue
            said = child(lambda w=where, s=width == 32: tries(w, arg, s), be_nobody)
            if said is None:
                print("# this kernel has no 32-bit system calls")
                continue
            out[place, width] = said
        expect_eq(state(paths), before, f"state after a stranger's ioctls through the {place}")
    run("umount", bound)
    return out


# Results of fusedio for ioctls that differ from the kernel's on purpose: the kernel has shutdown
# only as _IOR, maps files with FIEMAP, and can set the generation.
DIFFERENT = {f"{SHUTDOWN_FLAGS:#x}": "EPERM", f"{MAP:#x}": "ok", "0x40087602": "ENOTTY",
             "0x40047602": "ENOTTY"}


@case(kinds=("loop",), timeout=180, params=(0, 1))
def stranger(env, fill):
    """
    A user who may only read tries every number, in both widths and all directions: nothing changes,
    and the answers are those of the kernel's ext4. The argument holds zeroes (clear all flags) or
    flags to set.
    """
    vol = env.volume(64)
    arg = struct.pack("<IIIII", IMMUTABLE | EXTENTS, 0, 0, 0, 0) if fill else bytes(20)
    with vol.mount() as m:
        ours = strangers_results(env, m.point, arg)
        with open(m.path("alive"), "wb") as f:  # the volume is not shut down
            f.write(b"x")
            os.fsync(f.fileno())
    vol.check()
    other = env.volume(64)
    with other.kmount() as k:
        theirs = strangers_results(env, k, arg)
    expect(ours and ours.keys() == theirs.keys(), f"ways: {list(ours)}, {list(theirs)}")
    for way, results in ours.items():
        for what, got in results.items():
            name, number = what.split()
            want = DIFFERENT.get(number, theirs[way][what])
            if number == f"{MAP:#x}" and name == "dir":
                want = "ENOTSUP"
            expect_eq(got, want, f"{number} on {name} by a stranger, {way}")


@case()
def owners_flags(env):
    """
    An owner sets harmless flags, also through a read-only descriptor, in both widths; but not
    through a read-only bind mount.
    """
    vol = env.volume(64)
    with vol.mount() as m:
        p = m.path("mine")
        write_file(p, b"x")
        os.chown(p, NOBODY, NOBODY)
        bound = bind_read_only(env, m.point)

        def attempt(path, short=False):
            fd = os.open(path, os.O_RDONLY)
            fn = Call32() if short else call
            said = [fn(fd, n, struct.pack("<Q", f | EXTENTS))[0] for n, f in (
                (SETFLAGS, 0x40), (SETFLAGS, 0xc0), (SETFLAGS, IMMUTABLE), (SETFLAGS_32, 0x80))]
            os.close(fd)
            return said

        expect_eq(child(lambda: attempt(p), be_nobody), ["ok", "ok", "EPERM", "ENOTTY"],
                  "flags by the owner")
        expect_eq(child(lambda: attempt(os.path.join(bound, "mine")), be_nobody),
                  ["EROFS"] * 3 + ["ENOTTY"], "the same, bound")
        expect_eq(attempt(os.path.join(bound, "mine")), ["EROFS"] * 3 + ["ENOTTY"],
                  "the same by root")
        if platform.machine() == "x86_64":
            short = child(lambda: attempt(p, True), be_nobody)
            expect(short in (None, ["ok", "ok", "EPERM", "ok"]),
                   f"flags by the owner's 32-bit program: {short}")
        run("umount", bound)
    with vol.mount("ro") as m:
        fd = os.open(m.path("mine"), os.O_RDONLY)
        for number, arg in ((SETFLAGS, bytes(8)), (FSSETXATTR, bytes(28)), FOR_ADMIN["label"],
                            FOR_ADMIN["trim"]):
            expect_eq(call(fd, number, arg)[0], "EROFS", f"{number:#x} on a read-only mount")
        os.close(fd)
    vol.check()


def admins_results(point):
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    return {what: call(fd, number, arg)[0] for what, (number, arg) in FOR_ADMIN.items()}


def in_user_namespace(fn):
    """
    Runs fn as root with every capability in a new user namespace, in which user numbers mean the
    same.
    """
    ready, go = os.pipe(), os.pipe()
    pid = os.getpid()

    def enter():
        syscheck(libc.unshare(CLONE_NEWUSER), "unshare")
        os.write(ready[1], b"%d\n" % os.getpid())
        os.read(go[0], 1)

    def mapper():
        with os.fdopen(os.dup(ready[0])) as f:
            who = f.readline().strip()
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{who}/{kind}", "w") as f:
                f.write("0 0 4294967295\n")
        os.write(go[1], b"x")

    helper = os.fork()
    if not helper:
        try:
            mapper()
        finally:
            os._exit(os.getppid() != pid)
    try:
        return child(fn, enter)
    finally:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)


@case(kinds=("image", "loop"))
def capability(env):
    """
    Trimming, setting the label and shutting down require CAP_SYS_ADMIN in the user namespace of the
    mount; being user 0 is not enough.
    """
    vol = env.volume(64)
    denied = dict.fromkeys(FOR_ADMIN, "EPERM")
    with vol.mount() as m:
        os.chmod(m.point, 0o755)
        expect_eq(child(lambda: admins_results(m.point), be_nobody), denied, "a user")
        expect_eq(child(lambda: admins_results(m.point), drop_capabilities), denied,
                  "root without capabilities")
        if os.path.exists("/proc/self/ns/user"):
            expect_eq(in_user_namespace(lambda: admins_results(m.point)), denied,
                      "root of a user namespace")
        write_file(m.path("f"), b"alive", sync=True)
    vol.check()


@case()
def capability_is_enough(env):
    """
    CAP_SYS_ADMIN alone is enough, as for the kernel: for root, for another user, and in a nested
    process namespace.
    """
    need("setpriv", "unshare", "fstrim")
    vol = env.volume(64)
    with vol.mount() as m:
        os.chmod(m.point, 0o755)
        run("fstrim", m.point)
        run("setpriv", "--reuid", NOBODY, "--inh-caps", "+sys_admin", "--ambient-caps",
            "+sys_admin", "fstrim", m.point)
        run("unshare", "--pid", "--fork", "fstrim", m.point)
    vol.check()


@case()
def foreign_numbers(env):
    """
    If the daemon's process numbers are not those of its /proc, the daemon trusts nothing it reads
    there: the same number may be another process, with every capability. A caller that is not
    visible in the daemon's process namespace counts as one without capabilities.
    """
    need("unshare", "nsenter")
    vol = env.volume(64)
    point = env.mkdir("mnt")
    argv = ["unshare", "--pid", "--fork", "--kill-child", FUSEDIO, "-f", vol.target, point]
    with open(env.path("log"), "wb") as log:
        p = subprocess.Popen(argv, stdout=log, stderr=log)  # pylint: disable=consider-using-with
    env.daemons.append(p)
    env.undo.callback(p.wait, 60)
    env.undo.callback(p.kill)
    env.undo.callback(run, "umount", "-l", point, ok=None)
    wait_for(lambda: mountinfo(point) is not None or p.poll() is not None, "mount")
    expect(mountinfo(point) is not None, "the daemon ended")
    expect_eq(child(lambda: admins_results(point)), dict.fromkeys(FOR_ADMIN, "EPERM"),
              "a caller that is not seen")
    daemon = run("pgrep", "-P", p.pid, "fusedio").stdout.split()[0]
    for _ in range(8):  # several process numbers, which outside are those of kernel threads
        r = run("nsenter", f"--pid=/proc/{daemon}/ns/pid_for_children", "fstrim", point, ok=None)
        expect(r.returncode != 0 and "not permitted" in r.stderr,
               f"fstrim from within: {r.returncode}, {r.stderr.strip()}")
    run("umount", point)
    p.wait(60)
    vol.check()


@case(kinds=("image", "loop"))
def label(env):
    """
    Everybody may read the label, and root may set it. It survives a crash and may fill its field; a
    longer one is refused.
    """
    vol = env.volume(64, "-L", "before")
    m = vol.mount()
    os.chmod(m.point, 0o755)

    def get():
        fd = os.open(m.point, os.O_RDONLY)
        said, data = call(fd, GETLABEL, b"\xff" * 300)
        os.close(fd)
        return said, data[:256].rstrip(b"\0").decode()

    def put(text):
        fd = os.open(m.point, os.O_RDONLY)
        said = call(fd, SETLABEL, text.encode().ljust(256, b"\0"))[0]
        os.close(fd)
        return said

    expect_eq(child(get, be_nobody), ["ok", "before"], "label, by a stranger")
    expect_eq(put("seventeen letters"), "EINVAL", "a label that is too long")
    expect_eq(get(), ("ok", "before"), "label after that")
    for text in ("", "short", "sixteen letters!"):
        expect_eq((put(text), get()), ("ok", ("ok", text)), "setting the label")
    m.kill()
    with vol.mount() as m:
        expect_eq(get(), ("ok", "sixteen letters!"), "label after a crash")
    expect_eq(vol.super()["Filesystem volume name"], "sixteen letters!", "label by dumpe2fs")
    vol.check()


if __name__ == "__main__":
    main()
