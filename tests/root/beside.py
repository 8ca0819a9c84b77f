# SPDX-License-Identifier: GPL-2.0-or-later
"""
Cases that run beside the kernel's ext4, for scripts of the root tests: each does the same in a
directory of a fusedio mount and in one of a kernel mount and notes what came out; the notes must be
the same. And children with another identity than root's.
"""
import errno
import os
import select
import signal

from lib import Fail, expect, expect_eq

UID, GID = 1234, 1235


class Notes:
    """What happened, in order: (label, outcome)."""

    def __init__(self):
        self.list = []

    def do(self, label, fn, *args):
        try:
            r = fn(*args)
        except OSError as e:
            r = errno.errorcode.get(e.errno, e.errno)
        self.list.append((label, r))
        return r

    def put(self, label, value):
        self.list.append((label, value))


def beside_ext4(mib=64, mkfs=("-b", "4096"), opts=()):
    """
    The case runs in a directory of a fusedio mount and in one of a kernel mount; the notes of both
    must be the same.
    """
    def deco(fn):
        def wrapped(env):
            got = []
            vol = env.volume(mib, *mkfs)
            with vol.mount(*opts) as m:
                os.chmod(m.point, 0o755)
                got.append(gather(fn, m.point))
            vol.check()
            other = env.volume(mib, *mkfs)
            with other.kmount(*[o for o in opts if "dio" not in o]) as k:
                os.chmod(k, 0o755)
                got.append(gather(fn, k))
            compare(*got)
        wrapped.__name__ = fn.__name__
        return wrapped
    return deco


def gather(fn, top):
    notes = Notes()
    fn(top, notes)
    return notes.list


def compare(ours, ext4):
    bad = [f"{a[0]}: {a[1]!r}, ext4: {b[1]!r}" for a, b in zip(ours, ext4) if a != b]
    expect(not bad, f"{len(bad)} of {len(ours)} differ: " + "; ".join(bad[:6]))
    expect_eq(len(ours), len(ext4), "number of steps")
    expect(len(ours) > 0, "nothing was noted")


def as_user(fn, uid=UID, gid=GID, groups=(), timeout=30):
    """
    Runs fn in a child with another identity; what it returns (a short text) or the name of its
    error.
    """
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "?"
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            out = fn()
            text = "ok" if out is None else str(out)
        except OSError as e:
            text = errno.errorcode.get(e.errno, str(e.errno))
        except BaseException as e:  # the child must not return into the test
            text = repr(e)
        os.write(w, text.encode())
        os._exit(0)
    os.close(w)
    try:
        if not select.select([r], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            raise Fail("a child does not end")
        return os.read(r, 4000).decode()
    finally:
        os.close(r)
        os.waitpid(pid, 0)


def child(fn, timeout=30):
    return as_user(fn, 0, 0, (), timeout)
