#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The ways in which a system mounts: fstab and mount(8) with the helper, findmnt, the systemd unit.
"""
import os
import re

from lib import (BUILD, FUSEDIO, Skip, case, daemons_of, expect, expect_eq, main, mountinfo, need,
                 read_file, run, wait_for, write_file)

BOTH = ("image", "loop")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def helper(env):
    """
    mount(8) looks for mount.TYPE in fixed directories, so a link to fusedio is in one of them while
    the body runs.
    """
    name = f"fdiotest{os.getpid()}"
    link = f"/sbin/mount.{name}"
    with open(env.path("helper"), "w") as f:
        f.write(f"#!/bin/bash\nexec -a mount.fusedio '{FUSEDIO}' \"$@\"\n")
    os.chmod(env.path("helper"), 0o755)
    os.symlink(env.path("helper"), link)
    env.undo.callback(os.unlink, link)
    return name


def settle(mnt):
    wait_for(lambda: not daemons_of(mnt), "end of the daemon")


@case(kinds=BOTH)
def mount_by_type(env):
    need("bash")
    vol = env.volume(64)
    mnt = env.mkdir()
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    run("mount", "-t", helper(env), "-o", "noatime,nosuid", vol.target, mnt)
    info = mountinfo(mnt)
    expect(info and info[1].startswith("fuse"), f"mounted: {info}")
    expect("nosuid" in info[3].split(","), f"options {info[3]}")
    expect_eq(run("findmnt", "-n", "-o", "SOURCE", mnt).stdout.strip(), vol.target,
              "source in findmnt")
    write_file(os.path.join(mnt, "f"), b"by type")
    run("umount", mnt)
    settle(mnt)
    vol.check()


@case(kinds=BOTH)
def fstab(env):
    """mount -T FILE DIRECTORY, with the options that lines of fstab carry."""
    need("bash")
    vol = env.volume(64)
    mnt = env.mkdir()
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    table = env.path("fstab")
    write_file(table, f"{vol.target} {mnt} {helper(env)} "
               "noauto,nofail,x-systemd.device-timeout=5,_netdev,errors=remount-ro 0 2\n".encode())
    run("mount", "-T", table, mnt)
    write_file(os.path.join(mnt, "f"), b"by fstab")
    expect_eq(read_file(os.path.join(mnt, "f")), b"by fstab", "contents")
    run("umount", mnt)
    settle(mnt)
    vol.check()


@case()
def installed(env):
    """
    "make install" puts the mount helper where mount(8) looks for it, and "make uninstall" leaves
    nothing.
    """
    need("make")
    if not os.path.exists(os.path.join(BUILD, "Makefile")):
        raise Skip("there is no Makefile: the program under test is not in a build tree")
    dest = env.mkdir("dest")
    run("make", "-s", "install", f"DESTDIR={dest}", cwd=BUILD)
    files = {}
    for d, _, names in os.walk(dest):
        files.update((n, os.path.join(d, n)) for n in names)
    for name in ("fusedio", "fusedioctl", "mount.fusedio", "fusedio.8", "fusedioctl.8",
                 "mount.fusedio.8", "fusedio@.service", "fsck.fusedio", "fsck.fuse.fusedio",
                 "srv-db.conf.example"):
        expect(name in files, f"{name} is not installed")
    prefix = os.path.dirname(os.path.dirname(files["fusedio"]))[len(dest):]
    if prefix in ("/usr", "/usr/local"):
        expect_eq(files["mount.fusedio"], dest + "/sbin/mount.fusedio", "place of the mount helper")
    target = os.readlink(files["mount.fusedio"])
    expect_eq(dest + target, files["fusedio"], "what the mount helper is a link to")
    run(files["fsck.fusedio"], "-n", env.volume(16).file)
    run("make", "-s", "uninstall", f"DESTDIR={dest}", cwd=BUILD)
    left = [n for _, _, names in os.walk(dest) for n in names]
    expect_eq(left, [], "what is left after make uninstall")


@case()
def unit(env):
    """The unit passes systemd-analyze verify and has no option that would hide the mount."""
    path = os.path.join(BUILD, "contrib/systemd/fusedio@.service")
    if not os.path.exists(path):
        path = None
        for d, _, files in os.walk(os.path.join(BUILD, "contrib")):
            for f in files:
                if f.endswith("@.service"):
                    path = os.path.join(d, f)
    expect(path is not None, "no unit was built")
    with open(path) as f:
        text = f.read()
    limit = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.M).group(1))
    expect(
        limit > 11 * 30,
        "the service manager is less patient than the daemon (drain_timeout= and ten times that)")
    expect("ExecStart=" in text and "@sbindir@" not in text, "the unit is not filled in")
    for word in ("PrivateTmp=", "ProtectSystem=", "PrivateDevices=", "PrivateMounts="):
        expect(not re.search("^" + word, text, re.M), f"{word} would hide the mount")
    if run("sh", "-c", "command -v systemd-analyze", ok=None).returncode:
        expect(text.count("[Service]") == 1, "no service section")
        return
    copy = env.path("fusedio@test.service")
    write_file(copy, re.sub(r"^ExecStart=\S+", "ExecStart=" + FUSEDIO, text, flags=re.M).encode())
    p = run("systemd-analyze", "verify", "--man=no", copy, ok=None, timeout=120)
    complaints = [line for line in p.stderr.splitlines() if "fusedio" in line]
    expect_eq(complaints, [], "what systemd-analyze says")


@case(kinds=("loop",))
def by_label_and_uuid(env):
    vol = env.volume(64, "-L", f"fdio{os.getpid()}", "-U", "random")
    uuid = vol.super()["Filesystem UUID"]
    for spec in (f"UUID={uuid}", f"LABEL=fdio{os.getpid()}"):
        mnt = env.mkdir()
        env.undo.callback(run, "umount", "-l", mnt, ok=None)
        run(FUSEDIO, spec, mnt)
        expect(mountinfo(mnt) is not None, f"{spec}: nothing is mounted")
        run("umount", mnt)
        settle(mnt)
    vol.check()


@case(kinds=("loop",))
def fstrim(env):
    """fstrim returns free blocks to the storage below the device."""
    need("fstrim")
    vol = env.volume(128, "-b", "4096")
    with vol.mount() as m:
        write_file(m.path("big"), b"x" * (64 << 20), sync=True)
        before = os.stat(vol.file).st_blocks
        full = os.statvfs(m.point).f_bfree
        os.unlink(m.path("big"))
        # The kernel tells a FUSE server some time after unlink that the file is no longer open.
        wait_for(lambda: os.statvfs(m.point).f_bfree > full + 16_000,
                 "the blocks of the removed file")
        p = run("fstrim", m.point, ok=None)
        if p.returncode != 0 and "not supported" in p.stderr:
            raise Skip("this kernel does not pass FITRIM on")
        expect_eq(p.returncode, 0, f"status of fstrim ({p.stderr.strip()})")
        expect(os.stat(vol.file).st_blocks < before - 100_000, "the image did not shrink")
    vol.check()


if __name__ == "__main__":
    main()
