#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The same random system calls on fusedio and on the kernel's ext4, on identical file systems: whatever they return, and what
becomes of the files, must be the same (tests/differential/). FDIO_DIFF_SEEDS=50 FDIO_DIFF_FIRST=100 runs more of it than
check-root does, FDIO_DIFF_STEPS longer ones.
"""
import os

from lib import BUILD, FUSEDIO, Fail, case, main, mountinfo, run

SEEDS = int(os.environ.get("FDIO_DIFF_SEEDS") or "5")
FIRST = int(os.environ.get("FDIO_DIFF_FIRST") or "1")
STEPS = int(os.environ.get("FDIO_DIFF_STEPS") or "1500")
PROGRAM = os.path.join(BUILD, "tests/differential/differential")
LAYOUTS = {
    "4k": ["-b", "4096"],
    "1k": ["-b", "1024"],
    "plain": ["-b", "4096", "-O", "^metadata_csum,^64bit,^dir_index"],
}


def steady(point):
    """The kernel may write zeroes instead of splitting an unwritten extent, which makes data of a hole: off."""
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
            out = differential("--seed", FIRST, "--seeds", SEEDS, "--steps", STEPS, "--minimize", m.point, theirs)
            print("# " + out.strip().replace("\n", "\n# "))
            differential("--seed", FIRST + SEEDS, "--steps", STEPS, "--keep", m.point, theirs)
        vol.check()
        # What is on the disk is what was shown.
        with vol.mount("nodev", "nosuid", "ro") as m:
            differential("--trees", m.point, theirs)
    vol.check()


main()
