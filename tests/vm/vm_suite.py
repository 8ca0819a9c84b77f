# SPDX-License-Identifier: GPL-2.0-or-later
"""
Programs of another suite of Debian than this machine's: their packages and all that these depend
on, unpacked in a directory of the cache without installing them, and used by way of their own
dynamic linker, without a chroot and without root.
"""
import glob
import os
import re
import shutil
import tempfile
import urllib.parse

import vm_apt
from vm_env import Skip, run
from vm_kernel import cache_dir

LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = [f"{top}/{d}" for d in ("x86_64-linux-gnu", "x86_64-linux-gnu/systemd", "systemd", "")
             for top in ("usr/lib", "lib")]


def loader(root):
    """The command that runs a program of this root directory with its libraries."""
    for top in ("usr/", ""):
        path = os.path.join(root, top + LOADER)
        if os.path.exists(path):
            return path, "--library-path", ":".join(os.path.join(root, d) for d in LIBRARIES)
    raise Skip(f"{root} has no {LOADER}")


def unpack(apt, install, target, why):
    with tempfile.TemporaryDirectory(dir=cache_dir()) as tmp:
        os.makedirs(os.path.join(tmp, "archives/partial"))
        p = apt.call("apt-get", "-q", "--download-only", "-o",
                     f"Dir::Cache::archives={tmp}/archives", *install, timeout=900)
        if p.returncode:
            raise Skip(f"{why}: {' '.join(p.stdout.split())[-200:]}")
        for deb in glob.glob(os.path.join(tmp, "archives/*.deb")):
            run("dpkg-deb", "-x", deb, os.path.join(tmp, "root"), timeout=300)
        for name in ("doc", "locale", "man", "i18n"):
            shutil.rmtree(os.path.join(tmp, "root/usr/share", name), ignore_errors=True)
        try:
            os.rename(os.path.join(tmp, "root"), target)
        except OSError:
            pass  # another process has made it meanwhile


def root(suite, *packages):
    """
    A root directory with these packages; its name has the version of the first. If they cannot be
    downloaded, the newest in the cache is used.
    """
    base = os.path.join(cache_dir(), f"{packages[0]}-{suite}_")
    why = f"{packages[0]} of {suite} cannot be had"
    apt = vm_apt.all_suites(cache_dir())
    install = ("-y", "--no-install-recommends", "-t", suite, "install", *packages)
    said = apt.call("apt-get", "--print-uris", *install).stdout
    m = re.search(rf"/{re.escape(packages[0])}_([^_/]+)_[a-z0-9]+\.deb'", said)
    if not m:
        older = glob.glob(base + "*")
        if older:
            return max(older, key=os.path.getmtime)
        raise Skip(f"{why}: {' '.join(said.split())[-200:]}")
    target = base + urllib.parse.unquote(m.group(1))
    if not os.path.isdir(target):
        unpack(apt, install, target, why)
    return target
