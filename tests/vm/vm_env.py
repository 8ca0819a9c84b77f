# SPDX-License-Identifier: GPL-2.0-or-later
"""
Functions that the modules of the virtual machine tests share: paths, results, programs with a time
limit, and ext4 images, made and examined without root.
"""
import os
import re
import shutil
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("FDIO_BUILD") or os.getcwd())
FUSEDIO = os.environ.get("FUSEDIO") or os.path.join(BUILD, "fusedio")
VMIO = os.path.join(BUILD, "tests/vm/vmio")
SLOW = float(os.environ.get("FDIO_TIMEOUT_FACTOR") or "1")  # for sanitizer builds and slow machines
MIB = 1 << 20
CHANNEL_NAMES = {"devfuse": "/dev/fuse", "uring": "io_uring"}  # as the daemon logs them

# mke2fs, debugfs and others are in directories that not every user has in PATH.
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


class Skip(Exception):
    """The tests cannot run here; the message says why."""


class Fail(Exception):
    """A scenario failed; the message is one line."""


class Results:
    """
    Prints and counts the lines "ok NAME", "not ok NAME: why" and "skip NAME: why", from any thread.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = self.skipped = 0

    def ok(self, name):
        with self.lock:
            self.passed += 1
            print(f"ok {name}", flush=True)

    def bad(self, name, why):
        with self.lock:
            self.failed += 1
            print(f"not ok {name}: {' '.join(str(why).split())[:600]}", flush=True)

    def skip(self, name, why):
        with self.lock:
            self.skipped += 1
            print(f"skip {name}: {why}", flush=True)

    def note(self, text):
        with self.lock:
            print(f"# {text}", flush=True)


def run(*argv, timeout=60, ok=(0,), text=True):
    """
    Runs a program to its end and returns its CompletedProcess. An exit status that is not in ok is
    a failure.
    """
    try:
        p = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=timeout * SLOW, text=text,
                           errors="replace" if text else None, check=False)
    except subprocess.TimeoutExpired:
        raise Fail(f"{argv[0]}: no end after {timeout * SLOW:.0f} s (time limit)") from None
    except FileNotFoundError:
        raise Skip(f"{argv[0]} is not installed") from None
    if ok is not None and p.returncode not in ok:
        tail = (p.stderr or p.stdout)[-500:]
        raise Fail(f"{' '.join(map(str, argv))[:200]}: exit status {p.returncode}: {tail}")
    return p


def need(*programs):
    """Raises Skip unless all these programs are installed."""
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        raise Skip(f"not installed: {' '.join(missing)} (as root: build-aux/packages.sh vm)")


def expect(cond, msg):
    """Raises Fail with msg unless cond is true."""
    if not cond:
        raise Fail(msg)


def wait_for(cond, what, seconds=30):
    """Polls cond until it is true."""
    end = time.monotonic() + seconds * SLOW
    while not cond():
        if time.monotonic() > end:
            raise Fail(f"{what}: not within {seconds * SLOW:.0f} s (time limit)")
        time.sleep(0.02)


# ---- images ----

def copy(image, path):
    """Copies an image; holes stay holes."""
    run("cp", "--sparse=always", image, path)
    return path


def make_image(path, size_mib, *mke2fs, reserve=0):
    """An ext4 file system in a sparse file; it does not use the last `reserve` bytes."""
    with open(path, "wb") as f:
        f.truncate(size_mib * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0", *mke2fs, path,
        (size_mib * MIB - reserve) // 1024)
    return path


def e2fsck_clean(path):
    """e2fsck -fn finds nothing."""
    p = run("e2fsck", "-fn", path, ok=None, timeout=120)
    expect(p.returncode == 0, f"e2fsck -fn: status {p.returncode}: {p.stdout[-400:]}")


def e2fsck_replay(path):
    """e2fsck replays the journal, then e2fsck -fn must find nothing."""
    run("e2fsck", "-y", "-E", "journal_only", path, ok=(0, 1), timeout=120)
    e2fsck_clean(path)


def debugfs(path, request):
    """The output of a debugfs request."""
    return run("debugfs", "-R", request, path).stdout


def blocks_of(image, path):
    """The physical blocks of a file, in order."""
    return [int(b) for b in debugfs(image, f"blocks {path}").split()]


def superblock(path):
    """The fields of the superblock, as dumpe2fs -h prints them."""
    out = run("dumpe2fs", "-h", path).stdout
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in out.splitlines())
            if v}


def number_in(text, pattern):
    """The number that the group of the pattern matches in text."""
    m = re.search(pattern, text)
    expect(m, f"{pattern} not found in {text[:200]!r}")
    return int(m.group(1))
