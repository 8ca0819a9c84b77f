# SPDX-License-Identifier: GPL-2.0-or-later
"""
One run of a guest: QEMU's command line, and what the guest says. The guest reports on its second
serial line, which the kernel does not write to: "ok WHAT", "not ok WHAT :: WHY", "GUEST-UP" once it
runs, "GUEST-RC N" at its end, and what scenarios agree upon. Without GUEST-RC the run has failed;
QEMU's own exit status says nothing.

Emulation by software is taken even where /dev/kvm is there, unless VM_ACCEL=kvm says so: it works
everywhere, at the same speed. Two switches avoid faults of emulators: -cx16 (QEMU 7.2 emulates
cmpxchg16b wrongly: guests die of double faults) and one CPU only (code that the kernel patches is
seen late by other CPUs); no_timer_check lets the guest start on a busy host. A guest that never
says GUEST-UP is started again, at most twice; later faults count.
"""
import json
import os
import re
import signal
import subprocess
import time

from vm_env import SLOW, Fail

_running = set()
BOOT_TIMEOUT = 120
TRIES = 3


def file_node(name, path, **more):
    """The host's file at the bottom. What the guest flushes need not reach the host's disk."""
    return {"driver": "file", "node-name": name, "filename": path,
            "cache": {"direct": False, "no-flush": True}, **more}


def raw_drive(name, path):
    """The nodes of a drive without special effects; the last one is what a device uses."""
    return [file_node(f"{name}f", path), {"driver": "raw", "node-name": name, "file": f"{name}f"}]


def blkdebug_drive(name, path, **rules):
    """A drive with errors: inject_error=[...], set_state=[...] as blkdebug takes them."""
    rules = {k.replace("_", "-"): v for k, v in rules.items()}
    return [file_node(f"{name}f", path),
            {"driver": "blkdebug", "node-name": f"{name}b", "image": f"{name}f", **rules},
            {"driver": "raw", "node-name": name, "file": f"{name}b"}]


def break_drive(guest, name, **rules):
    """Errors from now on, in a drive made by raw_drive."""
    rules = {k.replace("_", "-"): v for k, v in rules.items()}
    guest.qmp("blockdev-add", driver="blkdebug", node_name=f"{name}b", image=f"{name}f", **rules)
    guest.qmp("blockdev-reopen", options=[{"driver": "raw", "node-name": name, "file": f"{name}b"}])


def log_drive(name, path, log):
    """A drive all of whose writes are recorded in the file log, in the format of dm-log-writes."""
    with open(log, "wb"):
        pass
    return [file_node(f"{name}f", path), file_node(f"{name}l", log),
            {"driver": "blklogwrites", "node-name": name, "file": f"{name}f", "log": f"{name}l",
             "log-sector-size": 512}]


def qcow2_drive(name, overlay):
    """
    A drive whose cache is volatile: QEMU keeps the table of what is allocated in memory until a
    flush, so that killing it loses the writes since then. It must not be written back by itself,
    hence the big table cache without interval.
    """
    return [file_node(f"{name}f", overlay),
            {"driver": "qcow2", "node-name": name, "file": f"{name}f", "l2-cache-size": 16 << 20,
             "cache-clean-interval": 0}]


def kill_all():
    """Every guest, at the end of the program."""
    for p in list(_running):
        p.kill()


class Guest:
    """
    A guest on NVMe drives, which may be silent for timeout seconds. namespaces is a list of lists
    of block nodes: namespace N of the one controller is the Nth.
    """

    def __init__(self, shared, directory, script, namespaces, lbs=512, fio=False, append="",
                 timeout=180, initrd=None):
        self.directory = directory
        self.console = os.path.join(directory, "console.log")
        self.report = os.path.join(directory, "report.log")
        self.timeout = timeout * SLOW
        self.process = None
        self.greeted = False
        initrd = initrd or (shared.initrd_fio if fio else shared.initrd)
        self.argv = self.command_line(shared, script, namespaces, lbs, fio, append, initrd)

    def command_line(self, shared, script, namespaces, lbs, fio, append, initrd):
        accel = ["-accel", "kvm", "-cpu", "host"] if os.environ.get("VM_ACCEL") == "kvm" else \
            ["-accel", "tcg", "-cpu", "max,-cx16,-la57"]
        argv = ["qemu-system-x86_64", *accel, "-M", "q35", "-smp", "1", "-m", "768" if fio
                else "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-serial", f"file:{self.console}", "-serial", f"file:{self.report}", "-qmp",
                "stdio", "-kernel", os.path.join(shared.kernel, "vmlinuz"), "-initrd", initrd,
                "-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off no_timer_check "
                f"nvme_core.max_retries=0 script={script} {append}", "-device",
                "nvme,id=nv,serial=T1"]
        for nsid, nodes in enumerate(namespaces, 1):
            for node in nodes:
                argv += ["-blockdev", json.dumps(node)]
            argv += ["-device", f"nvme-ns,bus=nv,drive={nodes[-1]['node-name']},nsid={nsid},"
                     f"logical_block_size={lbs},physical_block_size={lbs}"]
        return argv

    def lines(self):
        """What the guest has reported so far, whole lines only."""
        try:
            with open(self.report, encoding="utf-8", errors="replace", newline="") as f:
                text = f.read()
        except FileNotFoundError:
            return []
        return [line.rstrip("\r") for line in text.split("\n")[:-1]]

    def start(self):
        """Starts QEMU and waits until the guest runs."""
        for left in range(TRIES - 1, -1, -1):
            for f in (self.console, self.report):
                with open(f, "wb"):
                    pass
            with open(os.path.join(self.directory, "qemu.log"), "wb") as log:
                self.process = subprocess.Popen(["nice", "-n", "10", *self.argv],
                                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                stderr=log)
            _running.add(self.process)
            if self.wait(lambda: "GUEST-UP" in self.lines(), BOOT_TIMEOUT * SLOW):
                return
            ended = self.process.poll() is not None
            self.kill()
            if not left:
                raise Fail(f"the guest did not start{' (QEMU ended)' if ended else ''}: "
                           f"{self.tail('qemu.log')} {self.tail()}")

    def qmp(self, command, **arguments):
        """Tells QEMU something, and waits until it is done."""
        for request in ([] if self.greeted else [{"execute": "qmp_capabilities"}]) + [
                {"execute": command,
                 "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}]:
            self.greeted = True
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            reply = {}
            while not {"return", "error"} & set(reply):  # greetings and events are passed over
                line = self.process.stdout.readline()
                if not line:
                    raise Fail(f"QEMU ended: {self.tail('qemu.log')}")
                reply = json.loads(line)
            if "error" in reply:
                raise Fail(f"QEMU refuses {command}: {reply['error']}")

    def expect_line(self, text):
        """Waits until the guest reports this line."""
        if not self.wait(lambda: text in self.lines(), self.timeout):
            raise Fail(f"the guest has not said {text}: {self.lines()[-1:]} {self.tail()}")

    def wait(self, cond, seconds):
        """True once cond holds; False when QEMU has ended without it, or after that time."""
        end = time.monotonic() + seconds
        while not cond():
            if self.process.poll() is not None:
                return cond()
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def kill(self):
        """The power cut."""
        _running.discard(self.process)
        if not self.process or self.process.stdin.closed:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def tail(self, name="console.log"):
        with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as f:
            return " | ".join(f.read().split("\n")[-8:])

    def finish(self):
        """Waits for the end; the exit status of the guest's script."""
        told = -1
        # slow is not hung: what counts is the time since it last said something
        while len(self.lines()) > told:
            told = len(self.lines())
            # pylint: disable=cell-var-from-loop
            self.wait(lambda: len(self.lines()) > told, self.timeout)
        hung = self.process.poll() is None
        self.kill()
        verdict = [line for line in self.lines() if line.startswith("GUEST-RC ")]
        if not verdict:
            last = self.lines()[-1:]
            raise Fail(f"the guest {'hung' if hung else 'ended'} without a verdict, after {last}: "
                       f"{self.tail()}")
        return int(verdict[-1].split()[1])

    def results(self):
        """(passed, what, why) of each check that the guest made."""
        for line in self.lines():
            m = re.match(r"(ok|not ok) (.*?)(?: :: (.*))?$", line)
            if m:
                yield m.group(1) == "ok", m.group(2), m.group(3)
