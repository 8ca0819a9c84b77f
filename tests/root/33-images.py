#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Images that other systems made: features that are served read-only, settings in the superblock, and
devices that hold no ext4.
"""
import bz2
import errno
import gzip
import lzma
import mmap
import os
import re

from lib import (BUILD, FUSEDIO, HERE, MIB, case, expect, expect_eq, expect_errno, main, pattern,
                 read_file, run, wait_for, write_file)
from tree import differences, scan


def fill_inline(k):
    """
    Makes files, directories and links that fit into their inodes, that just do not, or that once
    did.
    """
    for n in (0, 1, 59, 60, 61, 100, 130, 150, 158, 159, 160, 161, 170, 4096, 9000):
        write_file(os.path.join(k, f"file{n}"), pattern(n, n + 1))
    for n in (1, 59, 60, 90, 150, 400):
        os.symlink("t" * n, os.path.join(k, f"link{n}"))
    for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 40):
        d = os.path.join(k, f"dir{n}")
        os.mkdir(d)
        for i in range(n):
            write_file(os.path.join(d, f"name{i}" + "x" * (i % 3)), b"%d" % i)
        if n > 2:
            os.unlink(os.path.join(d, "name1x"))
            os.mkdir(os.path.join(d, "sub"))
            write_file(os.path.join(d, "sub", "deep"), pattern(70))
    write_file(os.path.join(k, "beside"), pattern(80))
    os.setxattr(os.path.join(k, "beside"), "user.a", b"v" * 20)
    os.setxattr(os.path.join(k, "beside"), "user.large", b"w" * 700)
    write_file(os.path.join(k, "grown"), b"short")
    os.truncate(os.path.join(k, "grown"), 100_000)
    write_file(os.path.join(k, "shrunk"), pattern(140))
    os.truncate(os.path.join(k, "shrunk"), 20)


def direct(path):
    """The contents of a file by direct reads, one page at a time."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    out = b""
    try:
        while n := os.preadv(fd, [page], len(out)):
            out += page[:n]
    finally:
        os.close(fd)
    return out


@case(params=("-I 256 -b 1024", "-I 256 -b 4096 -O ^metadata_csum", "-I 1024 -b 4096"))
def inline_data(env, how):
    """fusedio shows the tree as the kernel does."""
    vol = env.volume(32, "-O", "inline_data", "-J", "size=4", *how.split())
    with vol.kmount() as k:
        fill_inline(k)
    with vol.kmount("ro") as k:
        want = scan(k)
        contents = {n: read_file(os.path.join(k, n)) for n in os.listdir(k)
                    if n.startswith(("file", "grown", "shrunk"))}
    with vol.mount() as m:
        diff = differences(want, scan(m.point))
        expect(not diff, "; ".join(diff))
        for n, data in contents.items():
            expect_eq(read_file(m.path(n)), data, n)
            expect_eq(direct(m.path(n)), data, f"{n}, O_DIRECT")
            if not data:
                continue
            with open(m.path(n), "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
                expect_eq(mm.read(), data, f"{n}, mapped")
        expect_eq(os.path.realpath(m.path("dir5", "sub", "..", "name0")), m.path("dir5", "name0"),
                  "parent")
        p = run(os.path.join(BUILD, "fusedioctl"), "map", m.path("file60"))
        expect(" 0 extents" in p.stdout, p.stdout)
    vol.check()



# ---- settings in the superblock

# All settings that tune2fs -o knows, and what fusedio does with each.
DEFAULTS = {
    "debug": "not honoured", "bsdgroups": "honoured", "user_xattr": "nothing", "acl": "nothing",
    "uid16": "not honoured", "journal_data": "not honoured", "journal_data_ordered": "nothing",
    "journal_data_writeback": "nothing", "nobarrier": "not honoured", "block_validity": "nothing",
    "discard": "honoured", "nodelalloc": "nothing",
}
# Mount options in the superblock (tune2fs -E mount_opts): those that the kernel's ext4 knows, and
# some that it does not.
LIST = {
    "acl": "nothing", "noacl": "honoured", "user_xattr": "nothing", "nouser_xattr": "honoured",
    "grpid": "honoured", "nogrpid": "nothing", "bsdgroups": "honoured", "sysvgroups": "nothing",
    "commit=9": "honoured", "discard": "honoured", "nodiscard": "nothing",
    "errors=continue": "honoured", "errors=remount-ro": "honoured", "norecovery": "honoured",
    "noload": "honoured", "resuid=1001": "honoured", "resgid=1002": "honoured",
    "commit=9999": "not honoured", "resuid=x": "not honoured", "data=journal": "not honoured",
    "data=ordered": "nothing", "data=writeback": "nothing", "nobarrier": "not honoured",
    "barrier": "nothing", "delalloc": "nothing", "nodelalloc": "nothing",
    "auto_da_alloc": "nothing", "dioread_nolock": "nothing", "block_validity": "nothing",
    "journal_checksum": "nothing", "journal_async_commit": "nothing", "init_itable=10": "nothing",
    "stripe=16": "nothing", "max_batch_time=1": "nothing", "inode_readahead_blks=8": "nothing",
    "data_err=abort": "not honoured", "max_dir_size_kb=8": "not honoured",
    "usrquota": "not honoured", "dax": "not honoured", "debug": "not honoured",
    "minixdf": "not honoured", "nouid32": "not honoured", "i_version": "not honoured",
    "no-such-option": "not honoured",
    # an image must not set options of the mount or of the daemon
    "suid": "not honoured", "dev": "not honoured", "exec": "not honoured",
    "allow_other": "not honoured", "sandbox=off": "not honoured", "log=err": "not honoured",
    "mlock": "not honoured", "workers=256": "not honoured", "fsname=x": "not honoured",
    "ro": "not honoured", "sync": "not honoured", "readahead=4": "not honoured",
}


def told(m, name):
    """What the log says of a setting: "honoured", "not honoured", or nothing."""
    with open(m.log, errors="replace") as f:
        lines = [line for line in f if "superblock ask" in line]
    expect(len(lines) <= 1, f"{name}: {lines}")
    if not lines:
        return "nothing"
    expect(name in lines[0], f"no {name} in {lines[0]!r}")
    return "not honoured" if "not honoured" in lines[0] else "honoured"


def manual():
    """The settings in the table of the manual page."""
    text = read_file(os.path.join(HERE, "../../man/fusedio.8")).decode()
    text = text[text.index(".Ss Settings in the superblock"):text.index(".Sh DURABILITY")]
    lines = re.findall(r"^\.It Fl o Cm (.*) Ta", text, re.M)
    return {n for line in lines for n in line.split(", ")}


@case(params=("-o", "-E mount_opts"), timeout=240)
def every_setting(env, how):
    """
    Each setting is honoured, reported as not honoured, or needs nothing, as the manual page says.
    """
    vol = env.volume(16, "-O", "^has_journal", "-N", "64")
    if how == "-o":
        expect_eq(manual(), set(DEFAULTS), "settings in the manual page")
    base = read_file(vol.file)
    for name, want in (DEFAULTS if how == "-o" else LIST).items():
        write_file(vol.file, base)
        if how == "-o":
            run("tune2fs", "-o", "^acl,^user_xattr," + name, vol.file)
        else:
            run("tune2fs", "-o", "^acl,^user_xattr", "-E", "mount_opts=" + name, vol.file)
        with vol.mount("transport=devfuse") as m:
            expect_eq(told(m, name), want, name)


@case()
def settings_work(env):
    """Each setting that is honoured has its effect, and options on the command line override it."""
    vol = env.volume(32, "-N", "512")
    run("tune2fs", "-o", "bsdgroups,discard", vol.file)
    with vol.mount("commit=1") as m:
        write_file(m.path("f"), b"x" * (8 << 20), sync=True)
        used = os.stat(vol.file).st_blocks
        os.unlink(m.path("f"))
        os.sync()
        wait_for(lambda: os.stat(vol.file).st_blocks < used - 8000, "blocks are discarded")
    asked = "nouser_xattr,discard,nodiscard"
    run("debugfs", "-w", "-R", "set_super_value mount_opts " + asked, vol.file)
    with vol.mount() as m:
        with open(m.log, errors="replace") as f:
            log = f.read()
        for words in ("nouser_xattr, as", "bsdgroups, as"):
            expect(words in log, f"no {words!r} in {log!r}")
        os.mkdir(m.path("d"))
        os.chown(m.path("d"), 0, 77)
        os.mkdir(m.path("d", "sub"))
        expect_eq(os.stat(m.path("d", "sub")).st_gid, 77, "group of a new directory")
        with expect_errno(errno.EOPNOTSUPP):
            os.setxattr(m.path("d"), "user.a", b"1")
    with vol.mount("nogrpid,user_xattr") as m:
        os.mkdir(m.path("d", "other"))
        expect_eq(os.stat(m.path("d", "other")).st_gid, 0, "group of a new directory")
        os.setxattr(m.path("d"), "user.a", b"1")
    vol.check()


def as_user(uid, gid, fn):
    """Runs fn in a child process with these ids; the number of the error it fails with, or 0."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            fn()
            code = 0
        except OSError as e:
            code = e.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def append(path, n):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"x" * n)
        os.fsync(fd)
    finally:
        os.close(fd)


@case()
def reserved_blocks(env):
    """
    Only the user and the group that the superblock names, or those that the options name, may use
    the reserved blocks.
    """
    vol = env.volume(16, "-b", "1024", "-m", "20", "-J", "size=1")
    run("tune2fs", "-u", "1001", "-g", "1002", vol.file)
    with vol.mount("allow_other") as m:
        os.chmod(m.point, 0o777)
        for n in range(8):
            write_file(m.path(f"f{n}"), b"")
            os.chmod(m.path(f"f{n}"), 0o666)
        with open(m.path("f0"), "r+b") as f:
            f.truncate(32 * MIB)
            left = os.statvfs(m.point).f_bavail
            os.posix_fallocate(f.fileno(), 0, (left + 200) * 1024)  # root may use the reserve
        expect_eq(as_user(1000, 1000, lambda: append(m.path("f1"), 9000)), errno.ENOSPC,
                  "a stranger")
        expect_eq(as_user(1001, 1000, lambda: append(m.path("f2"), 9000)), 0, "the user")
        expect_eq(as_user(1000, 1002, lambda: append(m.path("f3"), 9000)), 0, "of the group")
        expect_eq(as_user(1001, 1000, lambda: os.mkdir(m.path("dir"))), 0, "the user creates")
        expect_eq(as_user(1000, 1000, lambda: os.mkdir(m.path("dir2"))), errno.ENOSPC,
                  "a stranger creates")
    with vol.mount("allow_other,resuid=1003,resgid=0") as m:
        expect_eq(as_user(1001, 1002, lambda: append(m.path("f4"), 9000)), errno.ENOSPC,
                  "not any more")
        expect_eq(as_user(1003, 1000, lambda: append(m.path("f5"), 9000)), 0, "by the option")
    vol.check()


# ---- no file system at all

def refusal(env, path, *words):
    """
    Returns the line with which fusedio refuses the device; nothing may have been written to it.
    """
    before = read_file(path)
    mnt = env.mkdir()
    p = run(FUSEDIO, path, mnt, ok=(32,))
    lines = p.stderr.strip().splitlines()
    expect_eq(len(lines), 1, f"lines of {p.stderr!r}")
    for w in words:
        expect(w in lines[0], f"no {w!r} in {lines[0]!r}")
    expect(read_file(path) == before, "it was changed")
    return lines[0]


OTHERS = {
    "qcow2": (b"QFI\xfb\0\0\0\3", "qcow2"),
    "sparse": (b"\x3a\xff\x26\xed\1\0\0\0", "Android"),
    "gzip": (gzip.compress(b"x"), "gzip"),
    "xz": (lzma.compress(b"x"), "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\4\0", "zstd"),
    "bzip2": (bz2.compress(b"x"), "bzip2"),
    "vhdx": (b"vhdxfile", "VHDX"),
    "zip": (b"PK\3\4", "zip"),
    "unknown": (b"something", "not empty"),
}


@case(params=tuple(OTHERS))
def other_formats(env, name):
    """
    The message names the other format and says what to do, also if the device is smaller than a
    superblock.
    """
    head, word = OTHERS[name]
    path = env.path("image")
    for size in (100_000, 1500):
        write_file(path, head + b"\xa7" * size)
        if name == "unknown" and size < 2048:
            continue
        line = refusal(env, path, word)
        expect("mke2fs" not in line, line)


@case()
def empty(env):
    """
    Formatting is suggested only if the whole device is empty; a device may begin with zeroes and
    hold data.
    """
    path = env.volume(64, fresh=False).file
    refusal(env, path, "ext4", "zeroes", "mke2fs")
    with open(path, "r+b") as f:
        f.seek(48 << 20)
        f.write(pattern(1 << 20))
    line = refusal(env, path, "ext4", "not empty")
    expect("mke2fs" not in line, line)


@case(params=("1024", "4096"))
def superblock_gone(env, bs):
    """
    The message says that there is a backup of the superblock, and the command that it names
    restores it.
    """
    vol = env.volume(16 if bs == "1024" else 160, "-b", bs, "-J", "size=4")
    with vol.mount() as m:
        write_file(m.path("f"), pattern(50_000))
    with open(vol.file, "r+b") as f:
        f.write(bytes(4096))
    line = refusal(env, vol.file, "backup", "e2fsck -b")
    expect("mke2fs" not in line, line)
    run(*re.search(r"(e2fsck -b \d+ -B \d+) ", line).group(1).split(), "-y", vol.file, ok=(0, 1))
    with vol.mount() as m:
        expect_eq(read_file(m.path("f")), pattern(50_000), "contents")
    vol.check()


@case()
def partitions(env):
    """
    A whole disk with partitions is refused: the message says how to use a partition, and does not
    suggest formatting.
    """
    path = env.path("disk")
    entry = bytes((0, 0, 2, 0, 0x83, 0, 2, 0, 0, 8, 0, 0, 0, 64, 0, 0))
    write_file(path, bytes(446) + entry + bytes(48) + b"\x55\xaa" + bytes(16 * MIB))
    line = refusal(env, path, "partition", "losetup -P")
    expect("mke2fs" not in line, line)


if __name__ == "__main__":
    main()
