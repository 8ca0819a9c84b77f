#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
File handles, as an NFS server uses them: a handle leads to its file even after everything cached
about the file is gone.
"""
import ctypes
import errno
import os

from lib import Skip, case, drop_caches, expect_eq, expect_errno, libc, main, syscheck, write_file

BOTH = ("image", "loop")


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint32), ("type", ctypes.c_int), ("data", ctypes.c_uint8 * 128)]


def handle_of(path):
    h = Handle(bytes=128)
    mount_id = ctypes.c_int()
    try:
        syscheck(libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(h),
                                        ctypes.byref(mount_id), 0), "name_to_handle_at")
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ENOTSUP):
            raise Skip("this mount has no file handles") from None
        raise
    return h


def open_handle(mount_fd, h):
    return syscheck(libc.open_by_handle_at(mount_fd, ctypes.byref(h), os.O_RDONLY),
                    "open_by_handle_at")


@case(kinds=BOTH)
def found_again(env):
    vol = env.volume(64)
    with vol.mount() as m:
        os.makedirs(m.path("a/b/c"))
        handles = []
        for i in range(50):
            p = m.path("a/b/c", f"f{i}")
            write_file(p, b"%d" % i)
            handles.append(handle_of(p))
        root = os.open(m.point, os.O_RDONLY | os.O_DIRECTORY)
        drop_caches()
        for i, h in enumerate(handles):
            fd = open_handle(root, h)
            expect_eq(os.read(fd, 10), b"%d" % i, f"contents of file {i}")
            os.close(fd)
        os.close(root)
    vol.check()


@case(kinds=BOTH)
def stale(env):
    """
    The handle of a deleted file leads to nothing, even if its inode number belongs to a new file.
    """
    vol = env.volume(64)
    with vol.mount() as m:
        write_file(m.path("f"), b"old")
        h = handle_of(m.path("f"))
        ino = os.stat(m.path("f")).st_ino
        os.unlink(m.path("f"))
        root = os.open(m.point, os.O_RDONLY | os.O_DIRECTORY)
        drop_caches()
        with expect_errno(errno.ESTALE, errno.ENOENT):
            os.close(open_handle(root, h))
        for i in range(100):
            write_file(m.path(f"new{i}"), b"new")
            if os.stat(m.path(f"new{i}")).st_ino == ino:
                break
        drop_caches()
        with expect_errno(errno.ESTALE, errno.ENOENT):
            os.close(open_handle(root, h))
        os.close(root)
    vol.check()


if __name__ == "__main__":
    main()
