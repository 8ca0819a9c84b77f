# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guests' kernels: Debian's linux-image-*-cloud-amd64, which are named by the beginning of their
version ("6.1", "7.3", "7.1.3") and found in all of Debian's suites (vm_apt.py), the newest first;
"default" is the one that the machine's own sources offer. The packages are downloaded once,
unpacked without installing them, and kept in a directory:

    FDIO_VM_CACHE    that directory (default: $XDG_CACHE_HOME/fusedio-vm, else ~/.cache/fusedio-vm)
    FDIO_VM_DEB      .deb files of another kernel (linux-image, linux-binary, linux-modules), used
                     instead of "default"

If a kernel cannot be downloaded, the newest in that directory that fits is used.
"""
import glob
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile

import vm_apt
from vm_env import Fail, Skip, need, run

META = "linux-image-cloud-amd64"
FIRST_WITH_RING = (6, 14)
# What guests need beside the kernel, if it is not built in: each module, after what it depends on.
BOOT_MODULES = ("fuse", "nvme")
MORE_MODULES = ("loop", "ext4")


class Kernel:
    """
    A kernel in the cache. spec is how it was asked for, release its own name, version the
    package's; offers_ring: it can do FUSE over io_uring.
    """

    def __init__(self, spec, directory):
        with open(os.path.join(directory, "meta.json"), encoding="utf-8") as f:
            meta = json.load(f)
        self.spec, self.directory = spec, directory
        self.release, self.version = meta["release"], meta["version"]
        self.offers_ring = meta["offers_ring"]
        self.boot_modules, self.more_modules = meta["boot_modules"], meta["more_modules"]
        self.vmlinuz = os.path.join(directory, "vmlinuz")
        self.ring_is_missing = old_enough(self.release) and not self.offers_ring


def cache_dir():
    base = os.environ.get("FDIO_VM_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                            "fusedio-vm")
    os.makedirs(base, exist_ok=True)
    return base


# ---- unpacking ----

def decompressed(path):
    """The contents of a module's file."""
    if path.endswith(".zst"):
        need("zstd")
        return run("zstd", "-dcq", path, text=False).stdout
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(os.path.splitext(path)[1], open)
    with opener(path, "rb") as f:
        return f.read()


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def information(data, field):
    """What a module says about itself: all values of a field."""
    return [v.decode() for v in re.findall(rb"\0" + field.encode() + rb"=([^\0]*)\0", data)]


class Modules:
    """The modules of an unpacked kernel. keep copies them to where they are kept."""

    def __init__(self, root, target):
        self.paths = {module_name(p): p
                      for p in glob.glob(f"{root}/**/kernel/**/*.ko*", recursive=True)}
        self.target = target
        self.data = {}

    def keep(self, names):
        """Keeps these modules and what they depend on; returns the names in the order to load."""
        order = []
        for name in names:
            self.visit(name.replace("-", "_"), order)
        return order

    def visit(self, name, order):
        if name in order or name not in self.paths:
            return  # one that is not there is built in
        data = self.data[name] = decompressed(self.paths[name])
        needed = ",".join(information(data, "depends")).split(",")
        needed += [m for soft in information(data, "softdep") if soft.startswith("pre:")
                   for m in soft.split()[1:]]
        for other in filter(None, needed):
            self.visit(other.replace("-", "_"), order)
        order.append(name)
        with open(os.path.join(self.target, f"{name}.ko"), "wb") as f:
            f.write(data)


def old_enough(release):
    """Linux of this age has FUSE over io_uring, and Debian builds it."""
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", release).groups())) >= FIRST_WITH_RING


def offers_ring(root, modules, release):
    """
    The kernel's module fuse, which may be built in, has the parameter that switches the ring on.
    Debian removes the lists of built-in modules earlier than the kernels themselves; then the
    version decides, and the scenarios fail if that is wrong.
    """
    if "fuse" in modules.data:
        return any(p.startswith("enable_uring:") for p in information(modules.data["fuse"], "parm"))
    lists = glob.glob(f"{root}/**/modules.builtin.modinfo", recursive=True)
    for path in lists:
        with open(path, "rb") as f:
            if b"\0fuse.parm=enable_uring:" in f.read():
                return True
    return not lists and old_enough(release)


def unpack(debs, target, version):
    """Keeps of the packages in debs the kernel and the modules that a guest needs."""
    tmp = tempfile.mkdtemp(dir=os.path.dirname(target))
    try:
        root, new = os.path.join(tmp, "root"), os.path.join(tmp, "new")
        os.mkdir(new)
        for deb in debs:
            run("dpkg-deb", "-x", deb, root, timeout=300)
        found = glob.glob(f"{root}/boot/vmlinuz-*") + \
            glob.glob(f"{root}/usr/lib/modules/*/vmlinuz")
        if not found:
            raise Skip(f"{' '.join(map(os.path.basename, debs))}: no vmlinuz in it")
        release = re.search(r"(?:vmlinuz-|modules/)(\d[^/]*)", found[0]).group(1)
        shutil.copy(found[0], os.path.join(new, "vmlinuz"))
        modules = Modules(root, new)
        boot = modules.keep(BOOT_MODULES)
        more = [m for m in modules.keep(MORE_MODULES) if m not in boot]
        meta = {"release": release, "version": version, "boot_modules": boot,
                "more_modules": more, "offers_ring": offers_ring(root, modules, release)}
        with open(os.path.join(new, "meta.json"), "w", encoding="utf-8") as f:
            json.dump(meta, f)
        try:
            os.rename(new, target)
        except OSError:
            pass  # another process has made it meanwhile
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return target


# ---- finding ----

def pattern(spec):
    return r"linux-image-" + re.escape(spec) + r"([.+-].*)?-cloud-amd64"


def wanted(spec):
    """The apt that offers a kernel, and the package."""
    if spec == "default":
        meta = vm_apt.OWN.newest([META])
        images = [n for n, _ in meta.depends if n.startswith("linux-image-")] if meta else []
        package = vm_apt.OWN.newest(images)
        if not package:
            raise Skip(f"apt does not know {META}")
        return vm_apt.OWN, package
    apt = vm_apt.all_suites(cache_dir())
    package = apt.newest([n for n in apt.search(f"^{pattern(spec)}$")
                          if not re.search("unsigned|dbg", n)])
    if not package:
        raise Skip(f"none of Debian's suites has a linux-image-{spec}*-cloud-amd64")
    return apt, package


def download(apt, package, target):
    """The image, and the packages of the same kernel that newer ones have beside it."""
    release = package.name[len("linux-image-"):]
    names = [n for n, _ in package.depends
             if n in (f"linux-{part}-{release}" for part in ("binary", "modules", "base"))]
    others = [p for p in apt.show(*names) if p.version == package.version]
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as tmp:
        return unpack(apt.download([package, *others], tmp), target, package.version)


def own_kernel(files):
    """The kernel of FDIO_VM_DEB."""
    for f in files:
        if not os.path.exists(f):
            raise Fail(f"FDIO_VM_DEB: {f} does not exist")
    text = " ".join(f"{os.path.abspath(f)} {os.stat(f).st_mtime_ns}" for f in files)
    target = os.path.join(cache_dir(), f"own-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    version = run("dpkg-deb", "-f", files[0], "Version").stdout.strip()
    return target if os.path.isdir(target) else unpack(files, target, version)


def cached(spec):
    """The newest kernel in the cache that fits, or None."""
    fitting = [d for d in glob.glob(os.path.join(cache_dir(), "kernel-linux-image-*"))
               if spec == "default" or re.match(pattern(spec) + "_",
                                                os.path.basename(d)[len("kernel-"):])]
    return max(fitting, key=os.path.getmtime, default=None)


def find(spec):
    """The kernel of this name. Raises Skip if it cannot be had."""
    need("dpkg-deb")
    own = (os.environ.get("FDIO_VM_DEB") or "").split()
    if own and spec == "default":
        return Kernel(spec, own_kernel(own))
    try:
        apt, package = wanted(spec)
        target = os.path.join(cache_dir(), f"kernel-{package.name}_{package.version}")
        if not os.path.isdir(target):
            download(apt, package, target)
        return Kernel(spec, target)
    except Skip as e:
        older = cached(spec)
        if not older:
            raise Skip(f"the kernel cannot be had: {e}") from None
        return Kernel(spec, older)
