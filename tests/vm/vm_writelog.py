# SPDX-License-Identifier: GPL-2.0-or-later
"""
The log of a drive's writes, in the format of dm-log-writes, in the order of their completion; and
the images that a power cut could have left: all writes up to a flush, and any of those after it.
"""
import random
import struct

from vm_env import expect

MAGIC, FLUSH, DISCARD = 0x6a736677736872, 1, 4
SECTOR = 512


class Entry:
    """One request. data is None for a discard, and for a flush without a write."""

    def __init__(self, off, length, flags, data):
        self.off, self.length, self.flags, self.data = off, length, flags, data


def parse(path):
    """The entries of a log, in order."""
    with open(path, "rb") as f:
        log = f.read()
    magic, _, count, sector = struct.unpack_from("<QQQI", log)
    expect(magic == MAGIC and sector == SECTOR, "not a log of writes")
    entries, at = [], SECTOR
    for _ in range(count):
        start, sectors, flags, _ = struct.unpack_from("<QQQQ", log, at)
        at += SECTOR
        size = 0 if flags & DISCARD else sectors * SECTOR
        entries.append(Entry(start * SECTOR, sectors * SECTOR, flags,
                             log[at:at + size] if size else None))
        at += size
    return entries


def put(f, entry):
    if entry.data is not None:
        f.seek(entry.off)
        f.write(entry.data)


def marks(entries, offset):
    """
    For each entry, the step in the last mark written at that offset up to and including it (0:
    none).
    """
    found, last = [], 0
    for e in entries:
        if e.data and e.off <= offset < e.off + e.length:
            text = e.data[offset - e.off:].split(b"\n")[0].split()
            last = int(text[1]) if len(text) == 2 and text[0] == b"STEP" else last
        found.append(last)
    return found


def crash_states(entries, subsets, seed):
    """
    Yields (name, index, indices) of images: the entries up to index, and of the later ones those in
    indices. There is one state at each flush, and some with random choices of the writes that
    follow it up to the next flush.
    """
    rng = random.Random(seed)
    flushes = [i for i, e in enumerate(entries) if e.flags & FLUSH] + [len(entries)]
    for n, at in enumerate(flushes[:-1]):
        yield f"flush {n}", at, []
        behind = range(at + 1, flushes[n + 1])
        for s in range(subsets if len(behind) > 1 else 0):
            yield f"flush {n}, choice {s}", at, [i for i in behind if rng.random() < 0.5]
