# SPDX-License-Identifier: GPL-2.0-or-later
"""
Drives that fail: media errors at chosen blocks, on the N-th write or flush, and a drive that is
removed. Afterwards the image is examined without the fault: e2fsck replays the journal and finds
nothing, everything that was announced as durable is there, and if the daemon stopped writing, the
superblock or the journal has the error.
"""
import os
import re

from vm_env import (Fail, blocks_of, copy, debugfs, e2fsck_clean, e2fsck_replay, expect, make_image,
                    number_in, run, superblock)
from vm_qemu import blkdebug_drive, break_drive, raw_drive
from vm_steps import check_image, content

BLOCK = 4096
FILES = 100
IMAGE_MIB = 48


def populate(directory):
    """Makes the tree of files that the images start with."""
    os.makedirs(os.path.join(directory, "inodes"))
    os.makedirs(os.path.join(directory, "baddir"))

    def put(name, data):
        with open(os.path.join(directory, name), "wb") as f:
            f.write(data)
    put("data", content(65536, 1))
    put("attr", b"")
    put("baddir/file", b"")
    for i in range(FILES):
        put(f"inodes/f{i}", b"")
    put("inodes/other", b"")
    # a hole after each block: more extents than fit into an inode
    with open(os.path.join(directory, "tree"), "wb") as f:
        for i in range(12):
            f.seek(i * 2 * BLOCK)
            f.write(content(BLOCK, 1, i * 2 * BLOCK))


def populated_image(env, name="base.img"):
    tree = env.path("tree")
    if not os.path.isdir(tree):
        populate(tree)
    image = make_image(env.path(name), IMAGE_MIB, "-b", BLOCK, "-J", "size=4", "-N", 512, "-d",
                       tree, reserve=64 << 10)
    value = env.path("value")
    with open(value, "wb") as f:
        f.write(b"v" * 1500)
    run("debugfs", "-w", "-R", f"ea_set -f {value} /attr user.large", image)
    e2fsck_clean(image)
    return image


def inode_block(image, path):
    return number_in(debugfs(image, f"imap {path}"), r"located at block (\d+)")


def faults(iotype, blocks):
    """blkdebug's rules for permanent errors at these blocks."""
    return [{"event": "none", "iotype": iotype, "sector": b * BLOCK // 512 + s} for b in blocks
            for s in range(BLOCK // 512)]


def read_errors(env):
    """Media errors on reading: see guest-readerr.sh."""
    image = populated_image(env)
    needed = {inode_block(image, p)
              for p in ("/", "/data", "/attr", "/tree", "/baddir", "/inodes", "/inodes/other")}
    bad_file, inode = next((f"f{i}", b) for i in range(FILES)
                           for b in [inode_block(image, f"/inodes/f{i}")] if b not in needed)
    tree = number_in(debugfs(image, "ex /tree"), r"(?m)^ 0/ 1 .*?\s(\d+)\s+\d+\s*$")
    attr = number_in(debugfs(image, "stat /attr"), r"File ACL: (\d+)")
    expect(attr > 0, "the attributes are in the inode")
    bad = [blocks_of(image, "/data")[8], inode, blocks_of(image, "/baddir")[0], attr, tree]
    env.boot("readerr", [blkdebug_drive("d1", image, inject_error=faults("read", bad))],
             append=f"arg={bad_file}")
    env.check("e2fsck", e2fsck_clean, image)


def noted(image):
    """
    The daemon has recorded an error in the superblock or, if it could not write that, in the
    journal's superblock.
    """
    sb = superblock(image)
    journal = debugfs(image, "logdump -S") + str(sb)
    expect("errors" in sb.get("Filesystem state", "") or re.search(
        r"(?i)journal errno:\s+(?!0)", journal), f"no error noted: {sb.get('Filesystem state')}")


def recovers(image):
    """
    Without the fault, e2fsck replays the journal and then finds nothing wrong. A recorded error
    makes it check everything; it may change nothing but that record.
    """
    p = run("e2fsck", "-fy", image, ok=None, timeout=120)
    expect(p.returncode in (0, 1), f"e2fsck -fy: status {p.returncode}: {p.stdout[-300:]}")
    said = [line for line in p.stdout.splitlines() if line and not re.match(
        r"Pass \d|.*FILE SYSTEM WAS MODIFIED|.*recovering journal$|.*: \d+/\d+ files", line)]
    # As in the kernel, the counts in the superblock are updated at unmount only.
    counts = re.compile(r"Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.$")
    said = [a for a, before in zip(said, [""] + said) if not counts.match(a)
            and not (a == "Fix? yes" and counts.match(before))]
    expect(not said, f"e2fsck repaired: {said}")
    e2fsck_clean(image)


def no_longer_dirty(image, dirty):
    flags = superblock(image)["Filesystem features"]
    expect(("needs_recovery" in flags) == dirty, f"needs_recovery is {'not ' if dirty else ''}set")


def write_errors(env):
    """
    Media errors on writing and flushing, one kind on each of six drives: see guest-writeerr.sh.
    """
    base = populated_image(env)
    images = [copy(base, env.path(f"drive{n}.img")) for n in range(1, 7)]
    journal = blocks_of(base, "<8>")
    log = faults("write", journal[1:4])
    rules = [faults("write", [blocks_of(base, "/data")[8]]), log,
             faults("write", [inode_block(base, "/data")]), None, log, log]
    g = env.guest("writeerr", [blkdebug_drive(f"d{n}", image, inject_error=rule) if rule
                               else raw_drive(f"d{n}", image)
                               for n, (image, rule) in enumerate(zip(images, rules), 1)])
    g.expect_line("FLUSHES-SHALL-FAIL")
    break_drive(g, "d4", inject_error=[{"event": "none", "iotype": "flush"}])
    env.finish(g)
    data, aborted, checkpoint, flush, panic, cont = images
    env.check("data: e2fsck", e2fsck_clean, data)
    for name, image in (("journal", aborted), ("checkpoint", checkpoint), ("flush", flush),
                        ("panic", panic), ("continue", cont)):
        env.check(f"{name}: the error is noted", noted, image)
    env.check("checkpoint: what could not be written in place is still in the log", no_longer_dirty,
              checkpoint, True)
    for name, image in (("journal", aborted), ("checkpoint", checkpoint), ("flush", flush),
                        ("panic", panic), ("continue", cont)):
        env.check(f"{name}: a replay makes it whole", recovers, image)
    env.check("checkpoint: the durable file is there", file_is, env, checkpoint, "/new",
              content(4096, 4))


def file_is(env, image, path, want):
    out = env.path("dumped")
    debugfs(image, f"dump {path} {out}")
    with open(out, "rb") as f:
        expect(f.read() == want, f"{path} differs")


def nth_rules(event, iotype, n, once):
    """
    blkdebug's rules by which the n-th request of a kind fails and, unless once, all later ones.
    """
    states = [{"event": event, "state": s, "new_state": s + 1} for s in range(1, n)]
    return {**({"set_state": states} if states else {}),
            "inject_error": [{"event": event, "iotype": iotype, "state": n, "once": once}]}


def check_nth(env, image, step):
    recovers(image)
    if step:
        check_image(image, step, env.path(os.path.basename(image) + ".files"))


def nth(env, event, iotype, numbers):
    """
    Makes the n-th request of a kind fail, for each n in numbers: once on one drive, from then on
    for ever on another.
    """
    base = populated_image(env)
    cases = [(n, once) for n in numbers for once in (True, False)]
    images = [copy(base, env.path(f"{iotype}{n}{'once' if once else ''}.img")) for n, once in cases]
    g = env.boot("nth", [blkdebug_drive(f"d{i}", image, **nth_rules(event, iotype, n, once))
                         for i, (image, (n, once)) in enumerate(zip(images, cases))])
    ended = {int(m.group(1)): m
             for m in (re.match(r"DRIVE (\d+) STEP (\d+) (.*)", line) for line in g.lines()) if m}
    hit = 0
    for i, (image, (n, once)) in enumerate(zip(images, cases), 1):
        what = f"{iotype} {n} {'fails once' if once else 'and all later ones fail'}"
        if i not in ended:
            env.bad(what, "no report")
            continue
        hit += ended[i].group(3) != "DONE"
        env.check(f"{what}: recovery, and {ended[i].group(2)} announced steps are there", check_nth,
                  env, image, int(ended[i].group(2)))
    env.results.note(f"{env.name}: {hit} of {len(cases)} drives made a step or the mount fail")
    if hit < len(cases) // 2:
        raise Fail(f"only {hit} of {len(cases)} faults were seen by anybody")


def nth_write(env):
    nth(env, "pwritev", "write", (2, 6, 9, 14, 23, 44))


def nth_flush(env):
    nth(env, "flush_to_disk", "flush", (1, 3, 4, 6, 12))


def removal(env):
    """The drive is removed while programs write to it: see guest-removal.sh."""
    image = populated_image(env)
    g = env.boot("removal", [raw_drive("d1", image)])
    env.check("e2fsck after a replay", e2fsck_replay, image)
    last = max((int(line.split()[1]) for line in g.lines() if line.startswith("STEP ")), default=0)
    env.check(f"{last} announced steps are there", check_image, image, last, env.path("files"))
