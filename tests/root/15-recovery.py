#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
fusedio replays journals that the kernel left, and the kernel those of fusedio; read-only mounts
leave no trace.
"""
import hashlib
import os

import tree
from lib import (Skip, case, expect, expect_eq, main, mountinfo, pattern, read_file, run, wait_for,
                 write_file)

BOTH = ("image", "loop")


def sha(path):
    return hashlib.sha256(read_file(path)).hexdigest()


def dirty_by_kernel(env, *mkfs, options="commit=300", late=0):
    """
    Returns a copy of a file system, taken while the kernel has it mounted and its journal is not
    empty, and the contents of the files for which fsync returned there.
    """
    vol = env.volume(128, "-b", "4096", *mkfs)
    promised = {}
    with vol.kmount(options) as k:
        os.mkdir(os.path.join(k, "d"))
        for i in range(400):
            p = os.path.join(k, "d", f"f{i}")
            write_file(p, pattern(3000 + i, i), sync=i % 10 == 0)
            if i % 10 == 0:
                promised[f"d/f{i}"] = pattern(3000 + i, i)
        for i in range(1, 400, 2):
            os.unlink(os.path.join(k, "d", f"f{i}"))
        os.rename(os.path.join(k, "d", "f2"), os.path.join(k, "renamed"))
        fd = os.open(os.path.join(k, "d"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        for i in range(late):
            promised[f"late{i}"] = pattern(3000 + i, i)
            write_file(os.path.join(k, f"late{i}"), promised[f"late{i}"], sync=True)
        # Copies to the file what the kernel wrote to the loop device, without syncing the file
        # system.
        dev = mountinfo(k)[2]
        run("dd", f"if={dev}", "of=/dev/null", "bs=1M", "count=1")
        copy = vol.copy()
    expect("needs_recovery" in copy.super()["Filesystem features"],
           "the copy has nothing to recover")
    return copy, promised


def replays(vol, promised):
    """A mount replays what dirty_by_kernel left, and the volume can then be written."""
    with vol.mount() as m:
        for p, data in promised.items():
            expect(read_file(m.path(p)) == data, f"{p} differs after replay")
        expect(not os.path.exists(m.path("d/f1")), "a file removed and synced is back")
        write_file(m.path("new"), pattern(10_000), sync=True)
    vol.check()


@case(params=("csum", "nocsum", "32bit"))
def kernel_journal(env, name):
    feature = {"csum": "metadata_csum", "nocsum": "^metadata_csum", "32bit": "^64bit"}[name]
    vol, promised = dirty_by_kernel(env, "-O", feature)
    replays(vol, promised)


def as_loop(env, vol):
    """Attaches the copy to a loop device if the case wants one; returns it."""
    if env.kind == "loop":
        vol.kind = "loop"
        vol.attach()
    return vol


@case(kinds=BOTH)
def fast_commit_journal(env):
    """
    A journal with fast commits in it is refused without changing anything, and the kernel recovers
    every file.
    """
    vol, promised = dirty_by_kernel(env, "-O", "fast_commit", late=20)
    before = sha(vol.file)
    as_loop(env, vol)
    m = vol.mount(ok=False, point=env.mkdir())
    m.proc.wait(30)
    expect(m.proc.returncode == 32, f"exit status {m.proc.returncode}: {m.tail()}")
    expect("fast commits" in m.tail() and "mount -t ext4" in m.tail(),
           f"no way out is named: {m.tail()}")
    expect_eq(sha(vol.file), before, "the image after the refusal")
    with vol.kmount() as k:
        for p, data in promised.items():
            expect(read_file(os.path.join(k, p)) == data, f"{p} differs after the kernel's replay")
    vol.check()
    with vol.mount() as m:
        write_file(m.path("new"), pattern(10_000), sync=True)
    vol.check()


@case(kinds=BOTH)
def fast_commit_without_any(env):
    """
    The feature fast_commit is on but the last commit was a full one, so there are no fast commits:
    fusedio replays the journal.
    """
    vol, promised = dirty_by_kernel(env, "-O", "fast_commit")
    as_loop(env, vol)
    replays(vol, promised)


@case()
def ours_on_fast_commit(env):
    """
    The kernel and e2fsck replay a journal that fusedio wrote on a file system with fast_commit.
    """
    vol = env.volume(64, "-b", "4096", "-O", "fast_commit")
    with vol.kmount() as k:
        for i in range(50):
            write_file(os.path.join(k, f"k{i}"), pattern(3000, i), sync=True)
    m = vol.mount("commit=300")
    for i in range(200):
        write_file(m.path(f"f{i}"), pattern(2000 + i, i), sync=i % 20 == 0)
    fd = os.open(m.point, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    m.kill()
    copy = vol.copy()
    with vol.kmount() as k:
        for i in range(0, 200, 20):
            expect(read_file(os.path.join(k, f"f{i}")) == pattern(2000 + i, i),
                   f"f{i} differs after the kernel's replay")
    vol.check()
    run("e2fsck", "-p", copy.file, ok=(0, 1))
    copy.check()
    with copy.mount() as m:
        for i in range(0, 200, 20):
            expect(read_file(m.path(f"f{i}")) == pattern(2000 + i, i), f"f{i} differs after e2fsck")
    copy.check()


@case(kinds=BOTH)
def old_checksums_go_to_e2fsck(env):
    """
    A journal with checksums of version 1 is replayed by e2fsck, which fusedio runs before it
    mounts.
    """
    vol, promised = dirty_by_kernel(env, "-O", "^metadata_csum",
                                    options="commit=300,journal_checksum")
    if "journal_checksum" not in run("dumpe2fs", "-h", vol.file).stdout:
        raise Skip("this kernel writes no such checksums")
    as_loop(env, vol)
    with vol.mount() as m:
        expect("e2fsck" in m.tail(), f"e2fsck was not run: {m.tail()}")
        for p, data in promised.items():
            expect(read_file(m.path(p)) == data, f"{p} differs after replay")
        write_file(m.path("new"), pattern(10_000), sync=True)
    vol.check()


@case(kinds=BOTH)
def read_only_replays(env):
    """
    A read-only mount replays the journal too, as the kernel does, and leaves nothing to recover.
    """
    vol, promised = dirty_by_kernel(env)
    as_loop(env, vol)
    with vol.mount("ro") as m:
        expect("ro" in mountinfo(m.point)[3].split(","), "not mounted read-only")
        for p, data in promised.items():
            expect(read_file(m.path(p)) == data, f"{p} differs after replay")
    expect("needs_recovery" not in vol.super()["Filesystem features"], "not replayed")
    vol.check()


@case()
def dirty_read_only_device(env):
    """
    A read-only device with a journal to replay is served only with norecovery, as by the kernel.
    """
    vol, _ = dirty_by_kernel(env)
    before = sha(vol.file)
    vol.kind = "loop"
    vol.attach(readonly=True)
    for options in ((), ("ro",)):
        m = vol.mount(*options, ok=False)
        expect_eq(m.wait(), 32, f"status with {options}")
        expect("norecovery" in m.tail(), f"the way out is not named: {m.tail()}")
    with vol.mount("norecovery") as m:
        expect("ro" in mountinfo(m.point)[3].split(","), "a read-only device is mounted read-write")
        os.listdir(m.point)
    expect_eq(sha(vol.file), before, "the image")


@case(kinds=BOTH)
def our_journal_by_the_kernel(env):
    vol = env.volume(128, "-b", "4096")
    m = vol.mount("commit=300")
    os.mkdir(m.path("d"))
    for i in range(300):
        write_file(m.path("d", f"f{i}"), pattern(2000 + i, i))
    for i in range(0, 300, 2):
        os.unlink(m.path("d", f"f{i}"))
    fd = os.open(m.path("d"), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    m.kill()
    expect("needs_recovery" in vol.super()["Filesystem features"], "nothing to recover")
    with vol.kmount() as k:
        names = sorted(os.listdir(os.path.join(k, "d")))
        expect_eq(len(names), 150, "names after replay by the kernel")
    vol.check()


@case(kinds=BOTH)
def revoked_blocks(env):
    """
    A block of a directory becomes one of a file: replay must not write the directory's contents
    over it.
    """
    vol = env.volume(32, "-b", "1024")
    m = vol.mount("commit=300")
    for turn in range(12):
        os.mkdir(m.path("d"))
        for i in range(300):
            write_file(m.path("d", f"some-name-{i}"), b"")
        for i in range(300):
            os.unlink(m.path("d", f"some-name-{i}"))
        os.rmdir(m.path("d"))
        write_file(m.path(f"data{turn}"), pattern(1_500_000, turn), sync=True)
    m.kill()
    copy = vol.copy()
    with vol.mount() as m:
        for turn in range(12):
            expect(read_file(m.path(f"data{turn}")) == pattern(1_500_000, turn),
                   f"data{turn} differs after replay")
    vol.check()
    with copy.kmount() as k:
        for turn in range(12):
            expect(read_file(os.path.join(k, f"data{turn}")) == pattern(1_500_000, turn),
                   f"data{turn} differs after the kernel's replay")
    copy.check()


@case(kinds=BOTH)
def damaged_journal(env):
    """
    If a transaction in the middle of the log is damaged, the mount is refused, the message names
    the command to run, and nothing is written.
    """
    vol = env.volume(64, "-b", "4096", "-O", "metadata_csum")
    m = vol.mount("commit=300")
    for i in range(8):
        write_file(m.path(f"f{i}"), pattern(2000 + i, i), sync=True)
    m.kill()
    log = [int(b) for b in run("debugfs", "-R", "blocks <8>", vol.file).stdout.split()]
    with open(vol.file, "r+b") as f:
        f.seek(log[0] * 4096 + 0x1c)
        start = int.from_bytes(f.read(4), "big")
        expect(start > 0, "the log is empty")
        f.seek(log[start + 1] * 4096 + 100)  # the first image of the first transaction
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes((byte[0] ^ 0xff,)))
    before = sha(vol.file)
    m = vol.mount(ok=False, point=env.mkdir())
    m.proc.wait(30)
    expect(m.proc.returncode == 32, f"exit status {m.proc.returncode}: {m.tail()}")
    expect("journal" in m.tail() and "e2fsck" in m.tail(), f"no way out is named: {m.tail()}")
    expect_eq(sha(vol.file), before, "the image after the refusal")
    run("e2fsck", "-fy", vol.file, ok=(0, 1))
    with vol.mount() as m:
        os.listdir(m.point)
    vol.check()


@case()
def norecovery(env):
    """A mount with ro,norecovery changes not one byte."""
    vol, _ = dirty_by_kernel(env)
    before = sha(vol.file)
    with vol.mount("ro,norecovery") as m:
        os.listdir(m.point)
        expect("ro" in mountinfo(m.point)[3].split(","), "not mounted read-only")
    expect_eq(sha(vol.file), before, "the image after ro,norecovery")


@case()
def read_only_leaves_no_trace(env):
    vol = env.volume(64)
    with vol.kmount() as k:
        tree.fill(k, 1024, extents=20, entries=100)
    before = sha(vol.file)
    with vol.mount("ro") as m:
        tree.scan(m.point)
    expect_eq(sha(vol.file), before, "the image after a read-only mount of a clean file system")


@case()
def read_only_device(env):
    vol = env.volume(64)
    with vol.kmount() as k:
        write_file(os.path.join(k, "f"), pattern(10_000))
    vol.kind = "loop"
    vol.attach(readonly=True)
    m = vol.mount(ok=False)
    wait_for(lambda: m.served() or m.proc.poll() is not None, "an answer")
    if m.proc.poll() is None:
        expect("ro" in mountinfo(m.point)[3].split(","), "a read-only device is mounted read-write")
        expect_eq(read_file(m.path("f")), pattern(10_000), "contents")
        m.umount()
    else:
        expect(m.proc.returncode > 0 and ("read-only" in m.tail().lower()),
               f"not the reason: {m.tail()}")
    with vol.mount("ro") as m:
        expect_eq(read_file(m.path("f")), pattern(10_000), "contents with ro")


@case(kinds=BOTH, params=((), ("ro",)))
def orphans(env, options):
    """
    Files that were deleted but open when the daemon was killed are gone after recovery, also by a
    read-only mount, and their blocks are free.
    """
    vol = env.volume(64, "-b", "4096")
    m = vol.mount()
    free = os.statvfs(m.point).f_bfree
    fds = []
    for i in range(20):
        fd = os.open(m.path(f"f{i}"), os.O_CREAT | os.O_RDWR)
        os.write(fd, pattern(500_000, i))
        os.fsync(fd)
        os.unlink(m.path(f"f{i}"))
        fds.append(fd)
    d = os.open(m.point, os.O_RDONLY)
    os.fsync(d)
    os.close(d)
    m.proc.kill()
    m.wait()
    for fd in fds:
        os.close(fd)
    run("umount", "-l", m.point)
    with vol.mount(*options) as m:
        expect_eq(sorted(os.listdir(m.point)), ["lost+found"], "names")
        expect(os.statvfs(m.point).f_bfree >= free - 10, "blocks of deleted files are still taken")
    vol.check()


@case()
def needs_e2fsck(env):
    """A file system with the error flag set is not served read-write without a warning."""
    vol = env.volume(64)
    run("debugfs", "-w", "-R", "ssv state 2", vol.file)
    m = vol.mount(ok=False)
    wait_for(lambda: m.served() or m.proc.poll() is not None, "an answer")
    if m.proc.poll() is None:
        rw = "ro" not in mountinfo(m.point)[3].split(",")
        m.umount()
        expect(not rw or "e2fsck" in m.tail(), "served read-write, and nothing was said")
    elif m.proc.returncode == 0:
        raise Skip("ended by itself")
    else:
        expect("e2fsck" in m.tail(), f"no way out is named: {m.tail()}")


if __name__ == "__main__":
    main()
