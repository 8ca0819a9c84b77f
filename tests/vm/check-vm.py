#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of the daemon in a virtual machine, on emulated NVMe drives that work, fail, are removed and
lose their power: each scenario on each kernel and over both channels, /dev/fuse and FUSE over
io_uring, if the kernel offers the latter. `make check-vm` runs it; it needs no root.

    check-vm.py [--list] [NAME...]     runs the scenarios whose names contain one of these words
                                       (default: those of a set); --list prints the names. A whole
                                       name is KERNEL/CHANNEL/SCENARIO, as 7.3/uring/power-cut

    CHECK_VM=require      a missing program or kernel is a failure, not a reason to skip
    CHECK_VM_SET=short    only the scenarios that a change must pass every time
    CHECK_VM_SET=matrix   only those that are run on every kernel
    CHECK_VM_SET=cpus     the long ones on many CPUs, which are in no other set
    VM_SYSTEMD_ROOT=DIR   the root directory that the scenario systemd takes systemd from
    VM_KERNELS="6.1 7.3"  the guests' kernels, see vm_kernel.py (default: those of KERNELS below)
    VM_CHANNELS=uring     or devfuse: only this channel
    VM_TABLE=FILE         a file that gets the results as a Markdown table
    QEMU_SYSTEM=PROGRAM   the QEMU of guests with one CPU (default: qemu-system-x86_64)
    VM_JOBS=N             guests at a time (default: 2, or 1 on one CPU)
    VM_SECONDS=N          skips scenarios that have not begun after that time (default: no limit)
    VM_KEEP=1             keeps images and logs
    FDIO_VM_CACHE, FDIO_VM_DEB   where kernels are kept, and a kernel of one's own
    FDIO_TOTALS           a file that gets the line "check-vm PASSED FAILED SKIPPED"
    FDIO_TIMEOUT_FACTOR   stretches all time limits, those inside the guests too

Prints "ok SCENARIO: WHAT" or "not ok SCENARIO: WHAT: WHY" for each check and a line of totals.
Exits with 0, with 1 if a check failed, with 77 if the tests cannot run here.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import vm_basic
import vm_cpus
import vm_env
import vm_errors
import vm_initrd
import vm_kernel
import vm_power
import vm_qemu
import vm_systemd
import vm_table
from vm_env import CHANNEL_NAMES, MIB, Fail, Skip
from vm_qemu import Guest

# name, function, the sets that it is in; the longest first
SCENARIOS = (
    ("basic-512", vm_basic.basic_512, "all short matrix"),
    ("basic-4096", vm_basic.basic_4096, "all short matrix"),
    ("memory-64", vm_cpus.memory_64, "all"),
    ("mlock", vm_basic.mlock, "all short matrix"),
    ("systemd", vm_systemd.systemd, "all short matrix"),
    ("systemd-trixie", vm_systemd.systemd_trixie, "all matrix"),
    ("systemd-sid", vm_systemd.systemd_sid, "all"),
    ("power-cut", vm_power.power_cut, "all short matrix"),
    ("write-log", vm_power.write_log, "all short matrix"),
    ("write-log-long", vm_power.write_log_long, "all"),
    ("power-cut-control", vm_power.power_cut_control, "all"),
    ("nth-write", vm_errors.nth_write, "all short matrix"),
    ("nth-flush", vm_errors.nth_flush, "all"),
    ("write-errors", vm_errors.write_errors, "all short matrix"),
    ("read-errors", vm_errors.read_errors, "all short matrix"),
    ("removal", vm_errors.removal, "all short matrix"),
    ("cpus-4", vm_cpus.cpus_4, "cpus"),
    ("cpus-8", vm_cpus.cpus_8, "cpus"),
    ("stress-4", vm_cpus.stress_4, "cpus"),
    ("stress-8", vm_cpus.stress_8, "cpus"),
)
# Without VM_KERNELS: the machine's own kernel, and the newest. Of the newest the short set takes
# only what is named here.
KERNELS, NEWEST = "default 7.3", "7.3"
SHORT_OF_NEWEST = (f"{NEWEST}/uring/basic-512",)


class Job:
    """A scenario on a kernel over a channel, and what came of it."""

    def __init__(self, kernel, channel, scenario, function):
        self.kernel, self.channel, self.scenario = kernel, channel, scenario
        self.function = function
        self.passed = self.failed = 0
        self.skipped = None

    def __str__(self):
        return f"{self.kernel}/{self.channel}/{self.scenario}"


class Scenario:
    """One scenario while it runs: its job, its kernel, its directory, its guests."""

    def __init__(self, job, kernel, shared, results, base):
        self.job, self.kernel, self.channel = job, kernel, job.channel
        self.name, self.shared, self.results = str(job), shared, results
        self.directory = os.path.join(base, self.name.replace("/", "_"))
        self.guests = []
        os.mkdir(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def guest(self, script, namespaces, **kw):
        """Starts a guest and returns it when it runs."""
        directory = self.path(f"guest{len(self.guests)}")
        os.mkdir(directory)
        g = Guest(self, directory, script, namespaces, **kw)
        self.guests.append(g)
        g.start()
        return g

    def finish(self, g):
        """Waits for the guest's end and records its results; a status other than 0 fails."""
        try:
            rc = g.finish()
        finally:
            self.record(g)
        if rc:
            raise Fail(f"the guest's script ended with status {rc}: {g.tail()}")

    def record(self, g):
        """Records what a guest that has ended reported."""
        for result, what, why in g.results():
            if result == "ok":
                self.ok(what)
            elif result == "skip":
                self.results.skip(f"{self.name}: {what}", why or "")
            else:
                self.bad(what, why)

    def boot(self, script, namespaces, **kw):
        g = self.guest(script, namespaces, **kw)
        self.finish(g)
        return g

    def ok(self, what):
        self.job.passed += 1
        self.results.ok(f"{self.name}: {what}")

    def bad(self, what, why):
        self.job.failed += 1
        self.results.bad(f"{self.name}: {what}", why)

    def skip(self, why):
        if os.environ.get("CHECK_VM") == "require":
            self.bad("skip", why)
        else:
            self.job.skipped = str(why)
            self.results.skip(self.name, why)

    def check(self, what, fn, *args):
        """One check on the host: fn raises Fail if it fails."""
        try:
            fn(*args)
            self.ok(what)
        except Fail as e:
            self.bad(what, e)

    def close(self):
        for g in self.guests:
            g.kill()


def run_scenario(job, kernel, shared, results, base):
    begun = time.monotonic()
    if begun > shared.deadline:
        job.skipped = "no time left"
        results.skip(job, f"no time left: VM_SECONDS={os.environ['VM_SECONDS']} are over")
        return
    env = Scenario(job, kernel, shared, results, base)
    try:
        job.function(env)
    except Skip as e:
        env.skip(e)
    except Fail as e:
        env.bad("end", e)
    except Exception as e:  # pylint: disable=broad-except
        env.bad("end", f"{e!r} {traceback.format_tb(e.__traceback__)[-1]}")
    finally:
        env.close()
        results.note(f"{job}: {time.monotonic() - begun:.0f} s")
        if not os.environ.get("VM_KEEP"):
            shutil.rmtree(env.directory, ignore_errors=True)


class Shared:
    """What all scenarios use: the guests' initial file systems, and the time limit."""

    def __init__(self, directory):
        vm_env.need(vm_qemu.QEMU[0], "qemu-img", "mke2fs", "e2fsck", "debugfs", "dumpe2fs",
                    "ldd")
        if os.uname().machine != "x86_64":
            raise Skip("the guest is an x86-64 one, and this machine is not")
        if shutil.disk_usage(directory).free < 1024 * MIB:
            raise Skip(f"less than 1 GiB is free in {directory}")
        self.deadline = time.monotonic() + float(os.environ.get("VM_SECONDS") or "inf")
        self.initrds = vm_initrd.Initrds(directory)


def kernels_of(jobs, results, table):
    """
    The kernels of the jobs, by name. Those that cannot be had, and channels that a kernel does not
    offer, are said in one line each.
    """
    kernels = {}
    for spec in dict.fromkeys(j.kernel for j in jobs):
        try:
            kernels[spec] = k = vm_kernel.find(spec)
        except Skip as e:
            require = os.environ.get("CHECK_VM") == "require"
            (results.bad if require else results.skip)(spec, e)
            table.no_kernel(spec, e)
            continue
        results.note(f"{spec}: the kernel is {k.release}, Debian's package {k.version}")
        if not k.offers_ring and any(j.kernel == spec and j.channel == "uring" for j in jobs):
            why = f"{k.release} does not offer FUSE over io_uring: only /dev/fuse is tested"
            if k.ring_is_missing:
                results.skip(f"{spec}/uring", why)
            else:
                results.note(f"{spec}/uring: {why}")
            table.no_ring(k)
    return kernels


def clean_up(base):
    """Removes mounts and images."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounts = [line.split()[1] for line in f]
    for m in mounts:
        if m.startswith(base + "/"):
            subprocess.run(["umount", "-l", m], check=False)
    if os.environ.get("VM_KEEP"):
        print(f"# kept: {base}")
    else:
        shutil.rmtree(base, ignore_errors=True)


def end_early(base):
    """
    On SIGTERM and SIGINT, kills the guests and cleans up without waiting for threads, which may
    hang.
    """
    def handler(_signal, _frame):
        vm_qemu.kill_all()
        clean_up(base)
        os._exit(1)
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, handler)


def temporary():
    """A directory for images: in memory if there is enough of it, else in the usual place."""
    base = "/dev/shm"
    if not os.path.isdir(base) or shutil.disk_usage(base).free < 2048 * MIB:
        base = None
    return tempfile.mkdtemp(prefix="fdio-vm.", dir=os.environ.get("FDIO_TMP") or base)


def totals(passed, failed, skipped):
    print(f"check-vm: {passed} passed, {failed} failed, {skipped} skipped")
    path = os.environ.get("FDIO_TOTALS")
    if path:
        with open(path, "a", encoding="utf-8") as f:
            f.write(f"check-vm {passed} {failed} {skipped}\n")


def means(word, job, sets):
    """The word names the job; those of the set cpus take long and are meant by their own names."""
    return word in str(job) and (sets != "cpus" or word.split("/")[-1] in job.scenario)


def choose(words):
    """The jobs, kernel by kernel."""
    which = os.environ.get("CHECK_VM_SET") or "all"
    named = os.environ.get("VM_KERNELS")
    jobs = []
    for kernel in dict.fromkeys((named or KERNELS).split()):
        for channel in (os.environ.get("VM_CHANNELS") or " ".join(CHANNEL_NAMES)).split():
            for name, fn, sets in SCENARIOS:
                job = Job(kernel, channel, name, fn)
                if words:
                    chosen = any(means(w, job, sets) for w in words)
                elif which == "short" and kernel == NEWEST and not named:
                    chosen = str(job) in SHORT_OF_NEWEST
                else:
                    chosen = which in sets.split()
                if chosen:
                    jobs.append(job)
    return jobs


def run_all(jobs, base, results):
    table = vm_table.Table(os.environ.get("VM_TABLE"), [name for name, _, _ in SCENARIOS])
    shared = Shared(base)
    kernels = kernels_of(jobs, results, table)
    jobs = [j for j in jobs if j.kernel in kernels and
            (j.channel == "devfuse" or kernels[j.kernel].offers_ring)]
    with ThreadPoolExecutor(int(os.environ.get("VM_JOBS") or min(2, os.cpu_count() or 1))) as pool:
        for job in jobs:
            table.row(kernels[job.kernel].version, job.channel)

        def one(job):
            run_scenario(job, kernels[job.kernel], shared, results, base)
            table.add(kernels[job.kernel], job)
        for done in [pool.submit(one, job) for job in jobs]:
            done.result()


def main(words):
    if "--list" in words:
        print("\n".join(name for name, _, _ in SCENARIOS))
        return 0
    jobs = choose(words)
    wrong = set((os.environ.get("VM_CHANNELS") or "").split()) - set(CHANNEL_NAMES)
    if wrong or not jobs:
        print(f"check-vm: no channel {' '.join(wrong)}: {' or '.join(CHANNEL_NAMES)}" if wrong else
              f"check-vm: no name contains {' or '.join(words)} (--list prints the names), or no "
              "such CHECK_VM_SET")
        return 2
    results = vm_env.Results()
    base = temporary()
    end_early(base)
    try:
        run_all(jobs, base, results)
    except Skip as e:
        if os.environ.get("CHECK_VM") == "require":
            results.bad("check-vm", e)
        else:
            print(f"skip check-vm: {e}")
            totals(0, 0, 1)
            return 77
    finally:
        clean_up(base)
    totals(results.passed, results.failed, results.skipped)
    if results.failed:
        return 1
    return 0 if results.passed else 77


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
