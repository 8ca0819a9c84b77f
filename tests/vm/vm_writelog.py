# SPDX-License-Identifier: GPL-2.0-or-later
"""
A recorded log of a drive's writes, in the format of dm-log-writes, and the images that a power cut
could have left: everything up to a flush, and after that any of the writes. The log has the order
of completion.
"""
import random
import struct

from vm_env import expect

MAGIC, FLUSH, DISCARD = 0x6a736677736872, 1, 4
SECTOR = 512


class Entry:
    """One request: where and what (data is None for a flush without a write, and for a discard)."""

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
    """For each entry, the number in the last mark at that offset up to and with it (0: none)."""
    found, last = [], 0
    for e in entries:
        if e.data and e.off <= offset < e.off + e.length:
            text = e.data[offset - e.off:].split(b"\n")[0].split()
            last = int(text[1]) if len(text) == 2 and text[0] == b"STEP" else last
        found.append(last)
    return found


def crash_states(entries, subsets, seed):
    """
    Yields (name, index, indices): the image of a state is that of the entries up to index, in full,
    and of those behind it that indices name. At each flush: all before it; and random choices of
    what is written up to the next flush.
    """
    rng = random.Random(seed)
    flushes = [i for i, e in enumerate(entries) if e.flags & FLUSH] + [len(entries)]
    for n, at in enumerate(flushes[:-1]):
        yield f"flush {n}", at, []
        behind = range(at + 1, flushes[n + 1])
        for s in range(subsets if len(behind) > 1 else 0):
            yield f"flush {n}, choice {s}", at, [i for i in behind if rng.random() < 0.5]
