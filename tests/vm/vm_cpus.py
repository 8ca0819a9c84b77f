# SPDX-License-Identifier: GPL-2.0-or-later
"""
Guests with many CPUs: root tests and the stress test on four and on eight (guest-cpus.sh), and what
the daemon takes in memory where 64 CPUs are possible and one is there (guest-memory.sh).

The tests need python3 and more, so the guest has a root directory of Debian 13 on a drive, made of
its packages, and the build and the tests on another. QEMU before version 8.1 executes code that a
CPU has just patched in its old form on other CPUs, of which guests die; where the machine's is
older, Debian 13's is used.
"""
import os
import re
import shutil

import vm_suite
from vm_env import BUILD, FUSEDIO, HERE, MIB, Skip, copy, e2fsck_clean, expect, make_image, run
from vm_initrd import libraries
from vm_qemu import QEMU, raw_drive

SUITE = "trixie"
PACKAGES = ("python3", "base-files", "bash", "dash", "coreutils", "diffutils", "findutils", "grep",
            "sed", "mawk", "tar", "e2fsprogs", "util-linux", "mount", "fio", "fuse3", "attr", "acl",
            "psmisc", "procps", "xxd")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
         "usr/bin/sh": "dash", "usr/bin/awk": "mawk", "etc/mtab": "/proc/self/mounts"}
DIRS = ("dev", "proc", "sys", "tmp", "run", "mnt", "root", "var/tmp", "etc")
FILES = {"etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
         "etc/group": "root:x:0:\nnogroup:x:65534:\n"}
TOOLS = ("fusedioctl", "tests/root/aiotool", "tests/root/cohtool", "tests/root/fsxtool",
         "tests/root/hangfs", "tests/root/refuse.so", "tests/stress/churn")
SCRIPTS = ("11-dio", "18-transport", "19-coherence", "27-values")
EMULATES_PATCHING = (8, 1)


def many_cpus():
    """The command of a QEMU that emulates many CPUs faithfully."""
    m = re.search(r"version (\d+)\.(\d+)", run(*QEMU, "--version").stdout)
    if m and tuple(map(int, m.groups())) >= EMULATES_PATCHING:
        return QEMU
    root = vm_suite.root(SUITE, "qemu-system-x86")
    return (*vm_suite.loader(root), os.path.join(root, "usr/bin/qemu-system-x86_64"),
            "-L", f"{root}/usr/share/qemu", "-L", f"{root}/usr/share/seabios")


def image_of(tree, path, spare_mib):
    """An ext4 image of a directory."""
    used = sum(os.lstat(os.path.join(d, f)).st_size + 4096
               for d, _, files in os.walk(tree) for f in files)
    return make_image(path, used // MIB * 5 // 4 + spare_mib, "-b", 4096, "-O", "^has_journal",
                      "-E", "root_owner=0:0", "-d", tree)


def debian(env):
    """The drive with Debian's root directory, which is made once."""
    tree = vm_suite.root(SUITE, *PACKAGES)
    kept = tree + ".img"
    if not os.path.exists(kept):
        for name, target in LINKS.items():
            if not os.path.lexists(os.path.join(tree, name)):
                os.symlink(target, os.path.join(tree, name))
        for name in DIRS:
            os.makedirs(os.path.join(tree, name), exist_ok=True)
        for name, text in FILES.items():
            with open(os.path.join(tree, name), "w", encoding="utf-8") as f:
                f.write(text)
        shutil.move(image_of(tree, env.path("debian.img"), 32), kept)
    return tree, copy(kept, env.path("root.img"))


def build_drive(env, tree):
    """The drive with the daemon, the tests, and the libraries that Debian's root does not have."""
    new = env.path("build")
    os.makedirs(os.path.join(new, "lib"))
    for d in ("root", "stress", "sanitizers"):
        shutil.copytree(os.path.join(HERE, "..", d), os.path.join(new, "tests", d),
                        ignore=shutil.ignore_patterns("*.[ch]", "Makefile*", "__pycache__"))
    files = {"fusedio": FUSEDIO, **{t: os.path.join(BUILD, t) for t in TOOLS}}
    there = [os.path.join(tree, d) for d in vm_suite.LIBRARIES]
    for name, path in files.items():
        if not os.path.exists(path):
            raise Skip(f"{path} was not built (make root-tools)")
        shutil.copy(path, os.path.join(new, name))
        for lib in libraries(path).values():
            base = os.path.basename(lib)
            if not any(os.path.exists(os.path.join(d, base)) for d in there):
                shutil.copy(lib, os.path.join(new, "lib", base))
    return image_of(new, env.path("build.img"), 16)


def cpus(env, number, *scripts):
    tree, root = debian(env)
    build = build_drive(env, tree)
    env.boot("cpus", [raw_drive("d1", root), raw_drive("d2", build)], cpus=number, timeout=900,
             memory=2048 + 256 * number, qemu=many_cpus(), modules=True,
             append=f"arg={','.join((str(number), *scripts))}")


def cpus_4(env):
    cpus(env, 4, *SCRIPTS)


def cpus_8(env):
    cpus(env, 8, *SCRIPTS)


def stress_4(env):
    cpus(env, 4, "stress")


def stress_8(env):
    cpus(env, 8, "stress")


# ---- memory ----

POSSIBLE = 64
# As doc/performance.md has it: what one CPU in use takes, with a little for the C library and the
# kernel, and what each CPU takes that is offline.
ONE_CPU_MIB, OFFLINE_MIB = 90, 0.2


def memory_64(env):
    """A daemon's memory at mount, where one CPU is there and 64 are possible."""
    image = make_image(env.path("one.img"), 64, "-b", 4096)
    g = env.boot("memory", [raw_drive("d1", image)], memory=1536, cpus=POSSIBLE,
                 append=f"arg={POSSIBLE} maxcpus=1")
    rss = [int(line.split()[1]) // 1024 for line in g.lines() if line.startswith("RSS ")]
    expect(len(rss) == 1, f"{len(rss)} daemons")
    limit = ONE_CPU_MIB + int(OFFLINE_MIB * POSSIBLE)
    env.check(f"{rss[0]} MiB at mount with {POSSIBLE} possible CPUs", expect, rss[0] <= limit,
              f"more than {limit} MiB")
    env.check("e2fsck", e2fsck_clean, image)
