# SPDX-License-Identifier: GPL-2.0-or-later
"""
The systemd of a guest, with few units, and the unit of fusedio as built. It comes from a root
directory: this machine's, the one that VM_SYSTEMD_ROOT names (a chroot, or unpacked packages), or
one that is made of the packages of another suite of Debian. Programs and libraries are found there
without running anything of it but its dynamic linker.
"""
import os
import re

import vm_suite
from vm_env import BUILD, HERE, Skip, run
from vm_initrd import Archive, add_programs, libraries

PACKAGES = ("systemd", "mount", "libseccomp2")
UNITS = ("sysinit.target", "basic.target", "local-fs.target", "local-fs-pre.target",
         "umount.target", "shutdown.target", "final.target", "poweroff.target",
         "systemd-poweroff.service")
OUR_UNIT = os.path.join(BUILD, "contrib/systemd/fusedio@.service")


class Root:
    """A root directory, with or without merged /usr."""

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self.loader = ("ldd",)
        if self.path != "/":
            self.loader = (*vm_suite.loader(self.path), "--list")
            self.check_libc()

    def find(self, *names):
        """The first of these that there is, at the top or in /usr; or None."""
        for name in names:
            for top in ("usr", ""):
                path = os.path.join(self.path, top, name)
                if os.path.exists(path):
                    return path
        return None

    def need(self, *names):
        path = self.find(*filter(None, names))
        if not path:
            raise Skip(f"{self.path} has no {names[-1]}")
        return path

    def check_libc(self):
        """The daemon was linked with this machine's C library and needs one as new."""
        def version(loader):
            m = re.search(r"version (\d+)\.(\d+)", run(loader, "--version").stdout)
            return tuple(map(int, m.groups()))
        if version(self.loader[0]) < version(f"/{vm_suite.LOADER}"):
            raise Skip(f"the C library of {self.path} is older than that of this machine")

    def opened_later(self, programs):
        """The libraries that programs and their libraries say they open at run time, if there."""
        files = set(programs)
        for p in programs:
            files.update(libraries(p, self.loader).values())
        names = set()
        for path in files:
            with open(path, "rb") as f:
                for found in re.findall(rb'"soname":\[([^\]]*)\]', f.read()):
                    names.update(n.strip('"') for n in found.decode().split(","))
        return list(filter(None, (self.find(*(f"{d}/{n}" for d in
                                              ("lib/x86_64-linux-gnu", "lib"))) for n in names)))


def add_libraries(archive, root, files, have):
    """Adds libraries that no program is linked with, and theirs."""
    for path in files:
        found = {"lib/" + os.path.basename(path): path, **libraries(path, root.loader)}
        for target, lib in found.items():
            if target not in have:
                have.add(target)
                archive.file(target, lib)


def add_units(a, root):
    for d in ("usr", "lib/systemd", "lib/systemd/system", "lib/systemd/system-shutdown",
              "etc/systemd", "etc/systemd/system", "etc/systemd/system/fusedio@.service.d",
              "etc/systemd/system/fusedio@srv-bad.service.d", "sbin"):
        a.entry(d, 0o040755)
    a.link("usr/lib", "../lib")
    for u in UNITS:
        a.file(f"lib/systemd/system/{u}", root.need(f"lib/systemd/system/{u}"), 0o644)
    a.file("lib/systemd/system/fusedio@.service", OUR_UNIT, 0o644)
    a.file("lib/systemd/system-shutdown/verdict", os.path.join(HERE, "guest-sd-end.sh"))
    for u in ("vmtest.service", "user.service"):
        a.file(f"etc/systemd/system/{u}", os.path.join(HERE, u), 0o644)
    # The guest runs no journald.
    a.entry("etc/systemd/system/fusedio@.service.d/log.conf", 0o100644,
            b"[Service]\nStandardError=file:/dev/console\n")
    # However slow the guest is, so many starts are too many.
    a.entry("etc/systemd/system/fusedio@srv-bad.service.d/limit.conf", 0o100644,
            b"[Unit]\nStartLimitIntervalSec=1h\n")


def write_archive(path, root):
    """Writes the archive; raises Skip if something is not there."""
    if not os.path.exists(OUR_UNIT):
        raise Skip("the unit was not built")
    own = {"systemd": root.need("lib/systemd/systemd"),
           "systemd-shutdown": root.need("lib/systemd/systemd-shutdown"),
           "systemd-executor": root.find("lib/systemd/systemd-executor")}  # since version 255
    own = {name: p for name, p in own.items() if p}
    # busybox has no umount -c
    programs = {**own, **{p: root.need(f"bin/{p}") for p in ("systemctl", "mount", "umount")}}
    a, have = Archive(path), set()
    add_programs(a, programs, have, root.loader)
    add_libraries(a, root, root.opened_later(list(programs.values())), have)
    add_units(a, root)
    for name in own:
        a.link(f"lib/systemd/{name}", f"/bin/{name}")
    with open(OUR_UNIT, encoding="utf-8") as f:
        where = re.search(r"^ExecStart=(\S+)/fusedio ", f.read(), re.M).group(1).strip("/")
    for n in range(1, where.count("/") + 2):
        if "/".join(where.split("/")[:n]) != "usr":
            a.entry("/".join(where.split("/")[:n]), 0o040755)
    if where != "bin":
        a.link(where + "/fusedio", "/bin/fusedio")
    a.close()


def part(env, suite=None):
    """
    The part of the initial file system with systemd, of a suite or as the head says, and what its
    version must contain.
    """
    path = vm_suite.root(suite, *PACKAGES) if suite else os.environ.get("VM_SYSTEMD_ROOT") or "/"
    name = env.shared.initrds.part(f"systemd-{suite or 'own'}",
                                   lambda archive: write_archive(archive, Root(path)))
    return name, os.path.basename(path).split("_")[1] if suite else "systemd"
