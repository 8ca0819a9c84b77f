# SPDX-License-Identifier: GPL-2.0-or-later
"""
The unit fusedio@.service under systemd, the first process of the guest: at boot, started and
stopped by hand, after a crash, on a wrong device, and when the machine is switched off while a
service writes. The systemd is that of this machine, of Debian 13, or of sid.
"""
import os
import re

import vm_systemd_root
from vm_env import CHANNEL_NAMES, MIB, SLOW, debugfs, e2fsck_clean, expect, make_image
from vm_qemu import raw_drive


def said(path, text):
    with open(path, encoding="utf-8", errors="replace") as f:
        expect(text in f.read(), f"no line with {text!r}")


def channel_said(path, channel):
    """By the daemons' log all mounts were served over this channel, to their end."""
    with open(path, encoding="utf-8", errors="replace") as f:
        said = re.findall(r"FUSE 7\.\d+ over ([^ ,]+),|going on over (\S+)", f.read())
    expect(said, "no line names a channel")
    expect({a or b for a, b in said} == {channel}, f"the log names {said}")


def in_image(image, name, text):
    got = debugfs(image, f"cat {name}")
    expect(got.strip() == text, f"{name} holds {got[:80]!r}")


def systemd(env, suite=None):
    part, version = vm_systemd_root.part(env, suite)
    one, two = make_image(env.path("one.img"), 64, "-b", 4096), env.path("two.img")
    with open(two, "wb") as f:
        f.truncate(8 * MIB)
    g = env.boot("systemd", [raw_drive("d1", one), raw_drive("d2", two)], part=part, timeout=300,
                 append="boot=systemd systemd.unit=vmtest.service systemd.log_target=kmsg "
                 "systemd.show_status=0 printk.devkmsg=on "
                 f"systemd.default_timeout_start_sec={90 * SLOW:.0f}")
    console = os.path.join(g.directory, "console.log")
    said_version = "".join(line for line in g.lines() if line.startswith("SYSTEMD "))
    env.check(f"it was {said_version.lower()}", expect, version in said_version,
              f"not {version}: {said_version}")
    for text in ("does not hold an ext4 file system", "cannot find /dev/nothing"):
        env.check(f"what is wrong with the device is logged: {text}", said, console, text)
    name = CHANNEL_NAMES[env.channel]
    env.check(f"all mounts were served over {name}", channel_said, console, name)
    env.check("a service that writes while the machine is switched off could do so to its end",
              in_image, one, "/bye", "bye")
    env.check("e2fsck after switching off", e2fsck_clean, one)


def systemd_trixie(env):
    systemd(env, "trixie")


def systemd_sid(env):
    systemd(env, "sid")
