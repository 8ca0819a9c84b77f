# SPDX-License-Identifier: GPL-2.0-or-later
"""
A tar file that resembles the sources of a large program: thousands of files in hundreds of
directories, most of a few KiB, some of hundreds, with long names, symbolic links and executable
scripts. Each run makes the same bytes.
"""
import io
import random
import tarfile

WORDS = ("block", "buffer", "cache", "check", "client", "codec", "common", "config", "core",
         "debug", "device", "driver", "event", "file", "filter", "format", "graph", "group",
         "handle", "index", "input", "journal", "kernel", "layout", "list", "main", "map", "memory",
         "module", "network", "object", "output", "parse", "path", "policy", "queue", "record",
         "region", "render", "request", "schema", "session", "signal", "socket", "state", "stream",
         "string", "symbol", "table", "thread", "timer", "token", "trace", "tree", "types", "util",
         "value", "version", "widget", "writer")
SUFFIXES = (".c",) * 9 + (".h",) * 7 + (".txt", ".md", ".py", ".sh", ".json", ".S")


def directories(rng, files):
    """Directories as wide and as deep as those of source trees."""
    dirs = ["src"]
    for _ in range(max(4, files // 14)):
        parent = rng.choice(dirs)
        if parent.count("/") < 6:
            path = f"{parent}/{rng.choice(WORDS)}"
            if path not in dirs:
                dirs.append(path)
    return dirs


def size_of_file(rng):
    return min(int(rng.lognormvariate(8.4, 1.2)), 400_000)


def make(path, files):
    """Writes the tar file; returns the number of its entries."""
    rng = random.Random(4)
    text = "".join(
        f"\t{rng.choice(WORDS)}_{rng.choice(WORDS)}({rng.choice(WORDS)}, {rng.randrange(4096)});\n"
        for _ in range(20_000)).encode()
    dirs = directories(rng, files)
    seen = set()
    count = 0
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        def add(name, kind=tarfile.REGTYPE, mode=0o644, data=b"", link=""):
            nonlocal count
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, len(
                data), link, 1_600_000_000 + count
            tar.addfile(info, io.BytesIO(data))
            count += 1

        for d in sorted(dirs):
            add(d, tarfile.DIRTYPE, 0o755)
        made = 0
        while made < files:
            suffix = rng.choice(SUFFIXES)
            name = f"{rng.choice(dirs)}/{rng.choice(WORDS)}-{rng.choice(WORDS)}{suffix}"
            if name in seen:
                continue
            seen.add(name)
            if made % 200 == 199:
                add(name, tarfile.SYMTYPE, 0o777, link="../" + rng.choice(WORDS) + ".h")
            else:
                at = rng.randrange(len(text) // 2)
                add(name, mode=0o755 if suffix == ".sh" else 0o644,
                    data=text[at:at + size_of_file(rng)])
            made += 1
    return count
