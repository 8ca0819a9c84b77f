# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guest's file system, in cpio archives that the kernel unpacks one after the other: "core" has
busybox, the daemon as built here, e2fsprogs and the guest's scripts; the second the kernel's
modules; "fio" has fio and its many libraries; "systemd" has Debian's systemd with few units, and
the unit of fusedio as built. Libraries are those that ldd names, all in /lib.
"""
import glob
import os
import re
import shutil
import threading

from vm_env import BUILD, FUSEDIO, HERE, VMIO, Skip, expect, run

CORE = ("mke2fs", "e2fsck", "dumpe2fs")
APPLETS = set(
    "cat cmp cp cut dd diff grep insmod mkdir mount mv pidof poweroff rm sed sh sleep stat "
    "stty switch_root syslogd tail " "timeout touch tr umount".split())
SYSTEMD = "/lib/systemd"
UNITS = ("sysinit.target", "basic.target", "local-fs.target", "local-fs-pre.target",
         "umount.target", "shutdown.target", "final.target", "poweroff.target",
         "systemd-poweroff.service")
OUR_UNIT = os.path.join(BUILD, "contrib/systemd/fusedio@.service")
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


def libraries(program):
    """The libraries that the dynamic linker will load: path in the guest -> file here."""
    found = {}
    for line in run("ldd", program, ok=(0, 1)).stdout.splitlines():
        expect("not found" not in line, f"{program}: {line.strip()}")
        m = re.search(r"(?:(\S+) => )?(/\S+) \(0x", line)
        if m:
            lib = m.group(2)
            found["lib64/" + os.path.basename(lib) if "ld-linux" in lib
                  else "lib/" + (m.group(1) or os.path.basename(lib))] = lib
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
    """The path of a busybox that has all commands that the guest's scripts call."""
    path = which("busybox")
    missing = APPLETS - set(run(path, "--list").stdout.split())
    if missing:
        raise Skip(
            f"busybox has no {' '.join(sorted(missing))} (the one of the package busybox-static "
            "has)")
    return path


def systemd(path):
    """Writes the archive with systemd; None if systemd is not installed."""
    # busybox has no umount -c
    programs = {"systemd": f"{SYSTEMD}/systemd", "systemd-shutdown": f"{SYSTEMD}/systemd-shutdown",
                **{p: shutil.which(p) for p in ("systemctl", "mount", "umount")}}
    if not all(p and os.path.exists(p)
               for p in (*programs.values(), *(f"{SYSTEMD}/system/{u}" for u in UNITS), OUR_UNIT)):
        return None
    a = Archive(path)
    add_programs(a, programs, set())
    for d in ("lib/systemd", "lib/systemd/system", "lib/systemd/system-shutdown", "etc/systemd",
              "etc/systemd/system", "etc/systemd/system/fusedio@.service.d", "sbin"):
        a.entry(d, 0o040755)
    for name in ("systemd", "systemd-shutdown"):
        a.link(f"lib/systemd/{name}", f"/bin/{name}")
    for u in UNITS:
        a.file(f"lib/systemd/system/{u}", f"{SYSTEMD}/system/{u}", 0o644)
    a.file("lib/systemd/system/fusedio@.service", OUR_UNIT, 0o644)
    a.file("lib/systemd/system-shutdown/verdict", os.path.join(HERE, "guest-sd-end.sh"))
    for u in ("vmtest.service", "user.service"):
        a.file(f"etc/systemd/system/{u}", os.path.join(HERE, u), 0o644)
    # The guest runs no journald.
    a.entry("etc/systemd/system/fusedio@.service.d/log.conf", 0o100644,
            b"[Service]\nStandardError=file:/dev/console\n")
    with open(OUR_UNIT, encoding="utf-8") as f:
        where = re.search(r"^ExecStart=(\S+)/fusedio ", f.read(), re.M).group(1).strip("/")
    for n in range(1, where.count("/") + 2):
        a.entry("/".join(where.split("/")[:n]), 0o040755)
    if where != "bin":
        a.link(where + "/fusedio", "/bin/fusedio")
    a.close()
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
        self.made = {}
        have = core(self.part("core"))
        fio = Archive(self.part("fio"))
        add_programs(fio, {"fio": which("fio")}, have)
        fio.close()
        if not systemd(self.part("systemd")):
            self.made["systemd"] = None

    def part(self, name):
        return os.path.join(self.directory, f"{name}.cpio")

    def get(self, kernel, kind=None):
        """
        The initial file system for a kernel: the small one, or that with kind ("fio" or
        "systemd") beside it. None: it cannot be made here.
        """
        with self.lock:
            if kind in self.made:
                return self.made[kind]
            own = kernel.release if kernel.boot_modules else "any"
            name = f"{own}-{kind or 'small'}"
            if name not in self.made:
                modules(self.part(own), kernel, kernel.boot_modules)
                self.made[name] = os.path.join(self.directory, f"{name}.initrd")
                with open(self.made[name], "wb") as out:
                    for part in filter(None, ("core", own, kind)):
                        with open(self.part(part), "rb") as f:
                            shutil.copyfileobj(f, out)
            return self.made[name]
