# SPDX-License-Identifier: GPL-2.0-or-later
"""
The peers: fusedio and what it is compared with. Each peer has a loop device over an image of its
own, and all peers exist at the same time.

The ext4 peers get copies of one image that the kernel filled, so they read the same extents at the
same places.

If a peer cannot be used on this machine, setup() raises LeftOut: the benchmark continues without it
and says why.
"""
import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time

from devices import MIB, Loop, copy_image, new_image
from proc import Failed, LeftOut, last_line, process_us, run, start_daemon, undisturbed

SWITCH = "/sys/module/fuse/parameters/enable_uring"
FRAGMENTS = 100_000
FS_IOC_FIEMAP = 0xC020660B


class Switch:
    """
    The switch that enables FUSE over io_uring for the whole kernel. Its old value is restored.
    """

    def __init__(self):
        self.before = None

    def enable(self):
        try:
            with open(SWITCH, encoding="ascii") as f:
                now = f.read().strip()
            if now != "Y":
                with open(SWITCH, "w", encoding="ascii") as f:
                    f.write("Y")
                if self.before is None:
                    self.before = now
        except OSError as e:
            raise LeftOut(
                f"the kernel offers no FUSE over io_uring ({SWITCH}: {e.strerror})") from None

    def restore(self):
        if self.before is not None:
            with contextlib.suppress(OSError), open(SWITCH, "w", encoding="ascii") as f:
                f.write(self.before)
            self.before = None


class Plan:
    """What all peers on one device need to know: sizes, what the jobs need, paths."""

    def __init__(self, kind, size_mib, needs, fusedio, switch):
        self.space, self.size_mib, self.needs, self.fusedio, self.switch = (None, size_mib, needs,
                                                                            fusedio, switch)
        # Room for two files of that size, the journal and trees of small files; no more, because
        # all of it is allocated.
        self.image_mib = size_mib * 2 + 600 + (FRAGMENTS * 4096 // MIB if "fragments" in needs
                                               else 0)
        self.raw_mib = size_mib + 64
        self.filled = "space" in needs and kind == "tmpfs"

    def bytes_for(self, peers):
        """The most space that the images of the peers and the template can take."""
        return (peers + 1) * self.image_mib * MIB


def extents(path):
    """The number of extents of a file, by FIEMAP."""
    fd = os.open(path, os.O_RDONLY)
    try:
        head = bytearray(struct.pack("=QQIIII", 0, 2**64 - 1, 0, 0, 0, 0))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, head)
        return struct.unpack("=QQIIII", head)[3]
    finally:
        os.close(fd)


def fill(root, plan):
    """
    Makes the files that jobs use: `data`, which is contiguous, and `fragments`, in which every
    second block is a hole.
    """
    block = random.Random(7).randbytes(MIB)
    with open(os.path.join(root, "data"), "wb", buffering=0) as f:
        for _ in range(plan.size_mib):
            f.write(block)
        os.fsync(f.fileno())
    if "fragments" in plan.needs:
        path = os.path.join(root, "fragments")
        with open(path, "wb", buffering=0) as f:
            for i in range(FRAGMENTS):
                os.pwrite(f.fileno(), block[:4096], i * 8192)
            os.ftruncate(f.fileno(), FRAGMENTS * 8192)
            os.fsync(f.fileno())
        n = extents(path)
        if n < FRAGMENTS:
            raise Failed(f"the file of {FRAGMENTS} extents has {n}")


class Peer:
    """
    What is measured. `data` is the file (or device) for jobs that need no directory, `root` the
    mounted directory, or None.
    """
    raw = False      # a device without a file system
    ours = False     # fusedio
    needs_template = True

    def __init__(self, key, title, plan):
        self.key, self.title, self.plan = key, title, plan
        self.image = plan.space.image(key)
        self.log = self.image + ".log"
        self.point = plan.space.mount_point(key)
        self.root = self.point
        self.data = os.path.join(self.point, "data")
        self.loop = None
        self.daemon = None

    def setup(self, template):
        """Makes image, device and contents, and starts the peer."""
        copy_image(template, self.image, self.plan.image_mib, self.plan.filled)
        self.attach()
        self.start()

    def attach(self):
        with undisturbed():
            self.loop = Loop(self.image, self.plan.space.kind)

    def spawn(self, *argv):
        with undisturbed():
            self.daemon = start_daemon(argv, self.log)

    def start(self):
        raise NotImplementedError

    def stop(self):
        """Unmounts and waits for the daemon; after a time limit, by force."""
        self.unmount()
        self.end_daemon()

    def unmount(self):
        if mounted(self.point):
            end = time.monotonic() + 10
            while (p := run("umount", self.point,
                            check=False)).status and "busy" in p.err and time.monotonic() < end:
                time.sleep(0.1)
            if p.status:
                run("umount", "-l", self.point, check=False)

    def end_daemon(self):
        if not self.daemon:
            return
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.daemon.wait(60)
        if status is None:
            self.daemon.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(20)
        self.daemon = None
        if status is None or (self.ours and status):
            raise Failed(
                f"{self.title}: the daemon ended with status {status}: {self.last_words()}")

    def kill(self):
        """After a failure: ends the daemon and the mount, so that nothing hangs."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(20)
        self.daemon = None
        if mounted(self.point):
            run("umount", "-l", self.point, check=False)

    def teardown(self):
        try:
            self.stop()
        except Failed:
            self.kill()
        if self.loop:
            self.loop.detach()
        with contextlib.suppress(OSError):
            os.unlink(self.image)

    def daemon_us(self):
        """The CPU time of the daemon; None for a peer without one."""
        if not self.daemon:
            return None
        try:
            return process_us(self.daemon.pid)
        except OSError:
            raise Failed(f"{self.title}: the daemon is gone: {self.last_words()}") from None

    def last_words(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return last_line(f.read())
        except OSError:
            return "no log"

    def await_mount(self, there, seconds=30):
        end = time.monotonic() + seconds
        while not there():
            if self.daemon.poll() is not None:
                words = self.last_words()
                self.daemon = None
                raise Failed(f"{self.title} does not start: {words}")
            if time.monotonic() > end:
                raise Failed(f"{self.title} does not answer after {seconds} s")
            time.sleep(0.02)

    def fsck(self):
        """Checks a stopped fusedio peer by e2fsck; the other peers are not checked."""


def mounted(point):
    """
    Reads the table of mounts, because a mount point may be a file, and a dead FUSE mount does not
    answer.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        return any(line.split()[4] == point for line in f)


class RawPeer(Peer):
    raw = True
    needs_template = False

    def setup(self, template):
        new_image(self.image, self.plan.raw_mib, False)
        self.attach()
        run("dd", "if=/dev/zero", f"of={self.loop.verify()}", "bs=1M",
            f"count={self.plan.size_mib}", "conv=fsync")
        self.start()

    def start(self):
        self.data = self.loop.verify()
        self.root = None


class QemuPeer(RawPeer):
    """qemu-storage-daemon exports the device as one file."""

    def setup(self, template):
        if not shutil.which("qemu-storage-daemon"):
            raise LeftOut("qemu-storage-daemon is not installed (qemu-system-common has it)")
        super().setup(template)

    def start(self):
        self.root = None
        self.data = self.point = self.plan.space.mount_file(self.key)
        self.spawn("qemu-storage-daemon", "--blockdev",
                   f"driver=host_device,node-name=disk,filename={self.loop.verify()},"
                   "cache.direct=on,aio=native",
                   "--export", f"fuse,id=export,node-name=disk,mountpoint={self.point},writable=on")
        try:
            self.await_mount(lambda: mounted(self.point))
        except Failed as e:
            raise LeftOut(str(e)) from None

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
        self.end_daemon()
        self.unmount()


class KernelPeer(Peer):
    def __init__(self, key, title, plan, fstype):
        super().__init__(key, title, plan)
        self.fstype = fstype

    def start(self):
        p = run("mount", "-t", self.fstype, self.loop.verify(), self.point, check=False)
        if p.status:
            raise LeftOut(f"the kernel does not mount {self.fstype}: {last_line(p.err)}")


class XfsPeer(KernelPeer):
    needs_template = False

    def __init__(self, key, title, plan):
        super().__init__(key, title, plan, "xfs")

    def setup(self, template):
        if not shutil.which("mkfs.xfs"):
            raise LeftOut("mkfs.xfs is not installed (xfsprogs has it)")
        new_image(self.image, self.plan.image_mib, self.plan.filled)
        self.attach()
        run("mkfs.xfs", "-q", "-f", "-K", self.loop.verify())
        self.start()
        fill(self.root, self.plan)


class Fuse2fsPeer(Peer):
    def setup(self, template):
        if not shutil.which("fuse2fs"):
            raise LeftOut("fuse2fs is not installed")
        super().setup(template)

    def start(self):
        self.spawn("fuse2fs", "-f", self.loop.verify(), self.point)
        self.await_mount(lambda: mounted(self.point))


class FusedioPeer(Peer):
    ours = True

    def __init__(self, key, title, plan, options, program=None):
        super().__init__(key, title, plan)
        self.options, self.program = options, program or plan.fusedio

    def start(self):
        if "transport=uring" in self.options.split(","):
            self.plan.switch.enable()
        self.spawn(self.program, "-f", "-o", self.options, self.loop.verify(), self.point)
        self.await_mount(lambda: mounted(self.point))

    def fsck(self):
        p = run("e2fsck", "-fn", self.loop.verify(), check=False)
        if p.status:
            raise Failed(
                f"{self.title}: e2fsck -fn: status {p.status}: {(p.out + p.err).strip()[-400:]}")


def make_template(plan):
    """
    Makes the ext4 file system of which each ext4 peer gets a copy. The kernel fills it, or fusedio
    if the kernel cannot mount it.
    """
    image = plan.space.image("template")
    new_image(image, plan.image_mib, plan.filled)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E",
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0", image)
    for peer in (KernelPeer("template", "kernel ext4", plan, "ext4"),
                 FusedioPeer("template", "fusedio", plan, "transport=devfuse")):
        try:
            with undisturbed():
                peer.loop = Loop(image, "tmpfs")
            try:
                peer.start()
                fill(peer.root, plan)
            finally:
                peer.stop()
                peer.loop.detach()
        except LeftOut:
            continue
        break
    run("e2fsck", "-fn", image)
    return image


# key -> (title, constructor), in the order of the tables
PEERS = {
    "raw": ("raw device", RawPeer),
    "ext4": ("kernel ext4", lambda k, t, p: KernelPeer(k, t, p, "ext4")),
    "xfs": ("kernel XFS", XfsPeer),
    "fuse2fs": ("fuse2fs", Fuse2fsPeer),
    "qemu": ("QEMU export", QemuPeer),
    "devfuse": ("fusedio, /dev/fuse", lambda k, t, p: FusedioPeer(k, t, p, "transport=devfuse")),
    "ring": ("fusedio, io_uring", lambda k, t, p: FusedioPeer(k, t, p, "transport=uring")),
}


def make_peer(key, plan, variants):
    if key in variants:
        options, program = variants[key]
        return FusedioPeer(key, f"fusedio, {key}", plan, options, program)
    title, make = PEERS[key]
    return make(key, title, plan)


def remove_file(path):
    with contextlib.suppress(OSError):
        os.unlink(path)
