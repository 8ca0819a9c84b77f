# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guest's file system, in cpio archives that the kernel unpacks one after the other: "core" has
busybox, the daemon as built here, e2fsprogs and the guest's scripts; the second the kernel's
modules; "fio" has fio and its many libraries; others have a systemd (vm_systemd_root.py). Libraries
are those that ldd names, all in /lib.
"""
import glob
import os
import re
import shutil
import threading

from vm_env import BUILD, FUSEDIO, HERE, VMIO, Skip, expect, run

CORE = ("mke2fs", "e2fsck", "dumpe2fs")
APPLETS = set(
    "cat cmp cp cut dd diff grep head insmod mkdir mount mv pidof poweroff rm sed sh sleep stat "
    "stty switch_root syslogd tail timeout touch tr umount".split())
DIRS = ("bin", "dev", "etc", "lib", "lib64", "mnt", "mnt2", "proc", "run", "sys", "tmp", "vm")


class Archive:
    """A cpio archive in the format that the kernel reads ("newc")."""

    def __init__(self, path):
        self.path = path
        self.out = open(path, "wb")  # pylint: disable=consider-using-with
        self.ino = 1

    def entry(self, name, mode, data=b"", rdev=(0, 0)):
        raw = name.encode() + b"\0"
        fields = (self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.ino += 1
        self.out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def file(self, name, source, mode=0o755):
        with open(source, "rb") as f:
            self.entry(name, 0o100000 | mode, f.read())

    def link(self, name, target):
        self.entry(name, 0o120777, target.encode())

    def close(self):
        self.entry("TRAILER!!!", 0)
        self.out.write(b"\0" * (-self.out.tell() % 512))
        self.out.close()


def libraries(program, loader=("ldd",)):
    """
    The libraries that a dynamic linker will load for a program: path in the guest -> file here.
    """
    found = {}
    for line in run(*loader, program, ok=(0, 1)).stdout.splitlines():
        expect("not found" not in line, f"{program}: {line.strip()}")
        m = re.search(r"(?:(\S+) => )?(/\S+) \(0x", line)
        if m:
            lib = m.group(2)
            found["lib64/" + os.path.basename(lib) if "ld-linux" in lib
                  else "lib/" + os.path.basename(m.group(1) or lib)] = lib
    return found


def add_programs(archive, programs, have, loader=("ldd",)):
    for name, path in programs.items():
        archive.file("bin/" + name, path)
        for target, lib in libraries(path, loader).items():
            if target not in have:
                have.add(target)
                archive.file(target, lib)


def which(program):
    path = shutil.which(program)
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def busybox():
    """The path of a busybox that has all commands that the guest's scripts call."""
    path = which("busybox")
    missing = APPLETS - set(run(path, "--list").stdout.split())
    if missing:
        raise Skip(
            f"busybox has no {' '.join(sorted(missing))} (the one of the package busybox-static "
            "has)")
    return path


def core(path):
    """Writes the archive that every guest has; returns the names of the libraries in it."""
    have = set()
    a = Archive(path)
    for d in DIRS:
        a.entry(d, 0o040755)
    a.entry("dev/console", 0o020600, rdev=(5, 1))
    a.file("init", os.path.join(HERE, "guest-init.sh"))
    for script in sorted(glob.glob(os.path.join(HERE, "guest-*.sh"))):
        a.file("vm/" + os.path.basename(script)[len("guest-"):], script)
    if os.path.exists("/etc/mke2fs.conf"):
        a.file("etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644)
    a.entry("etc/passwd", 0o100644, b"root:x:0:0:root:/:/bin/sh\n")
    a.entry("etc/group", 0o100644, b"root:x:0:\n")
    add_programs(a, {"busybox": busybox(), "fusedio": FUSEDIO, "vmio": VMIO,
                     **{p: which(p) for p in CORE}}, have)
    a.close()
    return have


def fio(path, have):
    a = Archive(path)
    add_programs(a, {"fio": which("fio")}, have)
    a.close()


def modules(path, kernel, names):
    """Writes the archive with the kernel's modules, numbered in the order to load them."""
    a = Archive(path)
    a.entry("modules", 0o040755)
    for n, name in enumerate(names):
        a.file(f"modules/{n:02d}-{name}.ko", os.path.join(kernel.directory, f"{name}.ko"), 0o644)
    a.close()


class Initrds:
    """
    The initial file systems of all guests: what they share is made at once, the rest when a
    scenario asks for it.
    """

    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.Lock()
        self.parts, self.joined = {}, {}
        have = core(self.path("core"))
        self.part("fio", lambda path: fio(path, have))

    def path(self, name):
        return os.path.join(self.directory, f"{name}.cpio")

    def part(self, name, make):
        """Has an archive made by make(path), unless it is there; returns its name."""
        with self.lock:
            if name not in self.parts:
                make(self.path(name))
                self.parts[name] = True
            return name

    def get(self, kernel, part=None, more_modules=False):
        """The initial file system for a kernel: the small one, or that with this part beside it."""
        names = kernel.boot_modules + (kernel.more_modules if more_modules else [])
        own = f"modules-{'-'.join((kernel.release, *names)) if names else 'none'}"
        self.part(own, lambda path: modules(path, kernel, names))
        name = f"{own}-{part}"
        with self.lock:
            if name not in self.joined:
                self.joined[name] = os.path.join(self.directory, f"{name}.initrd")
                with open(self.joined[name], "wb") as out:
                    for source in filter(None, ("core", own, part)):
                        with open(self.path(source), "rb") as f:
                            shutil.copyfileobj(f, out)
            return self.joined[name]
