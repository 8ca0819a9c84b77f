#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
One slow client does not stop the others: many clients in fsync, a stopped client, clients killed in
the middle of I/O.

28-hung.py tests devices that stop answering, and the_loop_never_waits in tests/unit/dio/exclusion.c
a worker that is held by the device.
"""
import os
import signal
import subprocess
import threading
import time

from lib import (case, drop_caches, expect, expect_eq, main, pattern, read_file, run, wait_for,
                 write_file)

BOTH = ("image", "loop")


@case(kinds=BOTH)
def reads_beside_fsyncs(env):
    """Eight threads call fsync without pause; reads of another file are served meanwhile."""
    vol = env.volume(128, "-b", "4096")
    with vol.mount() as m:
        write_file(m.path("r"), pattern(1 << 20), sync=True)
        stop = threading.Event()
        synced = []

        def syncer(k):
            fd = os.open(m.path(f"s{k}"), os.O_CREAT | os.O_WRONLY)
            n = 0
            while not stop.is_set():
                os.pwrite(fd, pattern(5000, n), n % 50 * 5000)
                os.fsync(fd)
                n += 1
            os.close(fd)
            synced.append(n)
        threads = [threading.Thread(target=syncer, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        try:
            for _ in range(20):
                fd = os.open(m.path("r"), os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                expect(os.pread(fd, 1 << 20, 0) == pattern(1 << 20), "contents differ")
                os.close(fd)
                os.listdir(m.point)
        finally:
            stop.set()
            for t in threads:
                t.join(60)
        expect_eq(len(synced), 8, "threads that ended")
        expect(all(n > 0 for n in synced), f"fsyncs: {synced}")
    vol.check()


@case()
def stopped_client(env):
    """A client that is stopped in the middle of its work delays nobody."""
    vol = env.volume(64)
    with vol.mount() as m:
        p = subprocess.Popen(["dd", "if=/dev/zero", f"of={m.path('z')}", "bs=4k", "count=100000",
                              "oflag=direct"], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: os.path.exists(m.path("z")) and os.stat(m.path("z")).st_size > 100_000,
                     "the first writes")
            os.kill(p.pid, signal.SIGSTOP)
            for i in range(50):
                write_file(m.path(f"f{i}"), pattern(1000, i), sync=i % 10 == 0)
                expect_eq(read_file(m.path(f"f{i}")), pattern(1000, i), "contents")
            os.rename(m.path("z"), m.path("y"))
        finally:
            p.kill()
            p.wait(60)
    vol.check()


@case(kinds=BOTH)
def killed_clients(env):
    """The daemon works on after clients were killed in the middle of asynchronous I/O."""
    vol = env.volume(128, "-b", "4096")
    with vol.mount() as m:
        for i in range(5):
            p = subprocess.Popen(["fio", "--name=x", f"--filename={m.path('x')}",
                                  "--ioengine=io_uring", "--iodepth=32", "--direct=1",
                                  "--rw=randrw", "--bs=4k", "--size=16m", "--time_based",
                                  "--runtime=60", "--thread"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, cwd=env.dir)
            time.sleep(0.7 + 0.1 * i)
            p.kill()
            p.wait(60)
            drop_caches()
            write_file(m.path("f"), pattern(10_000, i))
            expect_eq(read_file(m.path("f")), pattern(10_000, i), "contents")
    vol.check()


if __name__ == "__main__":
    main()
