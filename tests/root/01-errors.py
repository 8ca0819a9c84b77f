#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A volume that cannot be mounted is refused: one line names the reason, the exit status is not 0, and
no mount is left, nor ever seen.
"""
import os

from lib import (FUSEDIO, MIB, case, daemons_of, expect, expect_eq, main, mountinfo, never_mounted,
                 read_file, run, wait_for, write_file)

BOTH = ("image", "loop")


def refused(env, target, *words, opts=(), mnt=None):
    """
    fusedio must print one line with one of these words in it, and end with a status other than 0.
    """
    mnt = mnt or env.mkdir()
    with never_mounted(mnt):
        p = run(FUSEDIO, *(["-o", ",".join(opts)] if opts else []), target, mnt, ok=None,
                timeout=60)
    if p.returncode == 0:
        run("umount", "-l", mnt, ok=None)
    expect(p.returncode > 0, f"exit status {p.returncode}")
    lines = p.stderr.strip().splitlines()
    expect_eq(len(lines), 1, f"lines of {p.stderr!r}")
    expect(p.stdout == "", f"output {p.stdout!r}")
    expect(lines[0].startswith("fusedio: "), f"no name in {lines[0]!r}")
    expect(not words or any(w in lines[0].lower() for w in words),
           f"none of {words} in {lines[0]!r}")
    expect(mountinfo(mnt) is None, "a mount is left behind")


@case(kinds=BOTH)
def not_ext4(env):
    vol = env.volume(16, fresh=False)
    refused(env, vol.target, "ext4")


@case(kinds=BOTH)
def other_file_system(env):
    vol = env.volume(16, fresh=False)
    write_file(vol.file,
               b"\xeb\x3c\x90mkfs.fat" + b"\0" * 499 + b"\x55\xaa" + b"\0" * (16 * MIB - 512))
    refused(env, vol.target, "ext4")


@case()
def missing(env):
    refused(env, env.path("nothing-here"), "no such file")


@case()
def missing_with_nofail(env):
    """
    With nofail, a device that is missing is no error and causes no message; other faults still are
    errors.
    """
    for spec in (env.path("nothing-here"), "UUID=00000000-1111-2222-3333-444444444444",
                 env.path("no/such/directory")):
        mnt = env.mkdir()
        p = run(FUSEDIO, "-o", "noatime,nofail", spec, mnt, ok=None)
        expect_eq((p.returncode, p.stdout, p.stderr), (0, "", ""), f"{spec}: status and output")
        expect(mountinfo(mnt) is None, "something is mounted")
    refused(env, env.volume(16, fresh=False).target, "ext4", opts=["nofail"])


@case(params=("empty", "long", "two-lines"))
def odd_name(env, which):
    """The message is one line that gives the reason, whatever bytes the device's name has."""
    if which == "empty":
        refused(env, "", "is empty")
    elif which == "long":
        refused(env, env.path("x" * 3000), "too long")
    else:
        refused(env, env.path("two\nlines"), "no such file")
        refused(env, env.volume(16).target, "no such file", mnt=env.path("two\nlines"))


@case()
def names_are_escaped(env):
    """
    Strings from the command line and from the image are escaped in the log and on the terminal.
    """
    evil = "e\n\x1b[31m\x9b\u202e"
    refused(env, env.path(evil), "\\x0a\\x1b[31m\\xc2\\x9b\\xe2\\x80\\xae")
    vol = env.volume(16, "-O", "mmp,^metadata_csum", "-E", "mmp_update_interval=1")
    with open(vol.file, "r+b") as f:
        f.seek(1024 + 0x168)  # s_mmp_block
        at = int.from_bytes(f.read(8), "little") * int(vol.super()["Block size"])
        f.seek(at + 4)
        f.write(b"\x01\0\0\0" + bytes(8) + b"host\n\x1b]0;x\x07\xffend".ljust(64, b"\0"))
    path = env.path(evil)
    os.rename(vol.file, path)
    vol.file = path
    m = vol.mount(ok=False)
    wait_for(lambda: b"watching it" in read_file(m.log) or m.proc.poll() is not None,
             "the line about the host")
    m.kill()  # else it would watch for some seconds
    log = read_file(m.log)
    expect(b"by host host\\x0a\\x1b]0;x\\x07\\xffend" in log,
           f"the host is not there, or not escaped: {log!r}")
    expect(all(32 <= c < 127 for c in log.replace(b"\n", b"")), f"the log holds {log!r}")
    expect(all(line.startswith(b"fusedio: ") for line in log.splitlines()),
           f"lines of the log: {log!r}")


@case()
def directory(env):
    refused(env, env.mkdir("dir"), "directory", "neither", "not a")


@case()
def character_device(env):
    refused(env, "/dev/null", "block device", "not a", "neither")


@case()
def too_small(env):
    small = env.path("small")
    write_file(small, b"\0" * 1000)
    refused(env, small, "small", "ext4", "short")


@case(kinds=BOTH)
def cut_short(env):
    """A device that is smaller than its file system is refused."""
    vol = env.volume(64, "-O", "^resize_inode")
    if vol.dev:
        vol.detach()
    os.truncate(vol.file, 40 * MIB)
    if vol.kind == "loop":
        vol.attach()
    refused(env, vol.target, "beyond", "larger", "small", "short", "end")


@case()
def broken_superblock(env):
    vol = env.volume(64)
    with open(vol.file, "r+b") as f:
        f.seek(1024 + 100)
        f.write(b"\xa5\xa5\xa5\xa5")
    refused(env, vol.target, "superblock", "checksum", "e2fsck", "feature")


@case(kinds=("loop",))
def mounted_by_kernel(env):
    vol = env.volume(64)
    with vol.kmount() as k:
        refused(env, vol.target, "mounted", "in use", "busy")
        os.listdir(k)


@case(kinds=("loop",))
def image_mounted_through_loop_device(env):
    """
    An image that the kernel has mounted through a loop device is refused, although it is not
    locked.
    """
    vol = env.volume(64)
    with vol.kmount() as k:
        refused(env, vol.file, vol.dev)
        os.listdir(k)
    with vol.mount():
        refused(env, vol.file, vol.dev)
    vol.detach()
    mnt = env.mkdir()
    run(FUSEDIO, vol.file, mnt)
    run("umount", mnt)


@case()
def image_served_below_loop_device(env):
    """A loop device over an image that fusedio serves is refused: it would be served twice."""
    def loop_over(path, *args):
        dev = run("losetup", "--find", "--show", *args, path).stdout.strip()
        env.undo.callback(run, "losetup", "-d", dev, ok=None)
        return dev

    vol = env.volume(64)
    with vol.mount():
        dev = loop_over(vol.file)
        refused(env, dev, "is made from " + vol.file.lower())
        refused(env, loop_over(dev), "is made from " + vol.file.lower(), opts=("ro",))
    mnt = env.mkdir()
    with vol.mount("ro"):
        refused(env, dev, "is made from " + vol.file.lower())
        run(FUSEDIO, "-o", "ro,norecovery", dev, mnt)
        run("umount", mnt)
    # The backing file's name now leads to another file, which is served: the check must not go by
    # the name.
    other = env.volume(64)
    with other.mount():
        run("mount", "--bind", other.file, vol.file)
        env.undo.callback(run, "umount", vol.file, ok=None)
        run(FUSEDIO, dev, mnt)
        run("umount", mnt)
        run("umount", vol.file)
    wait_for(lambda: not daemons_of(dev), "end of the daemon")
    other.check()
    vol.check()


@case(kinds=BOTH)
def root_is_no_directory(env):
    """This is found after the kernel has claimed the device; even then no mount is seen."""
    vol = env.volume(64)
    run("debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", vol.target)
    for _ in range(5):
        refused(env, vol.target, "root")


@case(kinds=BOTH)
def mount_point_vanishes(env):
    """The mount point is removed while the daemon starts: all that it did is undone in order."""
    vol = env.volume(64, "-O", "mmp", "-E", "mmp_update_interval=1")
    vol.mount().kill()
    mnt = env.mkdir()
    m = vol.mount(ok=False, point=mnt)
    wait_for(lambda: b"watching it" in read_file(m.log), "the wait for another host")
    os.rmdir(mnt)
    expect_eq(m.wait(), 32, "exit status")
    log = read_file(m.log)
    expect(b"cannot mount on" in log and b"No such file" in log, f"it says {m.tail()}")
    vol.check()


@case(kinds=BOTH)
def served_already(env):
    vol = env.volume(64)
    with vol.mount() as m:
        refused(env, vol.target, "in use", "mounted", "busy", "locked")
        expect_eq(os.listdir(m.point), ["lost+found"], "names in the first mount")
    vol.check()


@case()
def mount_point_missing(env):
    refused(env, env.volume(16).target, "mount point", "no such file", "mountpoint",
            mnt=env.path("nowhere"))


@case()
def mount_point_is_a_file(env):
    p = env.path("file")
    write_file(p, b"")
    refused(env, env.volume(16).target, "directory", "mount point", "mountpoint", mnt=p)


@case()
def unknown_option(env):
    refused(env, env.volume(16).target, "no-such-option", opts=["no-such-option=1"])


@case(params=("commit=abc", "errors=perhaps", "dio=maybe", "commit=-1"))
def bad_value(env, option):
    refused(env, env.volume(16).target, option.split("=")[0], opts=[option])


@case()
def missing_arguments(env):
    for argv in ((), ("only-a-device",), ("a", "b", "c")):
        p = run(FUSEDIO, *argv, ok=None)
        expect(p.returncode not in (0, None), f"{argv} was accepted")
        expect(p.stderr.strip() != "", f"{argv}: no message")


@case(params=("encrypt", "casefold", "verity", "journal_dev"))
def feature(env, name):
    """Features that fusedio does not support are named, or the volume is served read-only."""
    vol = env.volume(64, fresh=False)
    p = run("mke2fs", "-q", "-F", "-t", "ext4", "-O", name, vol.file, ok=None)
    if p.returncode != 0:
        expect(False, f"mke2fs -O {name}: {p.stderr.strip()}")
    mnt = env.mkdir()
    p = run(FUSEDIO, vol.target, mnt, ok=None)
    if p.returncode == 0:  # serving the volume read-only is right too
        options = mountinfo(mnt)[3].split(",")
        run("umount", mnt)
        expect("ro" in options, f"{name} is served read-write")
        return
    expect_eq(len(p.stderr.strip().splitlines()), 1, f"lines of {p.stderr!r}")
    expect(name in p.stderr or "external journal" in p.stderr, f"no {name} in {p.stderr!r}")


if __name__ == "__main__":
    main()
