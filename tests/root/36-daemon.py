#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The daemon and the system around it: a signal while it starts, mount namespaces with copies of its
mount, images that are truncated, syslog, the service manager.
"""
import errno
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import threading

from lib import (FUSEDIO, SLOW, case, copy_elsewhere, expect, expect_eq, main, mountinfo, need,
                 pattern, read_file, run, wait_for, write_file)

BOTH = ("image", "loop")


def log_of(m):
    with open(m.log, errors="replace") as f:
        return f.read()


@case(kinds=BOTH, params=("limit", "signal"))
def copied_mount(env, ends_by):
    """
    SIGTERM while another mount namespace has a copy: the daemon logs which process holds it, waits
    for a time or until a second signal, and ends.
    """
    vol = env.volume(64)
    m = vol.mount("drain_timeout=" + ("3" if ends_by == "limit" else "1000"))
    write_file(m.path("f"), pattern(100_000))
    with copy_elsewhere(env, m.point) as other:
        m.proc.send_signal(signal.SIGTERM)
        wait_for(lambda: "still mounted elsewhere" in log_of(m), "a line that says who has it")
        expect(f"process {other.pid} (sleep)" in log_of(m), f"not named: {m.tail()}")
        if ends_by == "signal":
            expect(m.proc.poll() is None, "it did not wait")
            m.proc.send_signal(signal.SIGTERM)
        m.wait(30)
        expect("ending the connection" in log_of(m), f"not told: {m.tail()}")
        expect(mountinfo(m.point) is None, "the mount is still here")
        if vol.dev:  # the kernel keeps the device claimed until that namespace is gone
            p = run(FUSEDIO, vol.target, env.mkdir(), ok=None)
            expect_eq(p.returncode, 32, "status of another mount")
            expect(f"process {other.pid} (sleep)" in p.stderr,
                   f"the message does not say who: {p.stderr}")
    wait_for(lambda: not vol.dev or not vol.kernel_has(), "release of the device")
    vol.check()
    with vol.mount() as m:
        expect_eq(read_file(m.path("f")), pattern(100_000), "contents")


@case(kinds=BOTH)
def copy_that_goes(env):
    """
    The copy disappears while the daemon waits for it: the daemon ends at once, as after any
    unmount.
    """
    vol = env.volume(64)
    m = vol.mount("drain_timeout=1000")
    with copy_elsewhere(env, m.point):
        m.proc.send_signal(signal.SIGTERM)
        wait_for(lambda: "still mounted elsewhere" in log_of(m), "a line that says who has it")
    m.wait(30)
    expect("ending the connection" not in log_of(m), f"it did not wait: {m.tail()}")
    vol.check()


@case(kinds=BOTH)
def renamed_mount_point(env):
    """SIGTERM after a directory above the mount point was renamed: no dead mount is left."""
    vol = env.volume(64)
    above = env.mkdir("above")
    os.mkdir(os.path.join(above, "mnt"))
    m = vol.mount(point=os.path.join(above, "mnt"))
    moved = env.path("renamed to")
    os.rename(above, moved)
    env.undo.callback(run, "umount", "-l", os.path.join(moved, "mnt"), ok=None)
    expect(mountinfo(os.path.join(moved, "mnt")), "the mount did not move with its directory")
    m.proc.send_signal(signal.SIGTERM)
    m.wait()
    expect(mountinfo(os.path.join(moved, "mnt")) is None, "a mount is left behind")
    vol.check()


@case(kinds=BOTH, params=("itself", "above"))
def covered_mount_point(env, what):
    """
    SIGTERM while another file system is mounted over it: that one stays, and the log names what is
    below it.
    """
    vol = env.volume(64)
    above = env.mkdir("above")
    os.mkdir(os.path.join(above, "mnt"))
    m = vol.mount(point=os.path.join(above, "mnt"))
    write_file(m.path("f"), pattern(50_000))
    cover = m.point if what == "itself" else above
    run("mount", "-t", "tmpfs", "none", cover)
    env.undo.callback(run, "umount", "-l", cover, ok=None)
    write_file(os.path.join(cover, "others"), b"x")
    m.proc.send_signal(signal.SIGTERM)
    m.wait()
    expect("is covered by another" in log_of(m), f"not told: {m.tail()}")
    expect("unmounted from" not in log_of(m), f"told what is not so: {m.tail()}")
    expect_eq(read_file(os.path.join(cover, "others")), b"x", "the other file system")
    run("umount", cover)
    run("umount", m.point)
    vol.check()


@case(kinds=BOTH)
def private_directory(env):
    """
    SIGTERM with a mount point below a directory that only its owner may enter: it is unmounted as
    any other.
    """
    vol = env.volume(16)
    above = env.mkdir("home")
    os.mkdir(os.path.join(above, "mnt"))
    os.chown(above, 65534, 65534)
    os.chmod(above, 0o700)
    m = vol.mount(point=os.path.join(above, "mnt"))
    m.proc.send_signal(signal.SIGTERM)
    m.wait()
    expect(mountinfo(m.point) is None, f"a mount is left behind: {m.tail()}")
    vol.check()


@case(kinds=BOTH)
def signals_that_mean_nothing(env):
    """SIGHUP and SIGUSR2 do nothing, and do not block other signals."""
    vol = env.volume(64)
    m = vol.mount()
    for sig in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2):
        m.proc.send_signal(sig)
    m.proc.send_signal(signal.SIGUSR1)
    wait_for(lambda: "dev_read" in log_of(m), "counters in the log")
    write_file(m.path("f"), b"still here")
    expect(m.served() and m.proc.poll() is None, "it has ended")
    m.proc.send_signal(signal.SIGTERM)
    m.wait()
    vol.check()


# ---- told to end while starting

def ends_early(env, args, sig, begun, environ=None):
    """
    Sends a signal when begun() is true, before the mount serves: the command ends by that signal
    with a line that says so, and no mount is left.
    """
    mnt, said = env.mkdir(), env.unique("said")
    with open(said, "wb") as f, subprocess.Popen([FUSEDIO, *args, mnt], stderr=f, env=environ) as p:
        try:
            wait_for(lambda: begun(said) or p.poll() is not None, "the long wait of the mount")
            expect(p.poll() is None, "it did not wait")
            p.send_signal(sig)
            p.wait(30 * SLOW)
        finally:
            p.kill()
    last = read_file(said).decode().strip().splitlines()[-1]
    expect_eq(p.returncode, -sig, f"status ({last})")
    expect("told to end before it was mounted" in last, f"it said {last!r}")
    expect(mountinfo(mnt) is None, "a mount is left behind")


@case(kinds=BOTH, params=("TERM", "INT"))
def end_while_watching(env, name):
    """
    Multiple mount protection may watch a device for minutes before the mount: a signal ends that,
    and the device is not taken.
    """
    vol = env.volume(64, "-b", "4096", "-O", "mmp,^metadata_csum", "-E", "mmp_update_interval=100")
    block = int(vol.super()["MMP block number"])

    def set_number(n):
        with open(vol.target, "r+b") as f:
            f.seek(block * 4096 + 4)
            had = f.read(4)
            f.seek(block * 4096 + 4)
            f.write(struct.pack("<I", n))
        return struct.unpack("<I", had)[0]

    clean = set_number(7)  # the sequence number of a host that runs, or was killed
    ends_early(env, ["-f", vol.target], getattr(signal, "SIG" + name),
               lambda said: b"watching" in read_file(said))
    expect_eq(set_number(clean), 7, "the number in the block")
    with vol.mount() as m:
        write_file(m.path("f"), b"x")
    vol.check()


@case(kinds=BOTH)
def end_while_e2fsck_runs(env):
    """
    e2fsck, which is run for a journal that fusedio cannot replay, may take very long: a signal ends
    it, and it is not left running.
    """
    vol = env.volume(64, "-O", "^metadata_csum", "-b", "4096")
    m = vol.mount()
    write_file(m.path("f"), pattern(10_000), sync=True)
    m.kill()
    block = int(run("debugfs", "-R", "bmap <8> 0", vol.file).stdout.split()[-1])
    with open(vol.file, "r+b") as f:  # sets the journal's feature "async commit"
        f.seek(block * 4096 + 0x28)
        had = struct.unpack(">I", f.read(4))[0]
        f.seek(block * 4096 + 0x28)
        f.write(struct.pack(">I", had | 4))
    if vol.dev:
        run("blockdev", "--flushbufs", vol.dev)
    tools = env.mkdir("bin")
    pid_file = env.path("pid")
    write_file(os.path.join(tools, "e2fsck"),
               f"#!/bin/sh\necho $$ >{pid_file}\nexec sleep 300 >/dev/null 2>&1\n".encode())
    os.chmod(os.path.join(tools, "e2fsck"), 0o755)
    # Without -f the command passes the signal on to the daemon.
    ends_early(env, [vol.target], signal.SIGTERM,
               lambda _: os.path.exists(pid_file) and read_file(pid_file).endswith(b"\n"),
               dict(os.environ, PATH=tools + ":" + os.environ["PATH"]))
    pid = int(read_file(pid_file))
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "end of e2fsck")


# ---- an image that is cut under the mount

@case(params=("fsync", "O_DSYNC", "plain"))
def truncated_image(env, how):
    """
    Somebody truncates the image of a mount: from then on nothing is acknowledged as durable, soon
    every write fails, and the log says why.
    """
    vol = env.volume(64)
    m = vol.mount()
    for i in range(8):
        write_file(m.path(f"f{i}"), pattern(1 << 20, i), sync=True)
    fd = os.open(m.path("f7"), os.O_RDWR | os.O_DIRECT | (os.O_DSYNC if how == "O_DSYNC" else 0))
    block = mmap.mmap(-1, 4096)
    os.pwrite(fd, block, 0)
    os.truncate(vol.file, 4 << 20)

    def refused():
        try:
            os.pwrite(fd, block, 65536)
            if how == "fsync":
                os.fsync(fd)
        except OSError as e:
            expect(e.errno in (errno.EIO, errno.EROFS), f"errno {e.errno}")
            return True
        return False

    expect(refused() or how == "plain", "acknowledged as durable in an image that was cut")
    wait_for(refused, "an error of a write")
    expect("was cut from 67108864 to" in log_of(m), f"not told: {m.tail()}")
    os.close(fd)
    m.umount(status=None)


# ---- where lines go

class Lines(threading.Thread):
    """A datagram socket that collects what is sent to it."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.path = path
        self.lines = []
        self.start()

    def run(self):
        while True:
            self.lines.append(self.sock.recv(4096).decode(errors="replace"))

    def has(self, text):
        return any(text in line for line in self.lines)


def own_dev(env, *nodes):
    """The words before a command that give it a /dev of its own with these nodes."""
    dev = env.mkdir("dev")
    script = f"mount -t tmpfs none {dev} && cd {dev} && "
    script += (
        " && ".join(nodes)
        + " && mkdir -p shm && mount --bind /dev/shm shm && mount --rbind . /dev && exec \"$@\"")
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"]


@case()
def background_log(env):
    """
    A daemon in the background logs what it has to say about the mount to syslog; the terminal gets
    warnings only.
    """
    need("unshare")
    vol = env.volume(64)
    m = vol.mount("commit=300")
    write_file(m.path("f"), b"x", sync=True)
    m.kill()
    lines = Lines(env.path("syslog.sock"))
    mnt = env.mkdir()
    p = run(*own_dev(env, "mknod null c 1 3", "mknod fuse c 10 229", "mknod urandom c 1 9",
                     f"ln -s {lines.path} log"), FUSEDIO, "-o", "transport=devfuse", vol.target,
            mnt)
    wait_for(lambda: lines.has("mounted on"), "the line that says it is mounted")
    daemon = int(re.search(r"fusedio\[(\d+)\]",
                           [line for line in lines.lines if "mounted on" in line][0]).group(1))
    os.kill(daemon, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(f"/proc/{daemon}"), "end of the daemon")
    for text in ("over /dev/fuse", "replayed", "unmounted from"):
        expect(lines.has(text), f"no line with {text!r}: {lines.lines}")
    expect_eq(p.stderr, "", "what the terminal got")
    vol.check()


@case()
def no_fuse(env):
    """
    Without /dev/fuse the exit status is that of a system error, and the message names /dev/fuse.
    """
    need("unshare")
    vol = env.volume(16)
    p = run(*own_dev(env, "mknod null c 1 3", "mknod urandom c 1 9"), FUSEDIO, vol.target,
            env.mkdir(), ok=None)
    expect_eq(p.returncode, 2, f"status ({p.stderr})")
    expect("/dev/fuse" in p.stderr and len(p.stderr.splitlines()) == 1, f"it said {p.stderr!r}")


@case()
def service_manager(env):
    """
    The service manager is told, in this order: that the start takes longer, that the mount serves,
    that it ends.
    """
    vol = env.volume(64, "-O", "mmp", "-E", "mmp_update_interval=1")
    vol.mount().kill()  # so the next mount watches the device for eleven seconds
    told = Lines(env.path("notify.sock"))
    m = vol.mount(environ={"NOTIFY_SOCKET": told.path})
    wait_for(lambda: told.has("READY=1"), "READY=1")
    before = told.lines[:[i for i, t in enumerate(told.lines) if "READY=1" in t][0]]
    expect(any(re.match(r"EXTEND_TIMEOUT_USEC=\d{7,}\nSTATUS=\w+ing ", t) for t in before),
           f"before READY=1: {before}")
    m.umount()
    wait_for(lambda: told.has("STOPPING=1"), "STOPPING=1")
    vol.check()


if __name__ == "__main__":
    main()
