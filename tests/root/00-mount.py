#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Mounting and unmounting. The command returns when the mount serves requests; after umount the file
system is clean; what surrounds the mount (file descriptors, readahead, other mounts at the same
place) is as a user may expect.
"""
import contextlib
import os
import signal

from lib import (FUSEDIO, FuseMount, case, counters, daemons_of, expect, expect_eq, main, mountinfo,
                 read_file, refusing, run, wait_for, write_file)

BOTH = ("image", "loop")


@case(kinds=BOTH)
def background(env):
    """The command without -f returns when the mount serves, and umount leaves a clean volume."""
    vol = env.volume(64)
    mnt = env.mkdir()
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    run(FUSEDIO, vol.target, mnt)
    info = mountinfo(mnt)
    expect(info is not None, "the command has returned, but nothing is mounted")
    expect(info[1].startswith("fuse"), f"type {info[1]}")
    expect_eq(info[2], vol.target, "source in /proc/self/mountinfo")
    expect("lost+found" in os.listdir(mnt), "lost+found is not listed")
    write_file(os.path.join(mnt, "hello"), b"hello\n")
    expect_eq(read_file(os.path.join(mnt, "hello")), b"hello\n", "what was written")
    run("umount", mnt)
    if vol.dev:
        vol.check()  # a block device is clean when umount returns
    wait_for(lambda: not daemons_of(mnt), "end of the daemon after umount")
    vol.check()
    with vol.kmount("ro") as k:
        expect_eq(read_file(os.path.join(k, "hello")), b"hello\n", "what the kernel reads")


@case(kinds=BOTH)
def untouched(env):
    """After mounting and unmounting, the volume is clean and still empty."""
    vol = env.volume(64)
    with vol.mount():
        pass
    vol.check()
    with vol.kmount("ro") as k:
        expect_eq(os.listdir(k), ["lost+found"], "names")


@case(kinds=BOTH)
def asks_itself_nothing(env):
    """
    While it starts the daemon makes no request to itself: killed in that moment it would wait for
    its own answer, and neither the process nor the mount would ever end.
    """
    m = FuseMount(env.volume(64), (), None).start(ok=False)
    wait_for(lambda: b" mounted on " in read_file(m.log), "the mount")
    expect_eq(counters(m).get("transport_requests", 0), 0, "requests")
    m.umount()


@case(kinds=BOTH)
def without_fsopen(env):
    """Where the kernel has no fsopen(2), libfuse makes the same mount."""
    vol = env.volume(64)
    for options in ((), ("ro", "noatime", "nosuid", "nodev"), ("sync", "dirsync", "noexec")):
        with vol.mount(*options) as m:
            want = mountinfo(m.point)[1:]
        with vol.mount(*options, environ=refusing(fsopen=1)) as m:
            expect_eq(mountinfo(m.point)[1:], want, f"the line in /proc/self/mountinfo, {options}")
            expect_eq(os.listdir(m.point), ["lost+found"], "names")
    vol.check()


@case()
def long_name(env):
    """An image whose name is too long for fsconfig(2) is mounted and unmounted as any other."""
    vol = env.volume(64)
    path = vol.file
    for _ in range(2):
        path = os.path.join(os.path.dirname(path), "n" * 200, "image")
        os.mkdir(os.path.dirname(path))
    os.rename(vol.file, path)
    vol.file = path
    with vol.mount() as m:
        expect_eq(mountinfo(m.point)[2], path, "source in /proc/self/mountinfo")
        expect_eq(os.listdir(m.point), ["lost+found"], "names")
    vol.check()


@case(kinds=BOTH)
def again(env):
    """Five mounts in a row; each finds what the one before wrote."""
    vol = env.volume(64)
    for i in range(5):
        with vol.mount() as m:
            expect_eq(sorted(os.listdir(m.point)),
                      sorted(["lost+found"] + [f"f{j}" for j in range(i)]), "names")
            write_file(m.path(f"f{i}"), b"%d" % i * 5000)
    vol.check()


@case(kinds=BOTH)
def statfs(env):
    vol = env.volume(200)
    with vol.kmount() as k:
        write_file(os.path.join(k, "f"), b"x" * 3_000_000)
    with vol.kmount("ro") as k:
        want = os.statvfs(k)
    with vol.mount("ro") as m:
        got = os.statvfs(m.point)
    for f in ("f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_namemax"):
        expect_eq(getattr(got, f), getattr(want, f), f)


@case()
def version_and_help(env):
    p = run(FUSEDIO, "-V")
    expect("fusedio" in p.stdout, "no name in -V")
    p = run(FUSEDIO, "--help")
    for word in ("-o", "-f", "commit="):
        expect(word in p.stdout + p.stderr, f"no {word} in --help")


@case(kinds=("loop",))
def sectors_of_4096(env):
    """A device with sectors of 4 KiB is served."""
    vol = env.volume(64, "-b", "4096", sector=4096)
    with vol.mount() as m:
        write_file(m.path("f"), b"4k" * 10_000)
        fd = os.open(m.path("f"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    vol.check()


@case(kinds=("image", "loop"))
def readahead(env):
    """The kernel's readahead for the mount is that of the option, at least 1 MiB by default."""
    for opt, least, most in (((), 1024, 16384), (("readahead=512",), 512, 512)):
        with env.volume(32).mount(*opt) as m:
            dev = os.stat(m.point).st_dev
            name = f"/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}"
            name = ((name + "-fuseblk" if os.path.exists(name + "-fuseblk") else name)
                    + "/read_ahead_kb")
            # With -f the mount is there before the daemon has finished setting it up.
            wait_for(lambda: least <= int(read_file(name)) <= most, f"readahead of {opt}",
                     timeout=10)


@case()
def without_standard_files(env):
    """The daemon works if it is started with standard input, output and error closed."""
    vol = env.volume(64)
    mnt = env.mkdir()
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    run("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', FUSEDIO, vol.target, mnt)
    write_file(os.path.join(mnt, "f"), b"served")
    run("umount", mnt)
    wait_for(lambda: not daemons_of(vol.target), "end of the daemon")
    vol.check()


def open_files(pid):
    files = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return files


@case(kinds=("image", "loop"), params=("", "-f"))
def inherited_descriptors(env, foreground):
    """
    The daemon and its unmounter hold no descriptors that they inherited, yet the device and the
    mount point may be given as /dev/fd/N.
    """
    vol = env.volume(64)
    mnt = env.mkdir()
    secret = env.path("secret")
    write_file(secret, b"")
    script = ('exec 7<"$1" 8<"$1" 200<>"$1" 9<"$2" 6<"$3"; "$0" '
              + f"{foreground} /dev/fd/9 /proc/self/fd/6")
    script += ' >"$3.log" 2>&1 &' if foreground else ""
    env.undo.callback(run, "umount", "-l", mnt, ok=None)
    run("bash", "-c", script, FUSEDIO, secret, vol.target, mnt)
    wait_for(lambda: mountinfo(mnt) is not None, "mount")
    pids = [p for p in daemons_of("/proc/self/fd/6") if any(vol.target in f for f in open_files(p))]
    expect_eq(len(pids), 1, f"daemons: {pids}")
    children = run("pgrep", "-P", pids[0]).stdout.split()
    expect_eq(len(children), 1, "children of the daemon")
    for pid in pids + children:
        held = [f for f in open_files(pid) if "secret" in f or f == mnt]
        expect_eq(held, [], f"what {pid} holds of its starter's")
    write_file(os.path.join(mnt, "f"), b"x")
    run("umount", mnt)
    wait_for(lambda: not os.path.exists(f"/proc/{pids[0]}"), "end of the daemon")
    vol.check()


@case(kinds=("image", "loop"))
def one_upon_another(env):
    """With two mounts at one place, the end of the upper one leaves the lower one mounted."""
    lower, upper = env.volume(64), env.volume(64)
    m = lower.mount()
    write_file(m.path("lower"), b"lower")
    for end in ("umount", "TERM"):
        run(FUSEDIO, upper.target, m.point)
        expect(not os.path.exists(m.path("lower")), "the lower mount is seen")
        (pid,) = daemons_of(upper.target)
        if end == "TERM":
            os.kill(pid, signal.SIGTERM)
        else:
            run("umount", m.point)
        wait_for(lambda p=pid: not os.path.exists(f"/proc/{p}"), "end of the upper daemon")
        expect_eq(read_file(m.path("lower")), b"lower",
                  f"contents of the lower mount after {end} of the upper one")
    m.umount()
    lower.check()
    upper.check()


if __name__ == "__main__":
    main()
