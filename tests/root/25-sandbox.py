#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The rights that the daemon keeps while it serves, and that it needs no more. The same for a mount by
an ordinary user.
"""
import os
import re
import shutil

from lib import (FUSEDIO, Skip, case, daemons_of, expect, expect_eq, main, mountinfo, need, pattern,
                 read_file, run, wait_for, write_file)

USER = 65534  # nobody: fusermount3 requires a user with a name


def status_of_threads(pid):
    """For each thread, the fields of its status that tell its rights."""
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/status") as f:
            st = dict(re.findall(r"^(\w+):\s*(.*)$", f.read(), re.M))
        # Workers of io_uring belong to the kernel: they run none of the daemon's code, and have the
        # credentials that the daemon had when it made the ring.
        if not st["Name"].startswith("iou-"):
            yield st


def sanitized():
    return run("sh", "-c", f"ldd {FUSEDIO} | grep -Eq 'lib(a|t|ub)san'", ok=None).returncode == 0


def settle(pid):
    """Waits until the main thread has given up its rights: the mount answers shortly before."""
    wait_for(lambda: all(int(st["CapPrm"], 16) == 0 for st in status_of_threads(pid)),
             "the capabilities to go", 10)


def expect_no_capabilities(pid):
    settle(pid)
    for st in status_of_threads(pid):
        for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect_eq(int(st[field], 16), 0, f"{field} of thread {st['Name']}")


@case(kinds=("image", "loop"))
def gives_up(env):
    """
    No thread has a capability, a file tree or unfiltered system calls; the unmounter has three
    capabilities and fifteen system calls.
    """
    if sanitized():
        raise Skip("sanitizer builds run without the sandbox")
    vol = env.volume(64)
    m = vol.mount()
    expect_no_capabilities(m.pid)
    wait_for(lambda: all(st["Seccomp"] == "2" for st in status_of_threads(m.pid)), "the filter", 10)
    for st in status_of_threads(m.pid):
        expect_eq((st["NoNewPrivs"], st["Seccomp"]), ("1", "2"),
                  f"no_new_privs and seccomp of {st['Name']}")
    expect(os.readlink(f"/proc/{m.pid}/root").endswith(" (deleted)"),
           "the root directory is not the empty one")
    expect_eq(os.listdir(f"/proc/{m.pid}/root"), [], "what is in the root directory")
    open_files = [os.readlink(f"/proc/{m.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{m.pid}/fd")]
    out = [f for f in open_files if f.startswith("/") and os.path.isdir(f)]
    expect_eq(out, [], "what leads out of the empty root")
    children = run("pgrep", "-P", str(m.pid)).stdout.split()
    expect_eq(len(children), 1, "number of child processes")
    for st in status_of_threads(int(children[0])):
        expect_eq(st["Name"], "fdio-unmounter", "name of the child")
        for field in ("CapPrm", "CapEff"):
            expect_eq(int(st[field], 16), 1 << 21 | 1 << 19 | 1 << 2,
                      f"{field} of the unmounter (CAP_SYS_ADMIN, _SYS_PTRACE, _DAC_READ_SEARCH)")
        expect_eq((st["NoNewPrivs"], st["Seccomp"]), ("1", "2"),
                  "no_new_privs and seccomp of the unmounter")
    write_file(m.path("f"), pattern(100_000), sync=True)
    m.umount()
    wait_for(lambda: not os.path.exists(f"/proc/{children[0]}"), "end of the unmounter")
    vol.check()


@case(params=("off", "log"))
def modes(env, mode):
    """
    Without the filter of system calls, and with one that only reports, all other rights are given
    up nevertheless.
    """
    if sanitized():
        raise Skip("sanitizer builds run without the sandbox")
    vol = env.volume(64)
    with vol.mount("sandbox=" + mode) as m:
        expect_no_capabilities(m.pid)
        want = {"off": ("0", "0"), "log": ("1", "2")}[mode]
        wait_for(lambda: all(st["Seccomp"] == want[1] for st in status_of_threads(m.pid)),
                 "the filter", 10)
        for st in status_of_threads(m.pid):
            expect_eq((st["NoNewPrivs"], st["Seccomp"]), want,
                      f"no_new_privs and seccomp of {st['Name']}")
        expect_eq(os.readlink(f"/proc/{m.pid}/root") == "/", mode == "off",
                  "the root directory is /")
        write_file(m.path("f"), pattern(100_000), sync=True)
    vol.check()


@case(kinds=("image", "loop"))
def dies_together(env):
    """
    If the daemon is killed, the unmounter ends too. If the unmounter is killed, the daemon serves
    on and umount works.
    """
    vol = env.volume(64)
    m = vol.mount()
    child = run("pgrep", "-P", str(m.pid)).stdout.split()[0]
    m.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{child}"), "end of the unmounter")
    run("umount", "-l", m.point, ok=None)
    m = vol.mount()
    child = run("pgrep", "-P", str(m.pid)).stdout.split()[0]
    os.kill(int(child), 9)
    write_file(m.path("f"), pattern(10_000), sync=True)
    m.umount()
    vol.check()


def as_user(env):
    """
    Returns an image owned by an ordinary user, a copy of the program that everybody may run, and
    the words that begin a command run by that user.
    """
    need("fusermount3", "setpriv")
    # udev gives everybody access to /dev/fuse; without udev, this test does.
    env.undo.callback(os.chmod, "/dev/fuse", os.stat("/dev/fuse").st_mode & 0o777)
    os.chmod("/dev/fuse", 0o666)
    vol = env.volume(64, "-E", f"root_owner={USER}:{USER}")
    os.chown(vol.file, USER, USER)
    exe = env.path("fusedio")
    shutil.copy2(FUSEDIO, exe)
    os.chmod(exe, 0o755)
    return vol, exe, ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--")


@case()
def ordinary_user(env):
    """
    An ordinary user mounts an image of his own through fusermount3; other users are kept out;
    SIGTERM and fusermount3 -u end the mount.
    """
    vol, exe, user = as_user(env)
    point = env.mkdir()
    os.chown(point, USER, USER)
    env.undo.callback(run, "umount", "-l", point, ok=None)
    for end in ("fusermount3", "TERM"):
        run(*user, exe, vol.file, point)
        expect_eq(mountinfo(point)[1], "fuse.fusedio", "type of the mount")
        run(*user, "sh", "-c",
            f"echo {end} > {point}/{end} && dd if=/dev/zero of={point}/d bs=4k count=64 "
            "oflag=direct status=none")
        expect(run("cat", os.path.join(point, end), ok=None).returncode != 0,
               "root can look into a user's mount")
        pids = daemons_of(vol.file)
        expect(len(pids) == 1, f"daemons: {pids}")
        if not sanitized():
            for st in status_of_threads(pids[0]):
                expect_eq((int(st["CapEff"], 16), st["NoNewPrivs"], st["Seccomp"]), (0, "1", "2"),
                          f"sandbox of {st['Name']}")
        if end == "TERM":
            run(*user, "kill", "-TERM", str(pids[0]))
        else:
            run(*user, "fusermount3", "-u", point)
        wait_for(lambda: not os.path.exists(f"/proc/{pids[0]}") and mountinfo(point) is None,
                 "end of the daemon")
        vol.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "TERM")), b"TERM\n", "what the user wrote")


@case()
def ordinary_user_refused(env):
    """If fusermount3 refuses the mount, one line gives its reason."""
    vol, exe, user = as_user(env)
    mine, roots = env.mkdir(), env.mkdir()
    os.chown(mine, USER, USER)
    tries = [(("--", vol.file, roots), "write access")]
    if "user_allow_other" not in read_file("/etc/fuse.conf").decode().split("\n"):
        tries.append((("-o", "allow_other", vol.file, mine), "user_allow_other"))
    for argv, reason in tries:
        p = run(*user, exe, *argv, ok=None)
        lines = p.stderr.splitlines()
        expect_eq((p.returncode, len(lines)), (32, 1), f"status and lines of {p.stderr!r}")
        expect(lines[0].startswith("fusedio: cannot mount on") and reason in lines[0],
               f"{lines[0]!r} does not say why")


if __name__ == "__main__":
    main()
