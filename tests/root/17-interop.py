#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
One file system is served in turn by fusedio and by the kernel; each leaves the journal clean or
dirty for the other.

FDIO_SEED=n chooses other workloads.
"""
import contextlib
import errno
import os
import random

from lib import (FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, Fail, case, copy_elsewhere, expect, expect_eq,
                 expect_errno, fallocate, kernel_umount, main, pattern, read_file, run, wait_for,
                 write_file)

VARIANTS = {
    "4k-csum": ("-b", "4096", "-O", "metadata_csum,64bit", "-J", "size=4"),
    "1k-csum": ("-b", "1024", "-O", "metadata_csum,64bit", "-J", "size=1"),
    "4k-plain": ("-b", "4096", "-O", "^metadata_csum,64bit", "-J", "size=4"),
    "1k-32bit": ("-b", "1024", "-O", "^metadata_csum,^64bit", "-J", "size=1"),
    "1k-values": ("-b", "1024", "-O", "ea_inode", "-J", "size=1"),
}
TURNS = 30
OPS = 120
DIRS = ("d0", "d1", "d2")


class Model:
    """
    The expected contents of the file system: (contents, attribute) of each name. touched holds the
    names that changed since they were last durable.
    """

    def __init__(self, seed, attributes=(10, 60, 700)):  # in the inode, or in a block
        self.rng = random.Random(seed)
        self.attributes = attributes
        self.files = {}
        self.touched = set()
        self.serial = 0

    def name(self):
        return f"{self.rng.choice(DIRS)}/f{self.rng.randrange(16)}"

    def data(self):
        self.serial += 1
        top = 300_000 if self.rng.randrange(12) == 0 else 20_000
        return pattern(self.rng.randrange(1, top), self.serial)

    def step(self, root):
        """One random operation, first on the file system, then in the model."""
        name = self.name()
        path = os.path.join(root, name)
        if name not in self.files:
            self.write(name, path)
            return
        op = self.rng.choice((self.write, self.append, self.overwrite, self.truncate, self.punch,
                              self.rename, self.unlink, self.attribute, self.fsync, self.fsync,
                              self.churn))
        op(name, path)

    def write(self, name, path):
        data = self.data()
        self.touched.add(name)
        with open(path, "wb") as f:  # keeps the attribute if the file existed
            f.write(data)
        self.files[name] = (data, self.files.get(name, (None, None))[1])

    def append(self, name, path):
        data, attr = self.files[name]
        more = self.data()
        self.touched.add(name)
        with open(path, "ab") as f:
            f.write(more)
        self.files[name] = (data + more, attr)

    def overwrite(self, name, path):
        data, attr = self.files[name]
        at = self.rng.randrange(len(data) + 1)
        more = self.data()
        self.touched.add(name)
        with open(path, "r+b", buffering=0) as f:
            f.seek(at)
            f.write(more)
        self.files[name] = (data[:at] + more + data[at + len(more):], attr)

    def truncate(self, name, path):
        data, attr = self.files[name]
        size = self.rng.randrange(len(data) + 10_000)
        self.touched.add(name)
        os.truncate(path, size)
        self.files[name] = (data[:size] + bytes(max(0, size - len(data))), attr)

    def punch(self, name, path):
        data, attr = self.files[name]
        at, length = self.rng.randrange(len(data) + 1), self.rng.randrange(1, 30_000)
        self.touched.add(name)
        with open(path, "r+b", buffering=0) as f:
            fallocate(f.fileno(), FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, length)
        end = min(at + length, len(data))
        self.files[name] = (data[:at] + bytes(end - at) + data[end:], attr)

    def rename(self, name, path):
        to = self.name()
        if to == name:
            return
        self.touched.update((name, to))
        os.rename(path, os.path.join(os.path.dirname(os.path.dirname(path)), to))
        self.files[to] = self.files.pop(name)

    def unlink(self, name, path):
        self.touched.add(name)
        os.unlink(path)
        del self.files[name]

    def attribute(self, name, path):
        self.serial += 1
        value = pattern(self.rng.choice(self.attributes), self.serial)
        self.touched.add(name)
        os.setxattr(path, "user.a", value)
        self.files[name] = (self.files[name][0], value)

    def fsync(self, name, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.touched.discard(name)

    def churn(self, name, path):
        """Frees blocks of a directory, which files then get: the log must revoke them."""
        d = os.path.join(os.path.dirname(path), "dir")
        os.mkdir(d)
        for i in range(60):
            os.mknod(os.path.join(d, f"a-name-that-takes-some-room-{i}"))
        if self.rng.randrange(2):
            self.fsync(name, path)
        for i in range(60):
            os.unlink(os.path.join(d, f"a-name-that-takes-some-room-{i}"))
        os.rmdir(d)

    def settle(self, root, clean, what):
        """
        Compares the file system with the model. After a crash (not clean), names in touched may
        have any earlier state, and the model adopts it. Everything is durable afterwards.
        """
        found = {}
        for d in DIRS:
            with contextlib.suppress(FileNotFoundError):
                remove_churned(os.path.join(root, d, "dir"))
            for n in os.listdir(os.path.join(root, d)):
                path = os.path.join(root, d, n)
                try:
                    attr = os.getxattr(path, "user.a")
                except OSError:
                    attr = None
                found[f"{d}/{n}"] = (read_file(path), attr)
        for name in sorted(set(found) | set(self.files)):
            if not clean and name in self.touched:
                continue
            got, want = found.get(name), self.files.get(name)
            if got != want:
                raise Fail(f"{what}: {name}: {describe(got, want)}")
        self.files = found
        self.touched = set()


def remove_churned(d):
    for n in os.listdir(d):
        os.unlink(os.path.join(d, n))
    os.rmdir(d)


def describe(got, want):
    if got is None or want is None:
        return "is gone" if got is None else "is back"
    if got[1] != want[1]:
        return "its attribute differs"
    at = next((i for i, (a, b) in enumerate(zip(got[0], want[0])) if a != b), None)
    return f"{len(got[0])} bytes instead of {len(want[0])}, different from {at} on"


def work(model, root):
    for _ in range(OPS):
        model.step(root)
    # The log must not be empty when the power goes.
    name = f"{DIRS[0]}/last"
    path = os.path.join(root, name)
    model.write(name, path)
    model.fsync(name, path)


def by_fusedio(vol, model, clean, was_clean, what):
    m = vol.mount(f"commit={model.rng.choice((1, 300))}")
    model.settle(m.point, was_clean, what)
    work(model, m.point)
    if clean:
        m.umount()
    else:
        m.kill()
    return vol


def by_kernel(vol, model, clean, was_clean, what):
    other = vol
    with vol.kmount("commit=300") as k:
        model.settle(k, was_clean, what)
        work(model, k)
        if not clean:
            other = vol.copy()
    if other is not vol:
        os.unlink(vol.file)
    return other


def consistent(vol, clean):
    """e2fsck finds nothing; after a crash it replays the journal first."""
    if clean:
        vol.check()
        return
    expect("needs_recovery" in vol.super()["Filesystem features"], "nothing to recover")
    copy = vol.copy()
    run("e2fsck", "-p", copy.file, ok=(0, 1))
    copy.check()
    os.unlink(copy.file)


@case(params=tuple(VARIANTS), timeout=180)
def in_turn(env, variant):
    vol = env.volume(48, *VARIANTS[variant])
    model = Model(f"interop {variant} {os.environ.get('FDIO_SEED', '1')}")
    if variant == "1k-values":
        # these fit in the inode, in a block, in inodes of their own
        model.attributes = (10, 700, 5000, 40_000)
    with vol.kmount() as k:
        for d in DIRS:
            os.mkdir(os.path.join(k, d))
    was_clean = True
    for turn in range(TURNS):
        clean = model.rng.randrange(2) == 0
        server = by_kernel if turn % 2 else by_fusedio
        what = f"turn {turn}, {server.__name__} after {'an unmount' if was_clean else 'a crash'}"
        vol = server(vol, model, clean, was_clean, what)
        consistent(vol, clean)
        was_clean = clean
    with vol.mount() as m:
        model.settle(m.point, was_clean, "at the end")
    vol.check()


def made_before_extents(env):
    """
    A file system that was ext3 and got the feature extents later: files with block maps, small and
    fragmented, and a directory of one block.
    """
    vol = env.volume(32, "-O", "^extents,^64bit,^metadata_csum", "-b", "1024", kind="image")
    holes, small = env.path("holes"), env.path("small")
    with open(holes, "wb") as f:
        for k in range(8):
            f.seek(2 * k * 1024)
            f.write(pattern(700, k))
    write_file(small, pattern(60_000))
    script = ("".join(f"write {small} {name}\n" for name in ("new", "more", "cut", "open"))
              + f"write {holes} holes\nmkdir d\n")
    run("debugfs", "-w", "-f", "-", vol.file, inp=script)
    run("tune2fs", "-O", "extents", vol.file)
    return vol, read_file(small), read_file(holes)


def write_to_old(m, small, holes):
    """
    Writes to files with block maps. A write that needs blocks converts the file to extents if they
    fit into the inode, else it fails and nothing is lost.
    """
    write_file(m.path("new"), b"new\n")
    with open(m.path("more"), "ab") as f:
        f.write(b"x" * 5000)
    os.truncate(m.path("cut"), 100)
    fd = os.open(m.path("open"), os.O_RDWR)
    os.pwrite(fd, b"far", 3_000_000)
    os.close(fd)
    for d in ("d", "."):
        for k in range(300):
            write_file(m.path(d, f"a name that takes its room in a directory {k}"), b"")
    with expect_errno(errno.EOPNOTSUPP):
        with open(m.path("holes"), "r+b", buffering=0) as f:
            f.seek(1024)
            f.write(b"y")
    expect("e2fsck -f -E bmap2extent" in m.tail(50), "the log does not say what to do")
    expect_eq(read_file(m.path("holes")), holes, "what could not be written to")
    expect_eq(read_file(m.path("new")), b"new\n", "the new contents")
    expect_eq(read_file(m.path("more")), small + b"x" * 5000, "after the append")


@case()
def block_maps(env):
    vol, small, holes = made_before_extents(env)
    with vol.mount() as m:
        write_to_old(m, small, holes)
    vol.check()
    with vol.mount() as m:
        expect_eq(read_file(m.path("open"))[:60_000], small, "in front of the hole")
        expect_eq(read_file(m.path("cut")), small[:100], "what was left")
        write_file(m.path("holes"), b"now it has extents")
        expect_eq(len(os.listdir(m.path("d"))), 300, "names")
    vol.check()


@case(kinds=("image", "loop"))
def copied_mount(env):
    """
    umount while another mount namespace holds a copy: the volume is checked when that copy is gone.
    """
    vol = env.volume(16)
    with vol.kmount() as k:
        write_file(os.path.join(k, "f"), pattern(1000))
        with copy_elsewhere(env, k) as other:
            kernel_umount(k)
            expect(vol.kernel_has(), "nothing holds it")
            other.kill()
            vol.kernel_gone()
            vol.check()


SPACE = {
    "4k": (("-b", "4096"), ()),
    "1k-meta_bg": (("-b", "1024", "-O", "meta_bg,^resize_inode"), ()),
    # as tune2fs -I leaves the superblock
    "wrong": (("-b", "4096"), (("debugfs", "-w", "-R", "ssv overhead_clusters 22775"),)),
    "bigalloc": (("-b", "4096", "-O", "bigalloc", "-C", "16384"), ()),
}


@case(params=tuple(SPACE))
def space_as_the_kernel(env, name):
    """
    statfs returns the numbers of the kernel's mount, even if s_overhead_clusters in the superblock
    is wrong.
    """
    mkfs, then = SPACE[name]
    vol = env.volume(200, *mkfs)
    for cmd in then:
        run(*cmd, vol.target)

    def numbers(path):
        st = os.statvfs(path)
        return st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_bsize
    for option in ("ro", "ro,norecovery"):
        with vol.kmount(option) as k:
            theirs = numbers(k)
        with vol.mount(option) as m:
            expect_eq(numbers(m.point), theirs, f"statfs of {name} with {option}")


@case(kinds=("image", "loop"))
def first_attribute(env):
    """
    On a file system that never had extended attributes, the first one sets the feature, as with the
    kernel.
    """
    vol = env.volume(32, "-O", "^ext_attr", "-I", "128")
    with vol.mount() as m:
        write_file(m.path("f"), b"x")
        os.setxattr(m.path("f"), "user.a", b"value")
        expect_eq(os.getxattr(m.path("f"), "user.a"), b"value", "the attribute")
    expect("ext_attr" in vol.super()["Filesystem features"], "no feature ext_attr")
    vol.check()


if __name__ == "__main__":
    main()
