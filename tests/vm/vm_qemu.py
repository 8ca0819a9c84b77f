# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest in QEMU: its command line, and what it reports. The guest reports on its second serial line,
to which its kernel does not write: "ok WHAT", "not ok WHAT :: WHY", "GUEST-UP" when it runs,
"GUEST-RC N" at its end, and lines that a scenario and its script agree upon. A run without GUEST-RC
has failed; QEMU's own exit status does not matter.

QEMU emulates the CPU in software even if there is /dev/kvm, unless VM_ACCEL=kvm is set: that works
everywhere, at the same speed. Two options avoid faults of emulators: -cx16 (QEMU 7.2 emulates
cmpxchg16b wrongly, and guests die of double faults) and only one CPU (before QEMU 8.1, code that
the kernel patches becomes visible late to other CPUs). QEMU_SYSTEM names another QEMU, with options
if need be; scenarios with many CPUs choose theirs (vm_cpus.py). no_timer_check lets the guest boot
on a busy host. A guest that does not report GUEST-UP is started again, at most twice; later faults
count as failures.
"""
import json
import os
import re
import signal
import subprocess
import threading
import time

from vm_env import SLOW, Fail

QEMU = tuple((os.environ.get("QEMU_SYSTEM") or "qemu-system-x86_64").split())
_running, _lock, _ending = set(), threading.Lock(), threading.Event()
BOOT_TIMEOUT = 120
TRIES = 3


def time_limit(seconds):
    """Says that a time limit was hit."""
    return f"time limit: {seconds:.0f} s without a word (FDIO_TIMEOUT_FACTOR stretches it)"


def file_node(name, path, **more):
    """The node of the host's file. Flushes of the guest need not reach the host's disk."""
    return {"driver": "file", "node-name": name, "filename": path,
            "cache": {"direct": False, "no-flush": True}, **more}


def raw_drive(name, path):
    """The nodes of a drive without faults. The device uses the last node."""
    return [file_node(f"{name}f", path), {"driver": "raw", "node-name": name, "file": f"{name}f"}]


def blkdebug_drive(name, path, **rules):
    """
    The nodes of a drive with errors: inject_error=[...] and set_state=[...] as blkdebug takes them.
    """
    rules = {k.replace("_", "-"): v for k, v in rules.items()}
    return [file_node(f"{name}f", path),
            {"driver": "blkdebug", "node-name": f"{name}b", "image": f"{name}f", **rules},
            {"driver": "raw", "node-name": name, "file": f"{name}b"}]


def break_drive(guest, name, **rules):
    """Adds errors to a running drive that raw_drive made."""
    rules = {k.replace("_", "-"): v for k, v in rules.items()}
    guest.qmp("blockdev-add", driver="blkdebug", node_name=f"{name}b", image=f"{name}f", **rules)
    guest.qmp("blockdev-reopen", options=[{"driver": "raw", "node-name": name, "file": f"{name}b"}])


def log_drive(name, path, log):
    """A drive whose writes are all recorded in the file log, in the format of dm-log-writes."""
    with open(log, "wb"):
        pass
    return [file_node(f"{name}f", path), file_node(f"{name}l", log),
            {"driver": "blklogwrites", "node-name": name, "file": f"{name}f", "log": f"{name}l",
             "log-sector-size": 512}]


def qcow2_drive(name, overlay):
    """
    A drive with a volatile cache: QEMU keeps the table of allocated clusters in memory until a
    flush, so killing QEMU loses the writes since then. The table's cache is large and has no
    cleaning interval, so that QEMU does not write it back earlier.
    """
    return [file_node(f"{name}f", overlay),
            {"driver": "qcow2", "node-name": name, "file": f"{name}f", "l2-cache-size": 16 << 20,
             "cache-clean-interval": 0}]


def kill_all():
    """Kills every guest, when the program ends, and lets no other start."""
    with _lock:
        _ending.set()
        for p in _running:
            p.kill()


def accelerator(cpus):
    """How CPUs are emulated: see the head of this file."""
    if os.environ.get("VM_ACCEL") == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    if cpus == 1:
        return ["-accel", "tcg", "-cpu", "max,-cx16,-la57"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max,-la57"]


def drives(namespaces, lbs):
    """An NVMe controller with these namespaces."""
    argv = ["-device", "nvme,id=nv,serial=T1"]
    for nsid, nodes in enumerate(namespaces, 1):
        for node in nodes:
            argv += ["-blockdev", json.dumps(node)]
        argv += ["-device", f"nvme-ns,bus=nv,drive={nodes[-1]['node-name']},nsid={nsid},"
                 f"logical_block_size={lbs},physical_block_size={lbs}"]
    return argv


class Guest:
    """
    A guest with NVMe drives. namespaces is a list of lists of block nodes, one list for each
    namespace of the controller. The guest counts as hung if it reports nothing for timeout seconds.
    """

    def __init__(self, env, directory, script, namespaces, lbs=512, part=None, append="",
                 timeout=180, cpus=1, memory=None, qemu=None, modules=False):
        self.env, self.directory = env, directory
        self.console = os.path.join(directory, "console.log")
        self.report = os.path.join(directory, "report.log")
        self.timeout = timeout * SLOW
        self.process = None
        self.greeted = False
        initrd = env.shared.initrds.get(env.kernel, part, modules)
        append = f"script={script} channel={env.channel} factor={SLOW * 100:.0f} {append}"
        if env.kernel.offers_ring:
            append += f" fuse.enable_uring={int(env.channel == 'uring')}"
        memory = memory or (768 if part else 512)
        self.argv = [*(qemu or QEMU), *accelerator(cpus),
                     "-smp", str(cpus), "-m", str(memory),
                     *self.machine(append, initrd), *drives(namespaces, lbs)]

    def machine(self, append, initrd):
        return ["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-serial", f"file:{self.console}", "-serial", f"file:{self.report}",
                "-qmp", "stdio", "-kernel", self.env.kernel.vmlinuz, "-initrd", initrd, "-append",
                "console=ttyS0 quiet panic=-1 oops=panic mitigations=off no_timer_check "
                f"nvme_core.max_retries=0 {append}"]

    def lines(self):
        """The whole lines that the guest has reported so far."""
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
            with open(os.path.join(self.directory, "qemu.log"), "wb") as log, _lock:
                if _ending.is_set():
                    raise Fail("ended from outside")
                self.process = subprocess.Popen(["nice", "-n", "10", *self.argv],
                                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                stderr=log)
                _running.add(self.process)
            if self.wait(lambda: "GUEST-UP" in self.lines(), BOOT_TIMEOUT * SLOW):
                return
            ended = self.process.poll() is not None
            self.kill()
            if not left:
                why = "QEMU ended" if ended else time_limit(BOOT_TIMEOUT * SLOW)
                raise Fail(f"the guest did not start: {why}: {self.tail('qemu.log')} {self.tail()}")

    def qmp(self, command, **arguments):
        """Sends QEMU a command and waits for its result."""
        for request in ([] if self.greeted else [{"execute": "qmp_capabilities"}]) + [
                {"execute": command,
                 "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}]:
            self.greeted = True
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            reply = {}
            while not {"return", "error"} & set(reply):  # skips greetings and events
                line = self.process.stdout.readline()
                if not line:
                    raise Fail(f"QEMU ended: {self.tail('qemu.log')}")
                reply = json.loads(line)
            if "error" in reply:
                raise Fail(f"QEMU refuses {command}: {reply['error']}")

    def expect_line(self, text):
        """Waits until the guest reports this line."""
        if not self.wait(lambda: text in self.lines(), self.timeout):
            raise Fail(f"the guest has not said {text}: {time_limit(self.timeout)}: "
                       f"{self.lines()[-1:]} {self.tail()}")

    def wait(self, cond, seconds):
        """
        Waits until cond is true. Returns False if that has not happened when QEMU ends or after
        that time.
        """
        end = time.monotonic() + seconds
        while not cond():
            if self.process.poll() is not None:
                return cond()
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def kill(self):
        """Kills QEMU, which is a power cut for the guest."""
        with _lock:
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
        """Waits for the guest's end; returns the exit status of its script."""
        told = -1
        # a slow guest is not hung: the limit is for the time since its last line
        while len(self.lines()) > told:
            told = len(self.lines())
            # pylint: disable=cell-var-from-loop
            self.wait(lambda: len(self.lines()) > told, self.timeout)
        hung = self.process.poll() is None
        self.kill()
        verdict = [line for line in self.lines() if line.startswith("GUEST-RC ")]
        if not verdict:
            last = self.lines()[-1:]
            how = f"hung ({time_limit(self.timeout)})" if hung else "ended"
            raise Fail(f"the guest {how} without a verdict, after {last}: {self.tail()}")
        return int(verdict[-1].split()[1])

    def results(self):
        """Yields (ok, not ok or skip; what; why) of each check that the guest reported."""
        for line in self.lines():
            m = re.match(r"(ok|not ok|skip) (.*?)(?: :: (.*))?$", line)
            if m:
                yield m.groups()
