# SPDX-License-Identifier: GPL-2.0-or-later
"""
The devices that are measured: image files in a directory of the benchmark's own, and a loop device
over each.

Nothing else is ever written to: loop devices come from losetup, and before each use a device must
still lead to the image that was made here.
"""
import contextlib
import os
import shutil
import tempfile

from proc import Failed, LeftOut, run, undisturbed

MIB = 1 << 20

# kind -> its name in tables
KINDS = {"tmpfs": "loop device over tmpfs", "file": "loop device over a file"}


class Workspace:
    """
    A directory for images and mount points, removed at the end. LeftOut if there is too little
    space.
    """

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
        # Mount points are elsewhere, because the file system above may become full.
        self.mounts = tempfile.mkdtemp(prefix="fdio-bench-mnt-")

    def image(self, name):
        return os.path.join(self.path, name + ".img")

    def mount_point(self, name):
        path = os.path.join(self.mounts, name)
        os.makedirs(path, exist_ok=True)
        return path

    def mount_file(self, name):
        """A file to mount over, for QEMU's export."""
        path = os.path.join(self.mounts, name + ".file")
        with open(path, "ab"):
            pass
        return path

    def remove(self):
        """Removes everything. Loop devices that still lead to images here are detached too."""
        for name in os.listdir(self.path):
            if name.endswith(".img"):
                for line in run("losetup", "-j", os.path.join(self.path,
                                                              name), check=False).out.splitlines():
                    run("losetup", "-d", line.partition(":")[0], check=False)
        shutil.rmtree(self.path, ignore_errors=True)
        # Removes empty directories only, so that nothing in a leftover mount is touched.
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
    Makes an empty image whose space is allocated, because allocating space below the loop device is
    not what is measured. filled: also writes all of it. Pages of a tmpfs that were never touched
    are expensive, above all in a virtual machine whose host has to find memory for them, and the
    first job to write would pay for that.
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
    Reads the image twice. The kernel does more work on tmpfs pages that were used only once:
    writing 1 MiB for the first time takes a third longer than later, and the first job would pay
    for that.
    """
    buf = bytearray(MIB)
    for _ in range(2):
        with open(path, "rb", buffering=0) as f:
            while f.readinto(buf):
                pass


class Loop:
    """
    A loop device over an image. Over a file on a disk it uses direct I/O, because otherwise the
    page cache would answer instead of the disk.
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
        """Returns the device; raises Failed unless it still leads to the image."""
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
    """Copies an image, with its space allocated or filled as by new_image."""
    run("cp", f"--sparse={'never' if filled else 'always'}", src, dst)
    if not filled:
        run("fallocate", "-l", f"{mib}M", dst, check=False)
    else:
        warm(dst)
