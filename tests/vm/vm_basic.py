# SPDX-License-Identifier: GPL-2.0-or-later
"""
Everyday use on drives with sectors of 512 and of 4096 bytes and on two namespaces at once
(guest-basic.sh), and a daemon that is locked in memory (guest-mlock.sh).
"""
from vm_env import MIB, e2fsck_clean, make_image
from vm_qemu import raw_drive


def basic(env, lbs):
    one, two = make_image(env.path("one.img"), 96, "-b", 4096), env.path("two.img")
    with open(two, "wb") as f:
        f.truncate(64 * MIB)
    env.boot("basic", [raw_drive("d1", one), raw_drive("d2", two)], lbs=lbs, part="fio")
    env.check("e2fsck", e2fsck_clean, one)
    env.check("e2fsck of the second namespace", e2fsck_clean, two)


def basic_512(env):
    basic(env, 512)


def basic_4096(env):
    basic(env, 4096)


def mlock(env):
    image = make_image(env.path("one.img"), 64, "-b", 4096)
    env.boot("mlock", [raw_drive("d1", image)])
    env.check("e2fsck", e2fsck_clean, image)
