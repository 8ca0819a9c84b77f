#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of the daemon in a virtual machine, on emulated NVMe drives that work, fail, are removed and
lose their power. `make check-vm` runs it; it needs no root.

    check-vm.py [--list] [NAME...]     runs the scenarios whose names contain one of these words
                                       (default: all); --list prints the names

    CHECK_VM=require      a missing program or kernel is a failure, not a reason to skip
    CHECK_VM_SET=short    only the scenarios that a change must pass every time
    VM_JOBS=N             guests at a time (default: 2, or 1 on one CPU)
    VM_SECONDS=N          skips scenarios that have not begun after that time (default: no limit)
    VM_KEEP=1             keeps images and logs
    FDIO_VM_CACHE, FDIO_VM_DEB   the guest's kernel, see vm_kernel.py
    FDIO_TOTALS           a file that gets the line "check-vm PASSED FAILED SKIPPED"

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
import vm_env
import vm_errors
import vm_initrd
import vm_kernel
import vm_power
import vm_qemu
import vm_systemd
from vm_env import MIB, Fail, Skip
from vm_qemu import Guest

# name, function, whether it is in the short set; the longest first
SCENARIOS = (
    ("basic-512", vm_basic.basic_512, True),
    ("basic-4096", vm_basic.basic_4096, True),
    ("mlock", vm_basic.mlock, True),
    ("systemd", vm_systemd.systemd, True),
    ("power-cut", vm_power.power_cut, True),
    ("write-log", vm_power.write_log, True),
    ("write-log-long", vm_power.write_log_long, False),
    ("power-cut-control", vm_power.power_cut_control, False),
    ("nth-write", vm_errors.nth_write, True),
    ("nth-flush", vm_errors.nth_flush, False),
    ("write-errors", vm_errors.write_errors, True),
    ("read-errors", vm_errors.read_errors, True),
    ("removal", vm_errors.removal, True),
)


class Shared:
    """The guest's kernel and initial file systems, which all scenarios use."""

    def __init__(self, directory):
        vm_env.need("qemu-system-x86_64", "qemu-img", "mke2fs", "e2fsck", "debugfs", "dumpe2fs",
                    "ldd")
        if os.uname().machine != "x86_64":
            raise Skip("the guest is an x86-64 one, and this machine is not")
        if shutil.disk_usage(directory).free < 1024 * MIB:
            raise Skip(f"less than 1 GiB is free in {directory}")
        self.deadline = time.monotonic() + float(os.environ.get("VM_SECONDS") or "inf")
        self.kernel = vm_kernel.find()
        self.initrd, self.initrd_fio, self.initrd_systemd = vm_initrd.build(directory, self.kernel)


class Scenario:
    """One scenario while it runs: its directory, its guests, its results."""

    def __init__(self, name, shared, results, directory):
        self.name, self.shared, self.results, self.directory = name, shared, results, directory
        self.guests = []
        os.mkdir(directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def guest(self, script, namespaces, **kw):
        """Starts a guest and returns it when it runs."""
        directory = self.path(f"guest{len(self.guests)}")
        os.mkdir(directory)
        g = Guest(self.shared, directory, script, namespaces, **kw)
        self.guests.append(g)
        g.start()
        return g

    def finish(self, g):
        """Waits for the guest's end and records its results; a status other than 0 fails."""
        try:
            rc = g.finish()
        finally:
            for good, what, why in g.results():
                self.ok(what) if good else self.bad(what, why)
        if rc:
            raise Fail(f"the guest's script ended with status {rc}: {g.tail()}")

    def boot(self, script, namespaces, **kw):
        g = self.guest(script, namespaces, **kw)
        self.finish(g)
        return g

    def ok(self, what):
        self.results.ok(f"{self.name}: {what}")

    def bad(self, what, why):
        self.results.bad(f"{self.name}: {what}", why)

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


def run_scenario(name, fn, shared, results, base):
    begun = time.monotonic()
    if begun > shared.deadline:
        results.skip(name, "no time left")
        return
    env = Scenario(name, shared, results, os.path.join(base, name))
    try:
        fn(env)
    except Skip as e:
        if os.environ.get("CHECK_VM") == "require":
            env.bad("skip", e)
        else:
            results.skip(name, e)
    except Fail as e:
        env.bad("end", e)
    except Exception as e:  # pylint: disable=broad-except
        env.bad("end", f"{e!r} {traceback.format_tb(e.__traceback__)[-1]}")
    finally:
        env.close()
        results.note(f"{name}: {time.monotonic() - begun:.0f} s")
        if not os.environ.get("VM_KEEP"):
            shutil.rmtree(env.directory, ignore_errors=True)


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


def choose(words):
    short = os.environ.get("CHECK_VM_SET") == "short"
    return [(name, fn) for name, fn, in_short in SCENARIOS
            if (any(w in name for w in words) if words else in_short or not short)]


def main(words):
    chosen = choose(words)
    if "--list" in words or not chosen:
        print("\n".join(name for name, _, _ in SCENARIOS))
        return 0 if "--list" in words else 2
    results = vm_env.Results()
    base = temporary()
    end_early(base)
    try:
        shared = Shared(base)
        with ThreadPoolExecutor(
                int(os.environ.get("VM_JOBS") or min(2, os.cpu_count() or 1))) as pool:
            for name, fn in chosen:
                pool.submit(run_scenario, name, fn, shared, results, base)
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
    return 1 if results.failed or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
