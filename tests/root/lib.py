# SPDX-License-Identifier: GPL-2.0-or-later
"""
The library of the root tests: file systems in image files and on loop devices, mounts by fusedio
and by the kernel, e2fsck, and cleaning up whatever happens.

A test script declares cases and calls main():

    @case(kinds=("image", "loop"))
    def remembers(env):
        vol = env.volume(64)
        with vol.mount() as m:
            ...
        vol.check()

Each case runs once for each kind, in a directory and with names of its own, so that scripts can run
side by side. It prints one line: "ok NAME", "not ok NAME: why" or "skip NAME: why". No case can
hang: every child process has a timeout, and a timer kills the daemons of a case that takes too
long, which ends system calls that are stuck in the mount.
"""
import atexit
import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

# Tests run make, which must not inherit the options of `make check-root`.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)

BUILD = os.environ.get("FDIO_BUILD") or os.getcwd()
FUSEDIO = os.environ.get("FUSEDIO") or os.path.join(BUILD, "fusedio")
REQUIRE = os.environ.get("REQUIRE_ROOT_TESTS") == "1"
KEEP = os.environ.get("FDIO_KEEP") == "1"
# The factor by which time limits are stretched: FDIO_TIMEOUT_FACTOR (for sanitizers and slow
# machines), times the load per CPU, 1 to 4.
SLOW = float(os.environ.get("FDIO_TIMEOUT_FACTOR") or "1") * min(
    4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
TRANSPORT = os.environ.get("FDIO_TRANSPORT")  # auto, uring or devfuse for every mount
HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.splitext(os.path.basename(sys.argv[0]))[0]
MIB = 1 << 20

SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sanitizers")
os.environ.setdefault("LSAN_OPTIONS", f"suppressions={SUPPRESSIONS}/lsan.supp:print_suppressions=0")

# A report of a sanitizer. Tests look for it in the logs, because the status of a daemon that was
# killed or runs in the background is not seen, and a data race does not end the daemon.
REPORT = re.compile(
    r"(WARNING|ERROR): \w+Sanitizer|runtime error: |Sanitizer: (CHECK|nested bug)|FATAL: "
    r"\w+Sanitizer")

_cases = []


class Skip(Exception):
    """The case cannot run here; the message says why."""


class Fail(Exception):
    """The case failed; the message is one line."""


def case(kinds=("image",), timeout=120, params=None):
    """
    Declares a case. kinds: what the volume is served from, one run each: "image" (an image file) or
    "loop" (a loop device over one). timeout: seconds. params: values passed as second argument, one
    run each.
    """
    def deco(fn):
        _cases.append((fn, kinds, timeout, params))
        return fn
    return deco


def expect(cond, msg):
    if not cond:
        raise Fail(msg)


def expect_eq(got, want, what):
    if got != want:
        raise Fail(f"{what}: got {got!r}, want {want!r}")


@contextlib.contextmanager
def expect_errno(*codes):
    """The body must fail with one of these error numbers."""
    names = "/".join(errno.errorcode[c] for c in codes)
    try:
        yield
    except OSError as e:
        if e.errno not in codes:
            raise Fail(f"got {errno.errorcode.get(e.errno, e.errno)}, want {names}") from e
        return
    raise Fail(f"succeeded, want {names}")


# Where sanitizers in background daemons write reports, because their stderr is /dev/null.
_reports = None


def background_reports(env):
    """env (None: this process's own) with sanitizers told to write reports to files."""
    env = dict(os.environ if env is None else env)
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        env[name] = ":".join(x for x in (env.get(name), f"log_path={_reports}") if x)
    return env


def run(*argv, timeout=60, ok=(0,), cwd=None, inp=None, env=None):
    """
    Runs a program to its end and returns its CompletedProcess (text). The case fails if the program
    runs longer than timeout, or if its exit status is not in ok (None: any status will do).
    """
    if _reports and argv[0] == FUSEDIO and "-f" not in argv:
        env = background_reports(env)
    try:
        p = subprocess.run([str(a) for a in argv],
                           stdin=subprocess.DEVNULL if inp is None else None, input=inp,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * SLOW,
                           cwd=cwd, env=env, text=True, errors="surrogateescape", check=False)
    except subprocess.TimeoutExpired:
        raise Fail(f"{argv[0]}: no end after {timeout * SLOW:.0f} s") from None
    except FileNotFoundError:
        need(argv[0])
        raise
    if ok is not None and p.returncode not in ok:
        tail = " | ".join((p.stderr or p.stdout).strip().splitlines()[-4:])
        raise Fail(f"{' '.join(map(str, argv))[:200]}: exit status {p.returncode}: {tail[:600]}")
    return p


def need(*programs):
    """Skips the case unless all these programs are installed."""
    for p in programs:
        if not shutil.which(p):
            raise Skip(f"{p} is not installed")


def wait_for(cond, what, timeout=30):
    """Polls cond until it is true; the case fails after timeout seconds."""
    end = time.monotonic() + timeout * SLOW
    while not cond():
        if time.monotonic() > end:
            raise Fail(f"{what}: not within {timeout * SLOW:.0f} s")
        time.sleep(0.01)


def tmp_base():
    """
    The directory for images: in memory if there is enough of it, because the tests write much and
    keep nothing.
    """
    base = os.environ.get("FDIO_TMP")
    if base:
        return base
    with contextlib.suppress(OSError):
        st = os.statvfs("/dev/shm")
        if st.f_bavail * st.f_frsize >= 2048 * MIB:
            return "/dev/shm"
    return tempfile.gettempdir()


def mountinfo(path):
    """(device number, type, source, options) of the topmost mount at path, or None."""
    found = None
    want = os.fsencode(os.path.realpath(path))
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            left, _, right = line.rstrip(b"\n").partition(b" - ")
            p = left.split(b" ")
            if unescape(p[4]) == want:
                r = right.split(b" ")
                found = (p[2].decode(), r[0].decode(), os.fsdecode(unescape(r[1])),
                         p[5].decode() + "," + r[2].decode())
    return found


@contextlib.contextmanager
def never_mounted(path):
    """Looks all the time: the case fails if something was mounted on path, even for a moment."""
    seen, over = [], threading.Event()

    def look():
        while not over.is_set() and not seen:
            line = mountinfo(path)
            if line:
                seen.append(line)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    expect(not seen, f"a mount was seen for a moment: {seen}")


def unescape(b):
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), b)


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


RING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
_ring = None


class RingOffer:
    """
    Makes the kernel offer FUSE over io_uring to new mounts while any test on this machine wants it.
    The switch is global, so each process that wants it holds a shared lock. The first one notes the
    machine's own setting in a file, the last one restores it.
    """

    def __init__(self):
        base = os.path.join(tempfile.gettempdir(), "fusedio-tests-ring")
        self.note = open(base + ".was", "a+")  # pylint: disable=consider-using-with
        self.users = open(base + ".users", "a")  # pylint: disable=consider-using-with
        with self.alone():
            if self.only_user() and not self.noted():
                with open(RING_SWITCH) as f:
                    self.note.write(f.read(1))
                self.note.flush()
            with open(RING_SWITCH, "w") as f:
                f.write("Y")
            fcntl.flock(self.users, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self):
        fcntl.flock(self.note, fcntl.LOCK_EX)
        yield
        fcntl.flock(self.note, fcntl.LOCK_UN)

    def noted(self):
        self.note.seek(0)
        return self.note.read(1)

    def only_user(self):
        try:
            fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self):
        with self.alone():
            fcntl.flock(self.users, fcntl.LOCK_UN)
            if self.only_user():
                with open(RING_SWITCH, "w") as f:
                    f.write(self.noted() or "Y")
                self.note.truncate(0)
        self.users.close()
        self.note.close()


def offer_ring():
    """Makes the kernel offer FUSE over io_uring until this script ends; false if it has none."""
    global _ring
    if _ring is None and os.access(RING_SWITCH, os.W_OK):
        _ring = RingOffer()
        atexit.register(_ring.close)
    return _ring is not None


def counters(m):
    """
    The counters of a mount's daemon by name, read from its log after a SIGUSR1. The log omits
    counters that are 0.
    """
    before = last = os.path.getsize(m.log)
    m.proc.send_signal(signal.SIGUSR1)
    for _ in range(100):
        time.sleep(0.1)
        size = os.path.getsize(m.log)
        if size == last != before:
            break
        last = size
    with open(m.log, "rb") as f:
        f.seek(before)
        text = f.read().decode(errors="replace")
    return {k: int(v) for k, v in re.findall(r"(\w+) (\d+): ", text)}


def refusing(**what):
    """
    The environment of a daemon to which refuse.so pretends that the kernel refuses something, see
    refuse.c.
    """
    return {"LD_PRELOAD": os.path.join(BUILD, "tests/root/refuse.so"),
            **{"REFUSE_" + k.upper(): str(v) for k, v in what.items()},
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def daemons_of(path):
    """
    Process ids of fusedio daemons that have path among their arguments. This is how a daemon in the
    background is found.
    """
    want = os.fsencode(path)
    pids = []
    for d in os.listdir("/proc"):
        if d.isdigit() and int(d) != os.getpid():
            with contextlib.suppress(OSError):
                with open(f"/proc/{d}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
                with open(f"/proc/{d}/comm") as f:
                    helper = f.read().startswith("fdio-unmounter")
                if want in argv and b"fusedio" in os.path.basename(argv[0]) and not helper:
                    pids.append(int(d))
    return pids


@contextlib.contextmanager
def copy_elsewhere(env, point):
    """
    Runs the body while a process in another mount namespace holds a copy of the mount at point, as
    a container may. That namespace is a slave of this one, so it does not delay the unmount of
    anything else.
    """
    need("unshare")
    script = 'mount --bind "$0" "$1" && exec sleep 1000'
    with subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script,
                           point, env.mkdir("copy")]) as other:
        try:
            wait_for(lambda: read_file(f"/proc/{other.pid}/comm") == b"sleep\n"
                     or other.poll() is not None, "namespace")
            yield other
        finally:
            other.kill()


class Env:
    """One run of one case: its directory, and a stack of everything that has to be undone."""

    def __init__(self, name, kind):
        self.name = name
        self.kind = kind
        # By the suffix, run-root.sh knows the mounts of its own run.
        self.dir = tempfile.mkdtemp(prefix=f"fdio-{name.replace('/', '-')}-",
                                    suffix=os.environ.get("FDIO_RUN", ""), dir=tmp_base())
        os.chmod(self.dir, 0o755)  # some cases act as other users
        self.undo = contextlib.ExitStack()
        self.daemons = []
        self.serial = 0
        self.lock = threading.Lock()

    def path(self, name):
        return os.path.join(self.dir, name)

    def unique(self, stem):
        with self.lock:
            self.serial += 1
            return self.path(f"{stem}{self.serial}")

    def mkdir(self, stem="mnt"):
        d = self.unique(stem)
        os.mkdir(d)
        return d

    def volume(self, mib=64, *mkfs, kind=None, sector=512, fresh=True):
        return Volume(self, mib, mkfs, kind or self.kind, sector, fresh)

    def kill_daemons(self, sig=signal.SIGKILL):
        for p in list(self.daemons):
            with contextlib.suppress(OSError):
                if p.poll() is None:
                    p.send_signal(sig)

    def reports(self):
        """
        Yields (file, lines of the report) for each report of a sanitizer, of a daemon or a client.
        """
        for d in sorted(os.listdir(self.dir)):
            if d.startswith(("log", "out-", "san")) and os.path.isfile(self.path(d)):
                with open(self.path(d), errors="replace") as f:
                    lines = f.read().splitlines()
                at = next((i for i, line in enumerate(lines) if REPORT.search(line)), None)
                if at is not None:
                    yield d, lines[at:at + 60]

    def expect_no_reports(self):
        for d, lines in self.reports():
            raise Fail(f"{d}: {lines[0].strip()}")

    def unmount_the_rest(self):
        """
        Unmounts what is still mounted below the directory, such as mounts that the case expected to
        fail: a daemon in the background would serve them for ever.
        """
        with open("/proc/self/mounts") as f:
            points = [line.split()[1] for line in f]
        for point in reversed(points):
            if point.startswith(self.dir + "/"):
                subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL, timeout=60,
                               check=False)

    def close(self):
        self.undo.close()
        self.unmount_the_rest()
        if not KEEP:
            shutil.rmtree(self.dir, ignore_errors=True)


class Volume:
    """
    An ext4 file system in an image file, served from the file ("image") or from a loop device over
    it ("loop").
    """

    def __init__(self, env, mib, mkfs, kind, sector, fresh):
        self.env = env
        self.kind = kind
        self.file = env.unique("img")
        self.dev = None
        self.sector = sector
        with open(self.file, "wb") as f:
            f.truncate(int(mib * MIB))
        if fresh:
            self.mkfs(*mkfs)
        if kind == "loop":
            self.attach()

    def mkfs(self, *args):
        # Without lazy initialisation, so that the kernel does not write in the background while
        # images are compared. The hash seed is fixed, so that a failure repeats.
        run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,"
            "hash_seed=6d6f6f6e-6c69-6768-7420-736f6e617461", *args, self.file)

    @property
    def target(self):
        """The path that fusedio serves: the loop device if there is one, else the image."""
        return self.dev or self.file

    def attach(self, readonly=False):
        args = ["losetup", "--find", "--show", "--sector-size", str(self.sector)]
        if readonly:
            args.append("--read-only")
        for _ in range(50):  # another test may take the free device between finding and using it
            p = run(*args, self.file, ok=None)
            if p.returncode == 0:
                self.dev = p.stdout.strip()
                self.env.undo.callback(self.detach)
                return self.dev
            time.sleep(0.05)
        raise Skip("no loop device: " + p.stderr.strip())

    def detach(self):
        if self.dev:
            subprocess.run(["losetup", "-d", self.dev], stderr=subprocess.DEVNULL, timeout=60,
                           check=False)
            self.dev = None

    def mount(self, *opts, ok=True, point=None, environ=None):
        """
        Serves the volume with fusedio -f, so that the daemon's process is known. ok=False: does not
        wait until it serves. environ: variables added to its environment.
        """
        return FuseMount(self, opts, point, environ).start(ok)

    @contextlib.contextmanager
    def kmount(self, *opts):
        """Mounts the volume with the kernel's ext4 while the body runs."""
        d = self.env.mkdir("kmnt")
        o = list(opts)
        if not self.dev:
            o.append("loop")
        cmd = ["mount", "-t", "ext4"] + (["-o", ",".join(o)] if o else []) + [self.target, d]
        for attempt in range(10):
            p = run(*cmd, ok=None)
            if p.returncode == 0:
                break
            if "loop" not in p.stderr or attempt == 9:
                raise Fail(f"kernel mount: {p.stderr.strip()}")
            time.sleep(0.1)
        undo = contextlib.ExitStack()
        undo.callback(self.kernel_gone)
        undo.callback(kernel_umount, d)
        self.env.undo.callback(undo.close)
        try:
            yield d
        finally:
            undo.close()

    def kernel_gone(self):
        """
        Waits until the kernel has closed the file system. umount may return before: a mount
        namespace that was made meanwhile has a copy of the mount, and the kernel writes the
        superblock when the last copy goes.
        """
        wait_for(lambda: not self.kernel_has(),
                 "the kernel lets go of the file system (a mount namespace has a copy of it?)", 100)

    def kernel_has(self):
        """Whether the kernel still has the file system open."""
        if self.dev:
            try:
                os.close(os.open(self.dev, os.O_RDONLY | os.O_EXCL))
            except OSError as e:
                return e.errno == errno.EBUSY
            return False
        return self.file in loop_files()

    def check(self, clean=True):
        """
        The case fails unless e2fsck finds nothing and, with clean, the file system is marked clean.
        """
        if self.dev:
            run("blockdev", "--flushbufs", self.dev, ok=None)
        p = run("e2fsck", "-fn", self.target, ok=None, timeout=120)
        if p.returncode != 0:
            raise Fail(f"e2fsck -fn: exit status {p.returncode}: "
                       + " | ".join(p.stdout.strip().splitlines()[:12])[:900])
        if clean:
            s = self.super()
            expect("needs_recovery" not in s["Filesystem features"],
                   "needs_recovery is set after unmount")
            expect_eq(s["Filesystem state"], "clean", "state after unmount")

    def super(self):
        """The fields of the superblock, as dumpe2fs prints them."""
        out = run("dumpe2fs", "-h", self.target).stdout
        return dict((k, v.strip()) for k, _, v in (line.partition(":") for line in out.splitlines())
                    if v)

    def copy(self):
        """
        A copy of the image as it is now, as a volume of its own: what would be left after a power
        cut.
        """
        other = Volume(self.env, 1, (), "image", self.sector, fresh=False)
        run("cp", "--sparse=always", self.file, other.file)
        return other


def loop_files():
    """Yields the backing file of every loop device."""
    for f in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile
            yield read_file(f).decode(errors="surrogateescape").rstrip("\n")


def kernel_umount(d):
    for i in range(50):
        p = subprocess.run(["umount", d], stderr=subprocess.PIPE, text=True, timeout=120,
                           check=False)
        if p.returncode == 0 or "not mounted" in p.stderr or "no mount point" in p.stderr:
            return
        time.sleep(0.1)
        if i == 40:
            subprocess.run(["umount", "-l", d], stderr=subprocess.DEVNULL, timeout=60, check=False)
    raise Fail(f"umount {d}: {p.stderr.strip()}")


class FuseMount:
    """A mount by fusedio. As a context manager it unmounts and waits for the daemon."""

    def __init__(self, vol, opts, point, environ=None):
        self.vol = vol
        self.environ = dict(os.environ, **environ) if environ else None
        self.env = vol.env
        self.opts = [o for o in opts if o]
        if TRANSPORT and not any(o.startswith("transport=") for o in self.opts):
            self.opts.append("transport=" + TRANSPORT)
        self.point = point or self.env.mkdir("mnt")
        self.log = self.env.unique("log")
        self.proc = None

    def start(self, ok=True):
        if TRANSPORT == "uring" and "transport=uring" in self.opts:
            offer_ring()
        cmd = [FUSEDIO, "-f"] + (["-o", ",".join(self.opts)] if self.opts else []) + [
            self.vol.target, self.point]
        with open(self.log, "wb") as log:
            self.proc = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env=self.environ)
        self.env.daemons.append(self.proc)
        self.env.undo.callback(self.destroy)
        if ok:
            wait_for(lambda: self.served() or self.proc.poll() is not None, "mount", 30)
            if self.proc.poll() is not None:
                raise Fail(
                    f"fusedio ended with {self.proc.returncode} instead of serving: {self.tail()}")
            os.statvfs(self.point)
        return self

    def served(self):
        return mountinfo(self.point) is not None

    def tail(self, lines=6):
        with open(self.log, errors="replace") as f:
            return " | ".join(f.read().strip().splitlines()[-lines:])[-900:]

    def path(self, *names):
        return os.path.join(self.point, *names)

    @property
    def pid(self):
        return self.proc.pid

    def wait(self, timeout=60):
        try:
            return self.proc.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise Fail(f"fusedio still runs {timeout * SLOW:.0f} s later: {self.tail()}") from None

    def umount(self, status=0):
        """Unmounts and waits for the daemon, whose exit status must be status (None: any)."""
        p = None
        # it may still be busy: the kernel releases files of a program that just ended later
        for _ in range(100):
            p = run("umount", self.point, ok=None, timeout=120)
            if p.returncode == 0:
                break
            if "busy" not in p.stderr:
                raise Fail(f"umount: {p.stderr.strip()}; log: {self.tail()}")
            time.sleep(0.05)
        if p.returncode != 0:
            raise Fail(f"umount: {p.stderr.strip()}; "
                       f"{run('fuser', '-vm', self.point, ok=None).stderr.strip()[:300]}")
        rc = self.wait()
        if status is not None:
            expect_eq(rc, status, f"exit status of fusedio ({self.tail()})")

    def kill(self, sig=signal.SIGKILL):
        """
        Kills the daemon at once and removes the mount. Like a power cut, except that the device's
        cache is not lost.
        """
        self.proc.send_signal(sig)
        self.proc.wait(60)
        run("umount", "-l", self.point, ok=None)

    def destroy(self):
        """Removes mount and process in whatever state they are. Runs at the end of every case."""
        if self.proc.poll() is None and mountinfo(self.point):
            subprocess.run(["umount", self.point], stderr=subprocess.DEVNULL, timeout=60,
                           check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.proc.wait(20)
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait(60)
        while mountinfo(self.point):
            if subprocess.run(["umount", "-l", self.point], stderr=subprocess.DEVNULL, timeout=60,
                              check=False).returncode:
                break

    def __enter__(self):
        return self

    def __exit__(self, et, ev, tb):
        if et is None:
            self.umount()
        return False


class Timer:
    """
    The time limit of a case: kills the daemons, so that system calls on the mounts end with an
    error.
    """

    def __init__(self, env, seconds):
        self.fired = False
        self.env = env
        self.timer = threading.Timer(seconds, self.fire)
        self.timer.daemon = True
        self.timer.start()

    def fire(self):
        self.fired = True
        self.env.kill_daemons()

    def cancel(self):
        self.timer.cancel()


def can_run():
    """Why root tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not os.path.exists("/dev/loop-control"):
        return "no /dev/loop-control"
    if not os.access(FUSEDIO, os.X_OK):
        return f"no {FUSEDIO}"
    return None


def label(kind):
    """
    The part of a case's name that tells its runs apart: what is served and, if given, the
    transport.
    """
    words = [w for w in (kind, TRANSPORT) if w]
    return f"[{','.join(words)}]" if words else ""


def run_case(fn, kind, timeout, param):
    """Runs a case once and prints its line; returns "pass", "fail" or "skip"."""
    global _reports
    name = f"{SCRIPT}/{fn.__name__}" + (f"-{param}" if param is not None else "") + label(kind)
    env = Env(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-"), kind)
    _reports = env.path("san")
    dog = Timer(env, timeout * SLOW)
    begun = time.monotonic()
    why = None
    skip = None
    try:
        if param is None:
            fn(env)
        else:
            fn(env, param)
    except Skip as e:
        skip = str(e)
    except Fail as e:
        tb = traceback.extract_tb(e.__traceback__)
        at = [t for t in tb if os.path.basename(t.filename) == os.path.basename(sys.argv[0])]
        why = f"line {at[-1].lineno}: {e}" if at else str(e)
    except Exception as e:  # any error fails the case, and the script goes on
        tb = traceback.extract_tb(e.__traceback__)
        at = [t for t in tb if os.path.basename(t.filename) == os.path.basename(sys.argv[0])]
        why = f"line {at[-1].lineno if at else 0}: {type(e).__name__}: {e}"
    dog.cancel()
    if dog.fired:
        why = f"time limit: no end after {timeout * SLOW:.0f} s ({why})"
    if why is not None:
        for d in sorted(os.listdir(env.dir)):
            if d.startswith("log"):
                with open(env.path(d), errors="replace") as f:
                    for line in f.read().strip().splitlines()[-12:]:
                        print(f"#   {d}: {line[:300]}")
    try:
        env.undo.close()  # ends the daemons, which may write reports when they end
        for d, lines in env.reports():
            print("\n".join(f"#   {d}: {line[:300]}" for line in lines))
            why = f"{d}: {lines[0].strip()}" + (f" ({why})" if why else "")
        env.close()
    except Exception as e:
        why = why or f"cleaning up: {type(e).__name__}: {e}"
    why = why and " ".join(why.split())[:1200]
    took = f"({time.monotonic() - begun:.1f} s)"
    if skip is not None and why is None:
        print(f"skip {name}: {skip}", flush=True)
        return "skip"
    if why is not None:
        print(f"not ok {name}: {why} {took}", flush=True)
        return "fail"
    print(f"ok {name} {took}", flush=True)
    return "pass"


def main():
    """Runs the script's cases. Arguments select cases whose name contains one of them."""
    # SIGTERM (a time limit) runs the cleanup too: mounts, loop devices, frozen file systems.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    reason = can_run()
    count = {"pass": 0, "fail": 0, "skip": 0}
    wanted = sys.argv[1:]
    for fn, kinds, timeout, params in _cases:
        for param in params or (None,):
            for kind in kinds:
                if wanted and not any(w in f"{fn.__name__}-{param}[{kind}]" for w in wanted):
                    continue
                if reason:
                    print(f"{'not ok' if REQUIRE else 'skip'} {SCRIPT}/{fn.__name__}{label(kind)}: "
                          f"{reason}", flush=True)
                    count["fail" if REQUIRE else "skip"] += 1
                    continue
                count[run_case(fn, kind, timeout, param)] += 1
    if count["fail"]:
        sys.exit(1)
    sys.exit(77 if count["skip"] and not count["pass"] else 0)


libc = ctypes.CDLL(None, use_errno=True)


def syscheck(r, what):
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{what}: {os.strerror(e)}")
    return r


FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 0x10
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, off, length):
    syscheck(libc.fallocate(fd, mode, off, length), "fallocate")


RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


def renameat2(old, new, flags):
    syscheck(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags), "renameat2")


def pattern(n, seed=1):
    """n bytes that differ from sector to sector and from seed to seed."""
    out = bytearray()
    i = 0
    while len(out) < n:
        # 507 bytes, so that it does not repeat at sector boundaries
        out += (b"%08x:%012x;" % (seed & 0xffffffff, i)) * 23 + b"."
        i += 1
    return bytes(out[:n])


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


def write_file(path, data, sync=False):
    with open(path, "wb") as f:
        f.write(data)
        if sync:
            f.flush()
            os.fsync(f.fileno())
