# SPDX-License-Identifier: GPL-2.0-or-later
"""
Power cuts, tested in two ways. power_cut kills QEMU while its drive has a volatile cache. write_log
records all writes of a drive; then each image that a power cut could have left is recovered, by the
daemon (as root) and by e2fsck, and compared with the steps that were announced as durable by that
moment.
"""
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from vm_env import (FUSEDIO, MIB, Fail, copy, e2fsck_clean, e2fsck_replay, expect, make_image, run,
                    wait_for)
from vm_qemu import log_drive, qcow2_drive, time_limit
from vm_steps import announced, check, check_image
from vm_writelog import crash_states, marks, parse, put

SIZE_MIB, RESERVE = 24, 64 << 10
MARK = SIZE_MIB * MIB - 4096
SEED = int(os.environ.get("VM_SEED") or "1")


def new_image(env, name):
    return make_image(env.path(name), SIZE_MIB, "-b", 1024, "-J", "size=4", reserve=RESERVE)


def can_mount():
    return os.geteuid() == 0 and os.path.exists("/dev/fuse")


def recover_by_daemon(image, last, mnt):
    """
    Mounts the image, so that the daemon replays the journal. All announced steps must be there;
    after umount, e2fsck must find nothing.
    """
    os.makedirs(mnt, exist_ok=True)
    run(FUSEDIO, image, mnt, timeout=120)
    try:
        if last:
            check(os.path.join(mnt, "steps"), last)
    finally:
        # umount fails while a child that another thread forked still has a file of the mount open.
        wait_for(lambda: run("umount", mnt, ok=None).returncode == 0, f"umount {mnt}")
        run("flock", image, "true")  # the daemon holds this lock until it has ended
    os.rmdir(mnt)
    e2fsck_clean(image)


def recover_by_e2fsck(image, last, scratch):
    e2fsck_replay(image)
    if last:
        shutil.rmtree(scratch, ignore_errors=True)
        check_image(image, last, scratch)


# ---- the log of writes ----

def record(env, steps):
    image = new_image(env, "drive.img")
    base = copy(image, env.path("base.img"))
    g = env.boot("steps", [log_drive("d1", image, env.path("log"))], append=f"arg=1,{steps},{MARK}")
    expect(announced(g.lines()) == steps,
           f"only {announced(g.lines())} of {steps} steps: {g.lines()[-3:]}")
    return base, image, parse(env.path("log"))


def same_bytes(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        expect(f.read() == g.read(), "the log does not make the drive's contents")


class Replay:
    """Makes the images of the crash states in order, and recovers each."""

    def __init__(self, env, base, entries):
        self.env, self.entries = env, entries
        self.rolling = copy(base, env.path("rolling.img"))  # the base with entries[:done]
        self.done = 0
        self.announced = marks(entries, MARK)
        self.bad = []

    def roll(self, upto):
        with open(self.rolling, "r+b") as f:
            for e in self.entries[self.done:upto]:
                put(f, e)
        self.done = max(self.done, upto)

    def state(self, n, index, chosen):
        """Makes the image of a state; returns it and the last step that was announced before it."""
        self.roll(index + 1)
        image = copy(self.rolling, self.env.path(f"state{n}.img"))
        with open(image, "r+b") as f:
            for i in chosen:
                put(f, self.entries[i])
        return image, self.announced[chosen[-1] if chosen else index]

    def examine(self, n, name, image, last):
        """Recovers one image in both ways. Runs on a thread of the pool."""
        try:
            if can_mount():
                second = copy(image, image + ".copy")
                recover_by_daemon(second, last, self.env.path(f"mnt{n}"))
                os.unlink(second)
            recover_by_e2fsck(image, last, image + ".files")
            shutil.rmtree(image + ".files", ignore_errors=True)
            os.unlink(image)
        except Fail as e:
            self.bad.append(f"{name}, {last} steps announced: {e}")

    def run(self, subsets):
        """Examines all states; returns their number."""
        n = 0
        with ThreadPoolExecutor(2) as pool:
            waiting = []
            for name, index, chosen in crash_states(self.entries, subsets, SEED):
                image, last = self.state(n, index, chosen)
                waiting.append(pool.submit(self.examine, n, name, image, last))
                n += 1
                if len(waiting) > 8:
                    waiting.pop(0).result()
        return n


def write_log(env, steps=35, subsets=2):
    base, image, entries = record(env, steps)
    env.check("e2fsck", e2fsck_clean, image)
    replay = Replay(env, base, entries)
    count = replay.run(subsets)
    replay.roll(len(entries))
    env.check("the log makes the drive's contents", same_bytes, replay.rolling, image)
    how = "the daemon and e2fsck" if can_mount() else "e2fsck (the daemon: only as root)"
    for bad in replay.bad[:5]:
        env.bad("a state after a power cut", f"seed {SEED}: {bad}")
    if not replay.bad:
        env.ok(f"{count} states of {len(entries)} requests, {steps} announced steps, recovered by "
               f"{how}")
    expect(count > steps, f"only {count} states")


def write_log_long(env):
    write_log(env, 120, 4)


# ---- killing QEMU ----

def overlay(env, base, n):
    path = env.path(f"overlay{n}.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
        f"cluster_size=32k,extended_l2=on,backing_file={base},backing_fmt=raw", path)
    return path


def cut(env, base, n, first, steps, rng, deaf=False):
    """
    Runs steps on an overlay of base and kills QEMU after some; returns the image that is left and
    the last announced step. deaf: the guest's kernel sends no flushes.
    """
    over = overlay(env, base, n)
    g = env.guest("steps", [qcow2_drive("d1", over)],
                  append=f"arg={first},1000000,none{',deaf' if deaf else ''}")
    want = first - 1 + steps
    expect(g.wait(lambda: announced(g.lines()) >= want, g.timeout),
           f"{want} steps were not reached: {time_limit(g.timeout)}: {g.lines()[-2:]} {g.tail()}")
    time.sleep(rng.random() * 0.3)
    g.kill()
    env.record(g)
    left = env.path(f"cut{n}.img")
    run("qemu-img", "check", "-q", "-r", "leaks", over, ok=(0, 2, 3))
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", over, left)
    os.unlink(over)
    return left, announced(g.lines())


def power_cut(env, cuts=3):
    rng = random.Random(SEED)
    image, last = new_image(env, "base.img"), 0
    for n in range(cuts):
        image, last = cut(env, image, n, last + 1, rng.randrange(15, 30), rng)
        second = copy(image, env.path("copy.img"))
        env.check(f"cut {n + 1}: {last} announced steps are there", recover_by_e2fsck, second, last,
                  env.path("files"))
    over = overlay(env, image, cuts)
    env.boot("steps", [qcow2_drive("d1", over)], append="arg=1,0,none")
    final = env.path("final.img")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", over, final)
    env.check("e2fsck after the daemon's recovery on the drive", e2fsck_clean, final)
    shutil.rmtree(env.path("files"), ignore_errors=True)
    env.check(f"{last} announced steps are there after it", check_image, final, last,
              env.path("files"))


def power_cut_control(env):
    """The control experiment: if the drive gets no flushes, the check must fail."""
    left, last = cut(env, new_image(env, "base.img"), 0, 1, 30, random.Random(SEED), deaf=True)
    try:
        recover_by_e2fsck(left, last, env.path("files"))
    except Fail as e:
        env.ok(f"a drive that gets no flushes is noticed ({str(e)[:60]})")
        return
    env.bad("a drive that gets no flushes", f"all {last} announced steps are there")
