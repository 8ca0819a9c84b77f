# SPDX-License-Identifier: GPL-2.0-or-later
"""
The guest's kernel: Debian's linux-image-cloud-amd64, which has NVMe built in, and FUSE built in or
as one module. The package is downloaded once, unpacked without installing it, and kept in a
directory:

    FDIO_VM_CACHE    that directory (default: $XDG_CACHE_HOME/fusedio-vm, else ~/.cache/fusedio-vm)
    FDIO_VM_DEB      the .deb file of another linux-image package, used instead

If the package cannot be downloaded, the newest kernel in that directory is used.
"""
import glob
import hashlib
import lzma
import os
import re
import subprocess
import tarfile
import tempfile

from vm_env import Fail, Skip, need, run

META = "linux-image-cloud-amd64"


def cache_dir():
    base = os.environ.get("FDIO_VM_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                            "fusedio-vm")
    os.makedirs(base, exist_ok=True)
    return base


def wanted_package():
    """The package that META depends on today, and its version; or None."""
    try:
        show = run("apt-cache", "show", META, ok=None).stdout
    except (Skip, Fail):
        return None
    m = re.search(r"^Depends: (linux-image-\S+) \(= (\S+)\)", show, re.M)
    return m.groups() if m else None


def unpack(deb, target):
    """Unpacks vmlinuz and, if FUSE is a module, fuse.ko."""
    tmp = tempfile.mkdtemp(dir=os.path.dirname(target))
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as p:
        with tarfile.open(fileobj=p.stdout, mode="r|") as tar:
            for member in tar:
                base = os.path.basename(member.name)
                if not member.isfile() or not re.match(r"(vmlinuz|fuse\.ko)", base):
                    continue
                data = tar.extractfile(member).read()
                if base.endswith(".xz"):
                    data = lzma.decompress(data)
                with open(os.path.join(tmp, "fuse.ko" if base.startswith("fuse") else "vmlinuz"),
                          "wb") as f:
                    f.write(data)
        p.wait()
    if not os.path.exists(os.path.join(tmp, "vmlinuz")):
        raise Skip(f"{deb} holds no kernel")
    try:
        os.rename(tmp, target)
    except OSError:
        pass  # another process has made it meanwhile
    return target


def download(package, target):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as tmp:
        os.chmod(tmp, 0o777)  # apt downloads as another user
        try:
            p = subprocess.run(["apt-get", "download", "-q", package], cwd=tmp,
                               stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Skip(f"the kernel cannot be had: {e}") from None
        debs = glob.glob(os.path.join(tmp, "*.deb"))
        if p.returncode or not debs:
            raise Skip(
                f"the kernel cannot be had: apt-get download {package}: {p.stdout.strip()[-200:]}")
        return unpack(debs[0], target)


def find():
    """The directory with vmlinuz and perhaps fuse.ko. Raises Skip if there is none."""
    need("dpkg-deb")
    cache = cache_dir()
    own = os.environ.get("FDIO_VM_DEB")
    if own:
        path_hash = hashlib.sha256(os.path.abspath(own).encode()).hexdigest()[:8]
        name = f"own-{path_hash}-{int(os.stat(own).st_mtime)}"
        target = os.path.join(cache, name)
        return target if os.path.isdir(target) else unpack(own, target)
    package = wanted_package()
    target = os.path.join(cache, f"{package[0]}_{package[1]}") if package else None
    if target and os.path.isdir(target):
        return target
    older = sorted(glob.glob(os.path.join(cache, "linux-image-*", "vmlinuz")), key=os.path.getmtime)
    try:
        if not target:
            raise Skip(f"the kernel cannot be had: apt does not know {META}")
        return download(package[0], target)
    except Skip:
        if older:
            return os.path.dirname(older[-1])
        raise
