#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The same random system calls on fusedio and on the kernel's ext4, on identical file systems: results
of the calls and the files must be equal (tests/differential/).

check-root runs a few seeds. FDIO_DIFF_SEEDS=50 FDIO_DIFF_FIRST=100 runs others, FDIO_DIFF_STEPS
makes them longer.
"""
import os
import re

from lib import BUILD, FUSEDIO, Fail, case, expect, expect_eq, fallocate, main, mountinfo, run

SEEDS = int(os.environ.get("FDIO_DIFF_SEEDS") or "5")
FIRST = int(os.environ.get("FDIO_DIFF_FIRST") or "1")
STEPS = int(os.environ.get("FDIO_DIFF_STEPS") or "1500")
PROGRAM = os.path.join(BUILD, "tests/differential/differential")
CTL = os.path.join(BUILD, "fusedioctl")
LAYOUTS = {
    "4k": ["-b", "4096"],
    "1k": ["-b", "1024"],
    "values": ["-b", "1024", "-O", "ea_inode"],
    "plain": ["-b", "4096", "-O", "^metadata_csum,^64bit,^dir_index"],
}


def steady(point):
    """
    Stops the kernel from writing zeroes instead of splitting an unwritten extent: that would turn a
    hole into data.
    """
    dev = os.path.basename(mountinfo(point)[2])
    with open(f"/sys/fs/ext4/{dev}/extent_max_zeroout_kb", "w") as f:
        f.write("0\n")


def differential(*args):
    p = run(PROGRAM, *args, ok=None, timeout=120 + SEEDS * 30)
    if p.returncode:
        print("# " + (p.stdout + p.stderr).strip().replace("\n", "\n# "))
        raise Fail(f"{FUSEDIO} and the kernel differ")
    return p.stdout


@case(timeout=180 + SEEDS * 40, params=tuple(LAYOUTS))
def same_as_ext4(env, layout):
    vol = env.volume(512, *LAYOUTS[layout])
    other = vol.copy()
    with other.kmount("nodev", "nosuid") as theirs:
        steady(theirs)
        with vol.mount("nodev", "nosuid") as m:
            out = differential("--seed", FIRST, "--seeds", SEEDS, "--steps", STEPS, "--minimize",
                               m.point, theirs)
            print("# " + out.strip().replace("\n", "\n# "))
            differential("--seed", FIRST + SEEDS, "--steps", STEPS, "--keep", m.point, theirs)
        vol.check()
        # The disk holds what the mount showed.
        with vol.mount("nodev", "nosuid", "ro") as m:
            differential("--trees", m.point, theirs)
    vol.check()



@case()
def limits_are_as_listed(env):
    """FUSE forbids exactly the calls that doc/compatibility.md and fusedio(8) list."""
    vol = env.volume(64)
    other = vol.copy()
    with other.kmount() as theirs, vol.mount() as m:
        print("# " + differential("--limits", m.point, theirs).strip().replace("\n", "\n# "))
    vol.check()


@case()
def map_shows_extents(env):
    """fusedioctl map prints what the kernel's FIEMAP returns for the same file later."""
    vol = env.volume(64)
    with vol.mount() as m:
        with open(m.path("f"), "wb") as f:
            for k in range(260):
                os.pwrite(f.fileno(), b"x" * 4096, k * 12288)
            fallocate(f.fileno(), 0, 260 * 12288, 65536)
        text = run(CTL, "map", m.path("f")).stdout
        p = run(CTL, "map", env.dir, ok=(1,))
        expect("not a regular file of a fusedio mount" in p.stderr, p.stderr)
    ours = re.findall(r"^ *\d+: +(\d+)\.\. *(\d+): +(\d+)\.\. *(\d+): +(\d+): (\S*)", text, re.M)
    expect_eq(len(ours), 261, "extents")
    expect_eq(ours[-1][5], "last,unwritten", "the last one")
    with vol.kmount("ro") as k:
        text = run("filefrag", "-e", os.path.join(k, "f")).stdout
    theirs = re.findall(r"^ *\d+: +(\d+)\.\. *(\d+): +(\d+)\.\. *(\d+): +(\d+):", text, re.M)
    expect_eq([o[:5] for o in ours], theirs, "extents by fusedioctl and by FIEMAP")
    vol.check()


main()
