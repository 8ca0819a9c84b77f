# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the bench measures on: image files in a directory of its own, and a loop device over each.

Nothing else is ever written to: a loop device is taken from losetup, and before each use it must
still lead to the image that was made here.
"""
import contextlib
import os
import shutil
import tempfile

from proc import Failed, LeftOut, run, undisturbed

MIB = 1 << 20

# kind -> what it is called in tables
KINDS = {"tmpfs": "loop device over tmpfs", "file": "loop device over a file"}


class Workspace:
    """A directory for images and mount points, removed at the end."""

    def __init__(self, kind, directory, need_bytes):
        self.kind = kind
        where = "/dev/shm" if kind == "tmpfs" else directory
        if (kind == "tmpfs"
            and run("stat", "-f", "-c", "%T", where, check=False).out.strip() != "tmpfs"):
            raise LeftOut("/dev/shm is no tmpfs")
        st = os.statvfs(where)
        if st.f_bavail * st.f_frsize < need_bytes:
            raise LeftOut(f"{where} has {st.f_bavail * st.f_frsize // MIB} MiB free, and "
                          f"{need_bytes // MIB} are needed")
        self.path = tempfile.mkdtemp(prefix="fdio-bench-", dir=where)
        # The mount points are never on the file system that is used up.
        self.mounts = tempfile.mkdtemp(prefix="fdio-bench-mnt-")

    def image(self, name):
        return os.path.join(self.path, name + ".img")

    def mount_point(self, name):
        path = os.path.join(self.mounts, name)
        os.makedirs(path, exist_ok=True)
        return path

    def mount_file(self, name):
        """For what mounts over a file."""
        path = os.path.join(self.mounts, name + ".file")
        with open(path, "ab"):
            pass
        return path

    def remove(self):
        """Loop devices that are left, for whatever reason, lead to images of ours and go too."""
        for name in os.listdir(self.path):
            if name.endswith(".img"):
                for line in run("losetup", "-j", os.path.join(self.path,
                                                              name), check=False).out.splitlines():
                    run("losetup", "-d", line.partition(":")[0], check=False)
        shutil.rmtree(self.path, ignore_errors=True)
        # Directories only: should a mount be left, nothing in it is touched.
        with contextlib.suppress(OSError):
            for name in os.listdir(self.mounts):
                path = os.path.join(self.mounts, name)
                with contextlib.suppress(OSError):
                    if os.path.isfile(path) and not os.path.islink(path):
                        os.unlink(path)
                    else:
                        os.rmdir(path)
            os.rmdir(self.mounts)


def new_image(path, mib, filled):
    """
    An empty image. Its space is allocated now: what finding it costs below a loop device is not
    what is measured. filled: written, too. The pages of a tmpfs that were never touched are the
    machine's dearest, above all in a virtual machine, where the host has to find memory for them;
    who writes to them first would pay for all.
    """
    with open(path, "xb", buffering=0) as f:
        if filled:
            for _ in range(mib):
                f.write(bytes(MIB))
            warm(path)
            return
        try:
            os.posix_fallocate(f.fileno(), 0, mib * MIB)
        except OSError:
            f.truncate(mib * MIB)


def warm(path):
    """
    Reads it twice. The kernel has more work with a page of a tmpfs that it has hardly seen used: 1
    MiB written there for the first time takes a third longer than later, and who comes first would
    pay that, too.
    """
    buf = bytearray(MIB)
    for _ in range(2):
        with open(path, "rb", buffering=0) as f:
            while f.readinto(buf):
                pass


class Loop:
    """
    A loop device over an image. With direct I/O where a disk is below, or its page cache would
    answer instead of it.
    """

    def __init__(self, image, kind):
        self.image = image
        self.dev = None
        self.direct = False
        argv = ["losetup", "--find", "--show"]
        with undisturbed():
            if kind == "file":
                p = run(*argv, "--direct-io=on", image, check=False)
                if p.status == 0:
                    self.dev, self.direct = p.out.strip(), True
            if not self.dev:
                self.dev = run(*argv, image).out.strip()
        self.verify()

    def verify(self):
        name = os.path.basename(self.dev or "")
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as f:
                backing = f.read().strip()
        except OSError:
            backing = ""
        if not name.startswith("loop") or os.path.realpath(backing) != os.path.realpath(self.image):
            raise Failed(f"{self.dev} is not the loop device over {self.image}")
        return self.dev

    def detach(self):
        if self.dev:
            self.verify()
            run("losetup", "-d", self.dev)
            self.dev = None


def copy_image(src, dst, mib, filled):
    """A copy, allocated or filled as new_image does."""
    run("cp", f"--sparse={'never' if filled else 'always'}", src, dst)
    if not filled:
        run("fallocate", "-l", f"{mib}M", dst, check=False)
    else:
        warm(dst)
