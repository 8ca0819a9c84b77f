# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guest's file system: cpio archives with busybox, the daemon as built here, e2fsprogs and the guest's scripts, and
fio in an archive of its own, because of its many libraries: the kernel unpacks archives that follow each other. Libraries
are those that ldd names, all in /lib.
"""
import glob
import os
import re
import shutil

from vm_env import FUSEDIO, HERE, VMIO, Skip, expect, run

CORE = ("mke2fs", "e2fsck", "dumpe2fs")
APPLETS = set("cat cmp cp cut dd diff grep insmod mkdir mount mv pidof poweroff rm sed sh sleep stty syslogd tail timeout touch tr "
              "umount".split())
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

    def close(self):
        self.entry("TRAILER!!!", 0)
        self.out.write(b"\0" * (-self.out.tell() % 512))
        self.out.close()


def libraries(program):
    """What the dynamic linker will load: name in /lib -> file; the linker itself has a place of its own."""
    found = {}
    for line in run("ldd", program, ok=(0, 1)).stdout.splitlines():
        expect("not found" not in line, f"{program}: {line.strip()}")
        m = re.search(r"(?:(\S+) => )?(/\S+) \(0x", line)
        if m:
            lib = m.group(2)
            found["lib64/" + os.path.basename(lib) if "ld-linux" in lib else "lib/" + (m.group(1) or os.path.basename(lib))] = lib
    return found


def add_programs(archive, programs, have):
    for name, path in programs.items():
        archive.file("bin/" + name, path)
        for target, lib in libraries(path).items():
            if target not in have:
                have.add(target)
                archive.file(target, lib)


def which(program):
    path = shutil.which(program)
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def busybox():
    """Any busybox that has what the guest's scripts call; the guest has nothing else at first."""
    path = which("busybox")
    missing = APPLETS - set(run(path, "--list").stdout.split())
    if missing:
        raise Skip(f"busybox has no {' '.join(sorted(missing))} (the one of the package busybox-static has)")
    return path


def build(directory, kernel):
    """Returns the paths of two archives: the small one, and the one with fio as well."""
    small, fio = os.path.join(directory, "small.cpio"), os.path.join(directory, "fio.cpio")
    have = set()
    core = Archive(small)
    for d in DIRS:
        core.entry(d, 0o040755)
    core.entry("dev/console", 0o020600, rdev=(5, 1))
    core.file("init", os.path.join(HERE, "guest-init.sh"))
    for script in sorted(glob.glob(os.path.join(HERE, "guest-*.sh"))):
        core.file("vm/" + os.path.basename(script)[len("guest-"):], script)
    if os.path.exists(os.path.join(kernel, "fuse.ko")):
        core.file("fuse.ko", os.path.join(kernel, "fuse.ko"), 0o644)
    if os.path.exists("/etc/mke2fs.conf"):
        core.file("etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644)
    core.entry("etc/passwd", 0o100644, b"root:x:0:0:root:/:/bin/sh\n")
    core.entry("etc/group", 0o100644, b"root:x:0:\n")
    add_programs(core, {"busybox": busybox(), "fusedio": FUSEDIO, "vmio": VMIO, **{p: which(p) for p in CORE}}, have)
    core.close()
    shutil.copyfile(small, fio)
    more = Archive(fio + ".part")
    add_programs(more, {"fio": which("fio")}, have)
    more.close()
    with open(fio, "ab") as out, open(fio + ".part", "rb") as part:
        shutil.copyfileobj(part, out)
    os.unlink(fio + ".part")
    return small, fio
