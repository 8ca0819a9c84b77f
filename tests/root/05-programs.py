#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Everyday programs work on a mount: cp, rsync, git, tar, sqlite3, make and a compiler."""
import os
import shutil

import tree
from lib import Fail, case, expect, expect_eq, main, need, pattern, run, write_file

BOTH = ("image", "loop")
# Fields that differ between a file and its copy: numbers, times of change and birth, allocation.
COPY = ("ino", "ctime", "birth", "blocks", "atime", "segments", "sha256", "hole", "dirent")


def make_source(env):
    src = env.mkdir("src")
    tree.fill(src, 4096, extents=50, entries=300, times=[0, 10**18 + 1, 5 * 10**9], acls=False,
              huge=False)
    # rsync ignores differences of less than a second
    for d, _, files in os.walk(os.fsencode(src)):
        for f in files:
            os.utime(os.path.join(d, f), ns=(10**18 + 1, 10**18 + 2), follow_symlinks=False)
        os.utime(d, ns=(10**18 + 7, 10**18 + 9))
    return src


def contents(root):
    out = {}
    for d, _, files in os.walk(os.fsencode(root)):
        for f in files:
            p = os.path.join(d, f)
            if os.path.isfile(p) and not os.path.islink(p) and os.stat(p).st_size < 10_000_000:
                with open(p, "rb") as fh:
                    out[os.path.relpath(p, os.fsencode(root))] = fh.read()
    return out


def same(a, b, ignore=()):
    expect_eq(len(contents(a)), len(contents(b)), "number of files")
    ca, cb = contents(a), contents(b)
    for p in ca:
        expect(ca[p] == cb.get(p), f"{p!r} differs")
    diff = tree.differences(tree.scan(a), tree.scan(b), ignore=COPY + ignore)
    if diff:
        raise Fail(f"source / {os.path.basename(b)}: " + "; ".join(diff))


@case(kinds=BOTH)
def cp_and_rsync(env):
    need("rsync")
    src = make_source(env)
    vol = env.volume(256, "-b", "4096")
    with vol.mount() as m:
        run("cp", "-a", src, m.path("cp"), timeout=120)
        same(src, m.path("cp"))
        run("rsync", "-aHAX", "--sparse", m.path("cp") + "/", m.path("rsync"), timeout=120)
        same(src, m.path("rsync"))
        p = run("rsync", "-aHAXn", "-i", "--checksum", m.path("cp") + "/", m.path("rsync"),
                timeout=120)
        expect_eq(p.stdout.strip(), "", "what rsync would still copy")
        shutil.rmtree(m.path("cp"))
    vol.check()
    with vol.kmount("ro") as k:
        same(src, os.path.join(k, "rsync"))


@case(kinds=BOTH)
def tar(env):
    src = make_source(env)
    os.unlink(os.path.join(src, "links", "socket"))  # tar leaves sockets out
    os.utime(os.path.join(src, "links"), ns=(10**18, 10**18))
    archive = env.path("a.tar")
    run("tar", "-C", src, "--xattrs", "--xattrs-include=*", "--sparse", "--format=posix", "-cf",
        archive, ".")
    vol = env.volume(256, "-b", "4096")
    with vol.mount() as m:
        os.mkdir(m.path("out"))
        run("tar", "-C", m.path("out"), "--xattrs", "--xattrs-include=*", "-xpf", archive,
            "--numeric-owner")
        same(src, m.path("out"))
        run("tar", "-C", m.path("out"), "--xattrs", "--xattrs-include=*", "--compare", "-f",
            archive)
    vol.check()


@case(kinds=BOTH)
def git(env):
    need("git")
    home = env.mkdir("home")
    e = dict(os.environ, HOME=home, GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="a",
             GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b")
    src = env.mkdir("repo")

    def g(where, *args):
        return run("git", "-C", where, *args, env=e, timeout=120)

    g(src, "init", "-q", "-b", "main")
    for rev in range(12):
        for i in range(30):
            write_file(os.path.join(src, f"file-{i}"),
                       b"revision %d\n" % rev + pattern(500 + 70 * i, i))
        g(src, "add", "-A")
        g(src, "commit", "-q", "-m", f"revision {rev}")
    vol = env.volume(128)
    with vol.mount() as m:
        run("git", "clone", "-q", "--no-hardlinks", src, m.path("clone"), env=e)
        c = m.path("clone")
        write_file(os.path.join(c, "file-3"), b"changed\n")
        g(c, "commit", "-q", "-a", "-m", "change")
        g(c, "checkout", "-q", "HEAD~5")
        g(c, "checkout", "-q", "main")
        g(c, "gc", "-q", "--prune=now")
        g(c, "fsck", "--full", "--strict")
        expect_eq(g(c, "status", "--porcelain").stdout, "", "git status")
        expect_eq(g(c, "rev-list", "--count", "HEAD").stdout.strip(), "13", "commits")
    vol.check()


@case(kinds=BOTH, params=("delete", "wal"))
def sqlite(env, mode):
    need("sqlite3")
    vol = env.volume(128)
    sql = f"""PRAGMA journal_mode={mode}; PRAGMA synchronous=FULL;
    CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INTEGER);
    CREATE INDEX i ON t(v);"""
    for batch in range(20):
        sql += "BEGIN;" + "".join(
            f"INSERT INTO t(v,n) VALUES('{pattern(60, batch * 50 + i).decode()}',{i});"
            for i in range(50)) + "COMMIT;"
    sql += "DELETE FROM t WHERE n % 3 = 0; VACUUM; SELECT count(*), sum(n) FROM t;"
    with vol.mount() as m:
        out = run("sqlite3", m.path("db"), inp=sql, timeout=120).stdout.strip().splitlines()
        expect_eq(out[-1], f"{20 * 33}|{20 * sum(i for i in range(50) if i % 3)}", "count and sum")
        expect_eq(run("sqlite3", m.path("db"), "PRAGMA integrity_check").stdout.strip(), "ok",
                  "integrity")
    vol.check()
    with vol.kmount("ro") as k:
        shutil.copy(os.path.join(k, "db"), env.path("db"))
        for extra in ("-wal", "-shm"):
            if os.path.exists(os.path.join(k, "db" + extra)):
                shutil.copy(os.path.join(k, "db" + extra), env.path("db" + extra))
    expect_eq(run("sqlite3", env.path("db"), "PRAGMA integrity_check").stdout.strip(), "ok",
              "integrity in the kernel's view")


@case(kinds=BOTH)
def build(env):
    """A small C project is built on the mount, and its program runs from there."""
    need("gcc", "make")
    vol = env.volume(128)
    with vol.mount() as m:
        n = 12
        for i in range(n):
            write_file(m.path(f"part{i}.c"),
                       b"#include \"part.h\"\nint part%d(int x) { return x * %d + 1; }\n"
                       % (i, i + 2))
        write_file(m.path("part.h"), "".join(f"int part{i}(int);\n" for i in range(n)).encode())
        calls = "".join(f"\tx = part{i}(x) % 100003;\n" for i in range(n))
        write_file(
            m.path("main.c"),
            f"#include <stdio.h>\n#include \"part.h\"\nint main(void)\n{{\n\tint x = 1;\n{calls}"
            "\tprintf(\"%d\\n\", x);\n\treturn 0;\n}\n".encode())
        objs = " ".join(f"part{i}.o" for i in range(n))
        write_file(m.path("Makefile"),
                   f"prog: main.o {objs}\n\tgcc -o $@ $^\n%.o: %.c part.h\n\tgcc -O1 -c -o $@ $<\n"
                   "lib.a: prog\n\tar rcs $@ *.o\nclean:\n\trm -f *.o prog lib.a\n".encode())
        x = 1
        for i in range(n):
            x = (x * (i + 2) + 1) % 100003
        run("make", "-C", m.point, "-j4", "lib.a", timeout=180)
        expect_eq(run(m.path("prog")).stdout.strip(), str(x), "what the program prints")
        p = run("make", "-C", m.point, "prog")
        expect("up to date" in p.stdout, f"make builds again: {p.stdout!r}")
        run("make", "-C", m.point, "clean")
        run("make", "-C", m.point, "-j4", "prog", timeout=180)
    vol.check()


if __name__ == "__main__":
    main()
