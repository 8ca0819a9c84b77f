# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a directory must hold after `vmio steps` announced step N, whatever happened to the machine
then. The steps are those of vmio.c. Step N+1 may have been done in part, so what it changes may be
old or new.
"""
import os

from vm_env import Fail, expect, run

RECORD, SLOT, SLOTS, APPEND, NAMES, UNLINK_AFTER, KINDS = 16, 4096, 16, 1008, 4, 14, 7


def content(length, step, off=0):
    """The bytes that a step writes at this offset."""
    first = off // RECORD
    text = b"".join(b"%07d:%07x\n" % (step, first + i)
                    for i in range((length + RECORD - 1) // RECORD))
    return text[:length]


def step_length(n):
    return 1 + n * 2654435761 % (1 << 64) % 20000


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise Fail(f"{path[-40:]}: {e.strerror}") from None


def same(root, name, n, length=None):
    got, want = read(os.path.join(root, name)), content(length or step_length(n), n)
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b),
                  min(len(got), len(want)))
        raise Fail(
            f"{name}: differs at byte {at} of {len(want)} (length {len(got)}): {got[at:at + 16]!r}")


def steps_of_kind(kind, last):
    return range(kind if kind else KINDS, last + 1, KINDS)


def check_slots(root, last, begun):
    """Each slot holds the bytes of its last announced step, or those of the step that had begun."""
    newest = {n // KINDS % SLOTS: n for n in steps_of_kind(2, last)}
    if not newest:
        return
    data = read(os.path.join(root, "slots"))
    for slot, n in newest.items():
        got = data[slot * SLOT:(slot + 1) * SLOT]
        allowed = [n] + ([begun] if begun % KINDS == 2 and begun // KINDS % SLOTS == slot else [])
        expect(any(got == content(SLOT, s, slot * SLOT) for s in allowed),
               f"slot {slot} of step {n}: {got[:16]!r}")


def check_log(root, last):
    steps = list(steps_of_kind(3, last))
    if not steps:
        return
    data = read(os.path.join(root, "log"))
    for n in steps:
        off = n // KINDS * APPEND
        expect(data[off:off + APPEND] == content(APPEND, n, off),
               f"log: append of step {n}: {data[off:off + 16]!r}")


def check_names(root, last, begun):
    newest = {n % NAMES: n for n in steps_of_kind(4, last)}
    for name, n in newest.items():
        try:
            same(root, f"name{name}", n)
        except Fail:
            if begun % KINDS != 4 or begun % NAMES != name:
                raise
            same(root, f"name{name}", begun)


def check_gone(root, last, begun):
    for n in steps_of_kind(6, last):
        path = f"gone{n}"
        if n + UNLINK_AFTER <= last:
            expect(not os.path.exists(os.path.join(root, path)),
                   f"{path}: deleted durably, and there again")
        elif n + UNLINK_AFTER != begun or os.path.exists(os.path.join(root, path)):
            same(root, path, n)


def check(root, last):
    """Everything that steps 1 to last made durable is in root."""
    begun = last + 1
    for n in steps_of_kind(0, last):
        same(root, f"file{n}", n)
    for n in steps_of_kind(1, last):
        same(root, f"direct{n}", n, SLOT * (1 + n % 5))
    for n in steps_of_kind(5, last):
        same(root, f"dir{n}/file", n)
    check_slots(root, last, begun)
    check_log(root, last)
    check_names(root, last, begun)
    check_gone(root, last, begun)


def check_image(image, last, scratch):
    """Checks an image whose journal was replayed, without mounting it."""
    os.makedirs(scratch)
    run("debugfs", "-R", f"rdump /steps {scratch}", image)
    check(os.path.join(scratch, "steps"), last)


def announced(lines):
    """The number of the last announced step."""
    return max((int(line.split()[1]) for line in lines if line.startswith("STEP ")), default=0)
