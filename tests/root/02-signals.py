#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A signal ends the daemon as umount would, and both wait until everything is on the device."""
import os
import signal

from lib import (case, expect, expect_eq, main, mountinfo, pattern, read_file, run, wait_for,
                 write_file)

BOTH = ("image", "loop")


@case(kinds=BOTH, params=("TERM", "INT"))
def unmounts(env, name):
    vol = env.volume(64)
    m = vol.mount()
    write_file(m.path("f"), pattern(300_000))
    os.kill(m.pid, getattr(signal, "SIG" + name))
    m.wait(60)
    wait_for(lambda: mountinfo(m.point) is None, "end of the mount")
    vol.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "f")), pattern(300_000), "contents")


@case(kinds=BOTH)
def while_busy(env):
    """
    SIGTERM while a file is open: the daemon does not hang, and the file system is clean once the
    file is closed or the daemon has ended.
    """
    vol = env.volume(64)
    m = vol.mount()
    fd = os.open(m.path("open"), os.O_CREAT | os.O_RDWR)
    os.write(fd, pattern(100_000))
    os.fsync(fd)
    os.kill(m.pid, signal.SIGTERM)
    try:
        wait_for(lambda: m.proc.poll() is not None or mountinfo(m.point) is None,
                 "reaction to SIGTERM")
    finally:
        os.close(fd)
    m.wait(60)
    wait_for(lambda: mountinfo(m.point) is None, "end of the mount")
    vol.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "open")), pattern(100_000), "contents")


@case(kinds=("loop",))
def umount_waits(env):
    """
    umount of a block device returns when everything is on it: a copy taken then is clean and
    complete.
    """
    vol = env.volume(128)
    m = vol.mount()
    for i in range(200):
        write_file(m.path(f"f{i}"), pattern(20_000, i))
    run("umount", m.point)
    copy = vol.copy()
    copy.check()
    m.wait()
    with copy.kmount("ro") as k:
        for i in range(200):
            expect_eq(read_file(os.path.join(k, f"f{i}")), pattern(20_000, i), f"f{i}")


@case()
def hangup_and_pipe_are_survived(env):
    """SIGPIPE, SIGUSR1 (statistics) and, in a daemon, SIGHUP do not end the mount."""
    vol = env.volume(64)
    with vol.mount() as m:
        for sig in (signal.SIGPIPE, signal.SIGUSR1):
            os.kill(m.pid, sig)
        write_file(m.path("f"), b"still here")
        expect_eq(read_file(m.path("f")), b"still here", "contents")
        expect(m.proc.poll() is None, "the daemon has ended")
    vol.check()


if __name__ == "__main__":
    main()
