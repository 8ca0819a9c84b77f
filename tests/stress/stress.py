#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The stress test: fio with verification, files compared with a model (fsxtool), many processes in one
tree (churn) and listings, all at once. It runs in rounds over both transports, with changing
options; the rounds end in every way in which a mount can end under load. In some rounds the device
fails, hangs and is slow at random. STRESS_SECONDS says how long it runs (default 120), STRESS_SEED
chooses the random numbers; both are printed, and a failure names its round.

After each round: every client has ended; if the mount was not ended under load, the daemon has
answered every request and the kernel waits for none; after the unmount, or after recovery, e2fsck
-fn finds nothing.
"""
import contextlib
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "root"))
from hangdisk import Disk  # noqa: E402  (the path comes first)
from lib import (BUILD, SLOW, Fail, Skip, case, counters, expect, main,  # noqa: E402
                 need, offer_ring, run, wait_for)

SECONDS = int(os.environ.get("STRESS_SECONDS") or "120")
SEED = int(os.environ.get("STRESS_SEED") or "1")
ROUND = 8  # seconds of load
TOTAL = {"rounds": 0, "faults": 0}
CHURN = os.path.join(BUILD, "tests/stress/churn")
FSX = os.path.join(BUILD, "tests/root/fsxtool")
OPTIONS = ([], ["noparallel_dio"], ["dio=relaxed"], ["queue_depth=4"], ["workers=2", "commit=1"],
           ["queue_depth=2", "noparallel_dio"], ["discard", "commit=1"])
ENDS = ("peace", "faults", "term", "busy", "force", "kill", "lazy")
FORMATS = (("-b", "4096"), ("-b", "1024"), ("-b", "4096", "-O", "^metadata_csum"))


class Client:
    """A program that works on the mount, in a session of its own."""

    def __init__(self, env, name, *argv):
        self.name = name
        self.log = env.unique("out-")
        # A mapped page that cannot be read causes SIGBUS, which is no fault of the program.
        own = {k: ":".join(x for x in (os.environ.get(k), "handle_sigbus=0") if x)
               for k in ("ASAN_OPTIONS", "TSAN_OPTIONS")}
        with open(self.log, "wb") as f:
            self.proc = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=f,
                                         stderr=f, cwd=env.dir, start_new_session=True,
                                         env={**os.environ, **own})

    def tail(self):
        with open(self.log, errors="replace") as f:
            lines = f.read().strip().splitlines()
        return " | ".join(lines[:3] + ["..."] + lines[-3:] if len(lines) > 6 else lines)[:900]

    def kill(self):
        with contextlib.suppress(OSError):
            os.killpg(self.proc.pid, signal.SIGKILL)


def members(sid):
    """The processes of a session that still run, each with its state and its kernel stack."""
    out = []
    for d in os.listdir("/proc"):
        if d.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{d}/stat") as f:
                    rest = f.read().rsplit(")", 1)[1].split()
                if int(rest[3]) == sid and rest[0] != "Z":
                    with open(f"/proc/{d}/stack") as f:
                        out.append(f"{d} {rest[0]} "
                                   + " ".join(x.split()[-1] for x in f.read().splitlines()[:5]))
    return out


def start_clients(env, m, rng, seconds, dying):
    """Starts all clients. dying: the mount may end under them, so errors are no failure."""
    def fio(name, *args):
        return Client(env, "fio " + name, "fio", f"--name={name}", f"--directory={m.point}",
                      "--time_based", f"--runtime={seconds}", "--thread", "--verify_state_save=0",
                      "--fallocate=none", *args)
    align = 1 if "dio=relaxed" in m.opts else 512
    out = [fio("aio", "--size=12m", "--rw=randrw", "--bsrange=512-64k", "--blockalign=512",
               "--direct=1", "--ioengine=libaio", "--iodepth=16"),
           fio("check", "--size=8m", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
               "--iodepth=8", "--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1",
               "--numjobs=2"),
           fio("cached", "--size=8m", "--rw=randrw", "--bs=8k", "--ioengine=psync", "--fsync=50",
               "--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1"),
           fio("sync", "--size=4m", "--rw=randwrite", "--bs=4k", "--direct=1", "--sync=dsync",
               "--ioengine=psync", "--numjobs=2"),
           Client(env, "churn", CHURN, m.path("churn"), rng.randrange(1 << 30), seconds, 4,
                  *(["dying"] if dying else []))]
    for k in range(2):
        out.append(Client(env, f"fsxtool {k}", FSX, m.path(f"fsx{k}"), rng.randrange(1 << 30),
                          10**9, 256 << 10, align, f"seconds={seconds}"))
    return out


def wait_clients(clients, seconds, must_succeed):
    """
    Waits until all clients have ended, and the processes that they started. A client that hangs
    fails the round; with must_succeed, so does one that fails.
    """
    end = time.monotonic() + (seconds + 60) * SLOW
    said = False
    for c in clients:
        try:
            rc = c.proc.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            stuck = members(c.proc.pid)
            raise Fail(f"{c.name} hangs: {stuck[:3]}; {c.tail()}") from None
        if must_succeed and rc != 0:
            raise Fail(f"{c.name} ended with {rc}: {c.tail()}")
        late = time.monotonic() - (end - 60 * SLOW)
        if late > 4 and not said:
            said = True
            print(f"#   {c.name} took {late:.1f} s longer than it was told", flush=True)
    for c in clients:
        wait_for(lambda c=c: not members(c.proc.pid),
                 f"the end of what {c.name} started: {members(c.proc.pid)[:3]}", 30)


def waiting(m):
    """How many requests of this mount the kernel has in flight."""
    minor = os.stat(m.point).st_dev
    try:
        with open(
                f"/sys/fs/fuse/connections/{os.minor(minor) | os.major(minor) << 20}/waiting") as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def at_rest(m):
    """
    Waits until nothing is in flight: the kernel waits for no request and the daemon has answered
    all. No counter of damage or of I/O errors may have risen.
    """
    wait_for(lambda: waiting(m) == 0, f"an end of the {waiting(m)} requests the kernel waits for",
             30)

    def settled():
        c = counters(m)
        return c.get("transport_requests") and c["transport_requests"] == c.get("transport_replies")
    wait_for(settled, "an answer to every request", 30)
    bad = counters(m)
    for name in ("ext4_corrupt", "transport_bad_message", "dio_io_error"):
        expect(not bad.get(name), f"{bad.get(name)} {name}")


def end_under_load(m, how, rng):
    """Ends the mount in the way how after a part of the round ("busy": umount must refuse)."""
    time.sleep(rng.uniform(0.3, 0.7) * ROUND)
    if how == "busy":
        p = run("umount", m.point, ok=None)
        expect(p.returncode != 0 and "busy" in p.stderr,
               f"umount of a busy mount: {p.returncode} {p.stderr}")
        return
    if how == "term":
        m.proc.send_signal(signal.SIGTERM)
    elif how == "kill":
        m.proc.send_signal(signal.SIGKILL)
    elif how == "force":
        run("umount", "-f", m.point, ok=None)
        run("umount", "-l", m.point, ok=None)
    elif how == "lazy":
        run("umount", "-l", m.point)


def claimable(path):
    """
    Whether the device can be claimed. The kernel releases the files of a killed process some time
    after its end.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
    except OSError as e:
        if e.errno == errno.EBUSY:
            return False
        raise
    return True


def one_round(env, vol, transport, nr, rng):
    """A round on a good device, with options and an end that depend on its number."""
    # in the course of time, every end is tried with every set of options
    opts = OPTIONS[(nr + nr // len(ENDS)) % len(OPTIONS)]
    how = ENDS[nr % len(ENDS)]
    quiet = how in ("peace", "busy")  # no client may fail (a lazy unmount removes their paths)
    m = vol.mount(f"transport={transport}", *opts)
    begun = time.monotonic()
    clients = []
    try:
        os.makedirs(m.path("churn"), exist_ok=True)
        clients = start_clients(env, m, rng, ROUND, not quiet)
        if how != "peace":
            end_under_load(m, how, rng)
        wait_clients(clients, ROUND, quiet)
        if how in ("peace", "busy"):
            at_rest(m)
            m.umount()
        else:
            m.wait(60)
            run("umount", "-l", m.point, ok=None)
    finally:
        for c in clients:
            c.kill()
    if how in ("term", "force", "kill"):
        wait_for(lambda: claimable(vol.target), "the end of the kernel's hold on the device", 30)
        with vol.mount() as again:
            os.listdir(again.path("churn"))
    vol.check()
    env.expect_no_reports()
    tidy(vol)
    print(f"#   round {nr}: {transport} {','.join(opts) or 'defaults'}, {how}: "
          f"{time.monotonic() - begun:.1f} s", flush=True)


# Sooner or later a failed write is one of the journal's, which ends all writing. So the first half
# of the time has errors of reads only.
FAULTS = (("fail r 4", "fail r 40", "slow 3", "slow 30", "hold"),
          ("fail w 400", "fail w 4000", "fail f 10", "fail w 40", "slow 3", "hold"))


def trouble(disk, rng, seconds):
    """Makes the device fail, hang and be slow at random, with good times in between."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.1, 0.5))
        kinds = FAULTS[time.monotonic() > end - seconds / 2]
        disk.tell(rng.choice(kinds).replace(
            "hold", f"hold {rng.choice('rw')} 0 {rng.choice((1, 8, 1000)) << 20}"))
        time.sleep(rng.uniform(0.1, 1.5))
        disk.tell("go")


# e2fsck does not process the orphan list of a file system with errors. If the list has two inodes,
# it finds the link from one to the next later and asks whether to repair it. The kernel's ext4
# leaves such file systems too.
ORPHAN_LIST = "Inodes that were part of a corrupted orphan linked list found."
ORPHAN_REPAIRS = re.compile(
    r"e2fsck \d|Pass \d|Fix\? yes|Inode \d+ was part of the orphaned inode list|Deleted "
    r"inode \d+ has zero dtime|"
    r"(Block|Inode) bitmap differences:|(Free (blocks|inodes)|Directories) count wrong|"
    r"Inode \d+ extent tree \(at level \d\) could be|\S+: \*+ FILE SYSTEM WAS "
    r"MODIFIED|\S+: \d+/\d+ files")


def repair(target):
    """
    Repairs the file system by e2fsck. After an aborted journal, e2fsck finds the note of the error
    and deletions that were under way. It must repair these without asking, and nothing else.
    """
    p = run("e2fsck", "-fp", target, ok=None, timeout=120)
    if p.returncode == 4 and ORPHAN_LIST in p.stdout.splitlines()[-1]:
        p = run("e2fsck", "-fy", target, ok=None, timeout=120)
        other = [x for x in p.stdout.splitlines() if x and ORPHAN_LIST not in x
                 and not ORPHAN_REPAIRS.match(x)]
        expect(not other, "e2fsck -fy: " + " | ".join(other[:6])[:600])
    expect(p.returncode in (0, 1), f"e2fsck: exit status {p.returncode}: "
           + " | ".join(p.stdout.strip().splitlines()[-6:])[:600])


def faults_round(env, transport, nr, rng):
    """
    A round on a device that misbehaves: the programs get errors, and the file system recovers.
    """
    opts = OPTIONS[nr % len(OPTIONS)]
    disk = Disk(env, "loop" if nr % 2 else "image", 160, *FORMATS[nr % len(FORMATS)])
    m = disk.mount(f"transport={transport}", *opts)
    begun = time.monotonic()
    clients = []
    try:
        os.makedirs(m.path("churn"), exist_ok=True)
        clients = start_clients(env, m, rng, ROUND, True)
        trouble(disk, rng, ROUND)
        for c in clients:
            c.kill()
        wait_clients(clients, 1, False)
        m.proc.send_signal(signal.SIGTERM)
        m.wait(60)
        run("umount", "-l", m.point, ok=None)
    finally:
        for c in clients:
            c.kill()
    vol = disk.saved()
    n = int(disk.failed)
    disk.end()
    with vol.mount() as again:
        os.listdir(again.point)
    repair(vol.target)
    vol.check(clean=False)
    env.expect_no_reports()
    os.unlink(vol.file)
    TOTAL["faults"] += n
    print(f"#   round {nr}: {transport} {','.join(opts) or 'defaults'}, {n} failed device "
          f"requests: {time.monotonic() - begun:.1f} s", flush=True)


def tidy(vol):
    """Removes all files if little space is left for the next round."""
    s = vol.super()
    if int(s["Free blocks"]) * 3 < int(s["Block count"]) or int(s["Free inodes"]) < 2000:
        with vol.mount() as m:
            for n in os.listdir(m.point):
                if n != "lost+found":
                    run("rm", "-rf", m.path(n))
        vol.check()


@case(timeout=SECONDS + 600, params=("devfuse", "uring"))
def soak(env, transport):
    need("fio")
    # The switch is restored when this process ends, unless other tests use it then.
    if transport == "uring" and not offer_ring():
        raise Skip("the kernel has no FUSE over io_uring")
    rng = random.Random(f"{SEED} {transport}")
    end = time.monotonic() + SECONDS / 2
    vols = [env.volume(160, *f, kind=k) for f, k in zip(FORMATS, ("loop", "image", "loop"))]
    nr = 0
    while time.monotonic() < end or nr < 2:
        try:
            if ENDS[nr % len(ENDS)] == "faults":
                faults_round(env, transport, nr, rng)
            else:
                one_round(env, vols[nr % len(vols)], transport, nr, rng)
            TOTAL["rounds"] += 1
        except Fail as e:
            raise Fail(f"round {nr}, STRESS_SEED={SEED}: {e}") from e
        nr += 1


if __name__ == "__main__":
    print(f"# STRESS_SECONDS={SECONDS} STRESS_SEED={SEED}", flush=True)
    if not os.path.ismount("/sys/fs/fuse/connections"):
        subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"],
                       stderr=subprocess.DEVNULL, check=False)
    try:
        main()
    finally:
        print(f"# {TOTAL['rounds']} rounds, {TOTAL['faults']} faults of the device, "
              f"STRESS_SEED={SEED}", flush=True)
