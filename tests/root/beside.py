# SPDX-License-Identifier: GPL-2.0-or-later
"""
Cases that compare fusedio with the kernel's ext4. A case does the same in a directory of a mount by
each and notes the results; both lists of notes must be equal. as_user and child run a function in a
child process, with another identity or the same.
"""
import errno
import os
import select
import signal

from lib import Fail, expect, expect_eq

UID, GID = 1234, 1235


class Notes:
    """A list of (label, result) in the order of the calls."""

    def __init__(self):
        self.list = []

    def do(self, label, fn, *args):
        """Calls fn; notes its result, or the name of the error it raised."""
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
    Decorates a function of a directory and Notes: it runs on a fusedio mount, then on a kernel
    mount with the same mkfs arguments and options. The case fails if the notes differ, or if e2fsck
    finds an error in the volume that fusedio served.
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
    Runs fn in a child process with another identity. Returns its result as a short text ("ok" for
    None), or the name of the error it raised.
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
