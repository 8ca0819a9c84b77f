# SPDX-License-Identifier: GPL-2.0-or-later
"""
Processes: running a command to its end with a time limit, CPU time of a command, of a daemon and of
the whole machine, and signals as exceptions, so that everything that was made is removed.

Children run in sessions of their own. So Ctrl-C in a terminal reaches only run-bench, which first
ends the running job and then the daemons.
"""
import contextlib
import os
import resource
import signal
import subprocess

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
TIMEOUT = 300


class Failed(Exception):
    """A command failed; the message is one line."""


class LeftOut(Exception):
    """A peer or a device cannot be used here; the message says why."""


class Interrupted(BaseException):
    """A signal asked the benchmark to end."""


_deferred = 0
_pending = None


def catch_signals():
    def handler(number, _frame):
        global _pending  # pylint: disable=global-statement
        if _deferred:
            _pending = signal.Signals(number).name
        else:
            raise Interrupted(signal.Signals(number).name)
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, handler)


@contextlib.contextmanager
def undisturbed():
    """
    Delays signals while the body makes something and records it for removal. A signal that arrives
    meanwhile takes effect afterwards.
    """
    global _deferred, _pending  # pylint: disable=global-statement
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if _pending and not _deferred:
        name, _pending = _pending, None
        raise Interrupted(name)


def ignore_signals():
    """For cleaning up: a second Ctrl-C must not leave a mount behind."""
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, signal.SIG_IGN)


def _default_signals():
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, signal.SIG_DFL)


class Done:
    """The result of a command."""

    def __init__(self, status, out, err, cpu_us):
        self.status, self.out, self.err, self.cpu_us = status, out, err, cpu_us


def children_us():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (r.ru_utime + r.ru_stime) * 1e6


def run(*argv, timeout=TIMEOUT, check=True):
    """
    Runs a command to its end; its CPU time includes that of its children. At the time limit all of
    them are killed. Raises Failed then, and (with check) if the status is not 0.
    """
    argv = [str(a) for a in argv]
    before = children_us()
    try:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, errors="replace",
                             start_new_session=True, preexec_fn=_default_signals)
    except OSError as e:
        raise Failed(f"{argv[0]}: {e.strerror}") from None
    try:
        out, err = p.communicate(timeout=timeout)
    except BaseException as e:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        # A process that waits for a dead mount ends only when that mount is removed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.communicate(timeout=5)
        if isinstance(e, subprocess.TimeoutExpired):
            raise Failed(f"{argv[0]}: not finished after {timeout} s") from None
        raise
    if check and p.returncode != 0:
        raise Failed(f"{argv[0]}: status {p.returncode}: {last_line(err or out)}")
    return Done(p.returncode, out, err, children_us() - before)


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def start_daemon(argv, log):
    with open(log, "wb") as f:
        return subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=f,
                                stderr=f, start_new_session=True, preexec_fn=_default_signals)


def process_us(pid):
    """The CPU time of a process and all its threads, including those that have ended."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def machine_us():
    """
    The CPU time of the whole machine. The work of loop devices and kernel threads belongs to none
    of the measured processes.
    """
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = v[:7]
    return (user + nice + system + irq + softirq) * TICK_US


_awake = None
LATENCY = "/dev/cpu_dma_latency"


def keep_awake():
    """
    Makes idle CPUs poll, while this file is open and holds 0. In a virtual machine, waking a halted
    CPU can take longer than the I/O.
    """
    global _awake  # pylint: disable=global-statement
    try:
        _awake = os.open(LATENCY, os.O_WRONLY | os.O_CLOEXEC)
        os.write(_awake, bytes(4))
    except OSError as e:
        raise Failed(f"CPUs cannot be kept awake: {LATENCY}: {e.strerror}") from None


def let_sleep():
    global _awake  # pylint: disable=global-statement
    if _awake is not None:
        os.close(_awake)
        _awake = None
