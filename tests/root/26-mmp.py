#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Multiple mount protection (MMP): two daemons on one file system, as on two hosts that share a
device; the kernel; e2fsck.
"""
import os
import time

from lib import Fail, case, expect, expect_eq, main, pattern, read_file, run, wait_for, write_file

MMP = ("-O", "mmp", "-E", "mmp_update_interval=1")


def second_device(env, vol):
    """
    Another block device over the same image; locks and claims on the first one do not cover it.
    """
    dev = run("losetup", "-f", "--show", vol.file).stdout.strip()
    env.undo.callback(run, "losetup", "-d", dev, ok=None)
    return dev


def second_mount(env, dev):
    from lib import FUSEDIO

    mnt = env.mkdir("second")
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    return run(FUSEDIO, dev, mnt, ok=None, timeout=90), mnt


@case(kinds=("loop",))
def two_daemons(env):
    """
    While the first daemon serves, the second is refused and told the name of the first. After the
    first was killed, the second waits and takes over.
    """
    vol = env.volume(64, *MMP)
    m = vol.mount()
    write_file(m.path("f"), pattern(100_000), sync=True)
    dev = second_device(env, vol)
    p, mnt = second_mount(env, dev)
    expect_eq(p.returncode, 32, f"status of the second mount ({p.stderr.strip()})")
    expect("in use by host " + os.uname().nodename in p.stderr, f"it says: {p.stderr}")
    write_file(m.path("g"), pattern(50_000), sync=True)
    m.kill()
    run("umount", "-l", m.point, ok=None)
    start = time.monotonic()
    p, mnt = second_mount(env, dev)
    took = time.monotonic() - start
    expect_eq(p.returncode, 0, f"status of the mount after a crash ({p.stderr.strip()})")
    expect(took > 10, f"took over after {took:.1f} s: too early to know that nobody else writes")
    expect_eq(read_file(os.path.join(mnt, "g")), pattern(50_000), "contents after the crash")
    run("umount", mnt)
    vol.check()
    # After a clean unmount no mount has to wait.
    start = time.monotonic()
    vol.mount().umount()
    expect(time.monotonic() - start < 8, "a clean file system was waited for")
    vol.check()


@case(kinds=("loop",))
def with_the_kernel(env):
    """
    The kernel refuses to mount while fusedio serves, fusedio refuses while the kernel has it
    mounted, and e2fsck refuses during both.
    """
    vol = env.volume(64, *MMP)
    dev = second_device(env, vol)
    mnt = env.mkdir("kernel")
    m = vol.mount()
    # The page cache of the second device does not see writes through the first one.
    run("blockdev", "--flushbufs", dev)
    p = run("mount", "-t", "ext4", dev, mnt, ok=None, timeout=90)
    if p.returncode == 0:
        run("umount", mnt)
        raise Fail("the kernel mounted a file system that is served")
    p = run("e2fsck", "-p", dev, ok=None, timeout=90)
    expect(p.returncode not in (0, 1), "e2fsck repaired a file system that is served")
    m.umount()
    vol.check()
    run("blockdev", "--flushbufs", dev)
    run("mount", "-t", "ext4", dev, mnt)
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    m = vol.mount(ok=False)
    wait_for(lambda: m.proc.poll() is not None, "the refusal", 60)
    expect_eq(m.proc.returncode, 32, f"status ({m.tail()})")
    expect("in use by host" in m.tail(), f"it says: {m.tail()}")
    run("umount", mnt)
    vol.check()


if __name__ == "__main__":
    main()
