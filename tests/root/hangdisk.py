# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that hangs, fails or is slow on command: tests/root/hangfs, driven from Python."""
import contextlib
import os
import subprocess

from lib import BUILD, Skip, Volume, expect_eq, run

HANGFS = os.path.join(BUILD, "tests/root/hangfs")


class Disk:
    """
    An image in a mount of hangfs, used directly ("image") or through a loop device ("loop"). Has
    the methods of lib.Volume that mounting needs.
    """

    def __init__(self, env, kind, mib=64, *mkfs):
        if not os.access(HANGFS, os.X_OK):
            raise Skip(f"no {HANGFS}")
        self.env = env
        self.kind = kind
        self.image = env.volume(mib, *(mkfs or ("-b", "4096")), kind="image")
        self.dir = env.mkdir("hang")
        self.dev = None
        self.failed = 0  # number of requests that have failed so far
        self.server = subprocess.Popen([HANGFS, self.dir, self.image.file], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        env.undo.callback(self.end)
        expect_eq(self.server.stdout.readline(), "ok mounted\n", "hangfs")
        if kind == "loop":
            self.attach()

    def attach(self):
        p = run("losetup", "--find", "--show", "--direct-io=on", os.path.join(self.dir, "disk"),
                ok=None)
        if p.returncode != 0:
            raise Skip("no loop device with direct I/O: " + p.stderr.strip())
        self.dev = p.stdout.strip()
        with open(f"/sys/block/{os.path.basename(self.dev)}/loop/dio") as f:
            if f.read().strip() != "1":
                raise Skip("loop devices have no direct I/O on FUSE here")

    @property
    def target(self):
        return self.dev or os.path.join(self.dir, "disk")

    def tell(self, text):
        """Sends hangfs a command; returns how many requests it holds back now."""
        self.server.stdin.write(text + "\n")
        self.server.stdin.flush()
        word, n, self.failed = self.server.stdout.readline().split()
        expect_eq(word, "ok", text)
        return int(n)

    def hold_blocks(self, kind, blocks):
        """Makes requests of this kind (r, w or f) that touch these blocks of 4 KiB hang."""
        self.tell(f"hold {kind} {blocks[0] * 4096} {(blocks[-1] + 1) * 4096}")

    def held(self):
        """How many requests hang now."""
        return self.tell("stats")

    def mount(self, *opts):
        return Volume.mount(self, *opts)

    def saved(self):
        """Saves the contents of the disk as they are now; returns them as a volume."""
        self.image.file = self.env.unique("saved")  # hangfs has the old file mapped
        self.tell(f"save {self.image.file}")
        return self.image

    def check(self):
        """
        Saves the contents of the disk, recovers them by a mount and checks them with e2fsck;
        returns that volume.
        """
        vol = self.saved()
        with vol.mount():
            pass
        vol.check()
        return vol

    def end(self):
        if self.server.poll() is None:
            with contextlib.suppress(OSError):
                self.server.stdin.write("end\n")
                self.server.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.wait(20)
        if self.server.poll() is None:
            self.server.kill()
            self.server.wait(20)
        if self.dev:
            subprocess.run(["losetup", "-d", self.dev], stderr=subprocess.DEVNULL, timeout=60,
                           check=False)
            self.dev = None
        subprocess.run(["umount", "-l", self.dir], stderr=subprocess.DEVNULL, timeout=60,
                       check=False)
