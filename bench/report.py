# SPDX-License-Identifier: GPL-2.0-or-later
"""
The results, kept in one JSON file over any number of runs, and the tables made from them.

A sample belongs to a round of a run. A ratio is computed within a round, in which both peers ran at
about the same time; tables show the median of these ratios. So runs of different days can be
combined without comparing one day with another.
"""
import json
import os
import statistics
import textwrap

from devices import KINDS
from jobs import JOBS, QUOTIENTS
from peers import PEERS

VERSION = 1
# The width of documents.
COLUMNS = 98
OURS = ("ring", "devfuse")


class Results:
    def __init__(self, data=None):
        self.data = data or {"version": VERSION, "machine": {}, "runs": [], "samples": {},
                             "left_out": {}, "errors": []}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        if data.get("version") != VERSION:
            raise ValueError(f"{path} is no result of this bench")
        return cls(data)

    def save(self, path):
        """Replaces the file in one step, so that it is never incomplete."""
        tmp = path + ".tmp"
        with open(tmp, "w", encoding="utf-8") as f:
            json.dump(self.data, f, separators=(",", ":"))
            f.write("\n")
        os.replace(tmp, path)

    def add(self, kind, job, peer, sample):
        self.data["samples"].setdefault(kind, {}).setdefault(job, {}).setdefault(peer, []).append(
            compact(sample))

    def samples(self, kind, job, peer):
        return self.data["samples"].get(kind, {}).get(job, {}).get(peer, [])

    def kinds(self):
        return [k for k in KINDS if self.data["samples"].get(k)]

    def jobs(self, kind):
        return [j for j in JOBS if self.data["samples"].get(kind, {}).get(j.key)]

    def peers(self, kind):
        """The peers with at least one sample, in the order of the tables, variants last."""
        there = {p for job in self.data["samples"].get(kind, {}).values() for p, s in job.items()
                 if s}
        return [p for p in PEERS if p in there] + sorted(there - set(PEERS))

    def ours(self, kind):
        there = self.peers(kind)
        return [p for p in OURS if p in there] + [p for p in there if p not in PEERS]

    def median(self, kind, job, peer):
        v = [s["value"] for s in self.samples(kind, job, peer)]
        return statistics.median(v) if v else None

    def spread(self, kind, job, peer):
        """Half the distance between the extremes, relative to the median."""
        v = [s["value"] for s in self.samples(kind, job, peer)]
        m = statistics.median(v) if v else 0
        return (max(v) - min(v)) / 2 / m if m else None

    def ratios(self, kind, job, peer, other, other_job=None):
        """One ratio for each round in which both peers were measured."""
        theirs = {s["round"]: s["value"] for s in self.samples(kind, other_job or job, other)}
        return [s["value"] / theirs[s["round"]] for s in self.samples(kind, job, peer)
                if theirs.get(s["round"])]

    def ratio(self, kind, job, peer, other, other_job=None):
        r = self.ratios(kind, job, peer, other, other_job)
        return statistics.median(r) if r else None

    def cpu(self, kind, job, peer, what):
        """The median of microseconds per operation; None for a peer without a daemon."""
        v = [s[what] / s["ops"] for s in self.samples(kind, job, peer) if s.get(what) is not None
             and s["ops"]]
        return statistics.median(v) if v else None

    def round_count(self, kind):
        return max((len(v) for job in self.data["samples"].get(kind, {}).values()
                    for v in job.values()), default=0)

    def fewest_rounds(self, kind):
        return min((len(v) for job in self.data["samples"].get(kind, {}).values()
                    for v in job.values()), default=0)


def compact(sample):
    """Rounds numbers to six digits, to keep the file small."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in sample.items()}


def title_of(peer):
    return PEERS[peer][0] if peer in PEERS else f"fusedio, {peer}"


def column(peer):
    """A short title, for columns."""
    short = {"raw": "raw", "ext4": "ext4", "xfs": "XFS", "fuse2fs": "fuse2fs", "qemu": "QEMU",
             "devfuse": "/dev/fuse", "ring": "io_uring"}
    return short.get(peer, peer)


def number(v):
    if v is None:
        return "-"
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def factor(v):
    """A ratio, with as many digits as are significant."""
    if v is None:
        return "-"
    return f"{v:.2f}" if v < 9.995 else f"{v:.1f}" if v < 99.95 else f"{v:.0f}"


def reached(v, want):
    """Whether a ratio, as printed, reaches its target."""
    return round(v, 2) >= want


def judged(v, want):
    """A ratio and its target in parentheses, with an exclamation mark if it misses the target."""
    if v is None or want is None:
        return factor(v)
    return f"{factor(v)} ({want:g}{'' if reached(v, want) else '!'})"


def grid(head, rows, left=1):
    """
    Text columns: the first `left` ones are aligned to the left, the others to the right. A row of
    one cell is a heading.
    """
    full = [head] + [r for r in rows if len(r) > 1]
    widths = [max(len(r[i]) for r in full) for i in range(len(head))]
    out = []
    for r in [head] + rows:
        if len(r) == 1:
            out.append(r[0])
            continue
        out.append("  ".join(c.ljust(w) if i < left else c.rjust(w)
                             for i, (c, w) in enumerate(zip(r, widths))).rstrip())
    return "\n".join(out)


def by_group(jobs, row):
    rows, group = [], None
    for j in jobs:
        if j.group != group:
            group = j.group
            rows.append([f"{group}:"])
        rows.append(row(j))
    return rows


def values_table(res, kind):
    peers = res.peers(kind)

    def cell(j, p):
        m, s = res.median(kind, j.key, p), res.spread(kind, j.key, p)
        if m is None:
            return "-"
        return number(m) + (f" ±{s * 100:.0f}%" if len(res.samples(kind, j.key, p)) > 1 else "")
    rows = by_group(res.jobs(kind),
                    lambda j: ["  " + j.title, j.unit] + [cell(j, p) for p in peers])
    return grid(["median, half the distance of the extremes", "unit"] + [column(p) for p in peers],
                rows, 2)


def ratio_table(res, kind, ours):
    others = [p for p in res.peers(kind) if p not in res.ours(kind)] + (
        ["devfuse"] if ours != "devfuse" and "devfuse" in res.peers(kind) else [])

    def cell(j, p):
        return judged(res.ratio(kind, j.key, ours, p), j.want.get(p))
    rows = by_group([j for j in res.jobs(kind) if res.samples(kind, j.key, ours)],
                    lambda j: ["  " + j.title] + [cell(j, p) for p in others])
    text = grid([f"{title_of(ours)}: ratio to"] + [column(p) for p in others], rows)
    for title, job, base, want in QUOTIENTS:
        cells = [
            f"{column(p)} {judged(res.ratio(kind, job, p, p, base), want if p == ours else None)}"
            for p in [ours] + others if res.ratio(kind, job, p, p, base) is not None]
        if cells:
            text += f"\n  {title}: " + ", ".join(cells)
    return text


def cpu_table(res, kind):
    peers = res.peers(kind)

    def cell(j, p):
        v = [res.cpu(kind, j.key, p, w) for w in ("daemon_us", "client_us", "machine_us")]
        return "-" if v[2] is None else " ".join(f"{number3(x):>5}" for x in v)
    rows = by_group(res.jobs(kind), lambda j: ["  " + j.title] + [cell(j, p) for p in peers])
    return grid(["CPU time for one operation, µs: daemon, client, whole machine"]
                + [column(p) for p in peers], rows)


def number3(v):
    if v is None:
        return "-"
    return f"{v:.0f}" if v >= 99.5 else f"{v:.1f}"


def machine_line(res):
    m = res.data["machine"]
    days = sorted({r["time"][:10] for r in res.data["runs"]})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else ""
    if any(r.get("awake") for r in res.data["runs"]):
        when = ", ".join(x for x in ("CPUs kept awake", when) if x)
    parts = [f"{m.get('cpus', '?')} CPUs ({m.get('cpu', '?')})", f"{m.get('memory_gib', '?')} GiB",
             f"Linux {m.get('kernel', '?')}", m.get("system", "")] + [f"{k} {v}" for k, v in sorted(
                 m.get("versions", {}).items())] + [when]
    return ", ".join(p for p in parts if p)


def count_targets(res, kind, ours):
    hit = total = 0
    for j in res.jobs(kind):
        for p, want in j.want.items():
            v = res.ratio(kind, j.key, ours, p)
            if v is not None:
                total += 1
                hit += reached(v, want)
    for _, job, base, want in QUOTIENTS:
        v = res.ratio(kind, job, ours, ours, base)
        if v is not None:
            total += 1
            hit += reached(v, want)
    return hit, total


def text_report(res):
    out = [machine_line(res)]
    for kind in res.kinds():
        out += ["", f"=== {KINDS[kind]}, {rounds_text(res, kind)}", "", values_table(res, kind)]
        for ours in res.ours(kind):
            hit, total = count_targets(res, kind, ours)
            out += ["", ratio_table(res, kind, ours)]
            if total and kind == "tmpfs":
                out.append(
                    "  In parentheses what the project wants; with an exclamation mark where it "
                    f"is not reached. {hit} of {total} reached.")
        out += ["", cpu_table(res, kind)]
        for peer, why in sorted(res.data["left_out"].get(kind, {}).items()):
            out.append(f"left out: {title_of(peer)}: {why}")
    out += [f"error: {e}" for e in res.data["errors"]]
    return "\n".join(out)


def rounds_text(res, kind):
    few, many = res.fewest_rounds(kind), res.round_count(kind)
    return f"{many} round{'s' if many != 1 else ''}" if few == many else f"{few} to {many} rounds"


def md_rows(head, rows):
    """A table in Markdown: the first column is aligned to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def md_value(res, kind, j, p):
    m, s = res.median(kind, j.key, p), res.spread(kind, j.key, p)
    if not m:
        return ""
    many = len(res.samples(kind, j.key, p)) > 1
    return f"{number(m)} {j.unit}" + (f" ±{s * 100:.0f}%" if many else "")


def md_ratio(res, kind, j, ours, other):
    """A ratio: bold if it reaches its target, else "0.6 of 0.7"."""
    v, want = res.ratio(kind, j.key, ours, other), j.want.get(other)
    if v is None:
        return ""
    if want is None:
        return factor(v)
    return f"**{factor(v)}**" if reached(v, want) else f"{factor(v)} of {want:g}"


def md_cpu(res, kind, j, p):
    v = res.cpu(kind, j.key, p, "machine_us")
    return "" if v is None else number3(v)


# The three tables of a device, each narrow enough for a document: a title, and for each column its
# head and the function that makes a cell.
def md_tables(res, kind):
    def ratio(ours, other):
        return lambda j: md_ratio(res, kind, j, ours, other)
    yield "Speed", [
        ("kernel ext4", lambda j: md_value(res, kind, j, "ext4")),
        ("fusedio, io_uring", lambda j: md_value(res, kind, j, "ring"))]
    yield "Ratio to the kernel's file systems and to the bare device", [
        ("io_uring to ext4", ratio("ring", "ext4")),
        ("`/dev/fuse` to ext4", ratio("devfuse", "ext4")),
        ("to XFS", ratio("ring", "xfs")),
        ("to raw", ratio("ring", "raw"))]
    yield "Ratio to other user space, and CPU time in µs for one operation", [
        ("to fuse2fs", ratio("ring", "fuse2fs")),
        ("to QEMU", ratio("ring", "qemu")),
        ("CPU ext4", lambda j: md_cpu(res, kind, j, "ext4")),
        ("CPU fusedio", lambda j: md_cpu(res, kind, j, "ring"))]


def device_line(res, kind):
    """A paragraph that says on what device and how often was measured."""
    sizes = sorted({r["size_mib"] for r in res.data["runs"] if "size_mib" in r})
    files = f", files of {' or '.join(str(n) for n in sizes)} MiB" if sizes else ""
    text = (f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}{files}, medians of "
            f"{rounds_text(res, kind)}; {machine_line(res)}.")
    return textwrap.fill(text, COLUMNS)


def markdown(res, kind="tmpfs"):
    """The tables of one kind of device: speeds, ratios, CPU time."""
    parts = [device_line(res, kind)]
    for title, columns in md_tables(res, kind):
        columns = [(head, cell) for head, cell in columns if any(cell(j) for j in res.jobs(kind))]
        if columns:
            rows = [[j.title] + [cell(j) for _, cell in columns] for j in res.jobs(kind)]
            rows = [r for r in rows if any(r[1:])]
            parts += [f"### {title}", md_rows(["job"] + [head for head, _ in columns], rows)]
    for title, job, base, want in QUOTIENTS:
        v = res.ratio(kind, job, "ring", "ring", base)
        if v is not None:
            parts.append(f"{title}, through io_uring: {factor(v)}; wanted: {want:g}.")
    return "\n\n".join(parts)


def tables(res):
    """All tables, one section for each kind of device."""
    return "\n\n".join(f"## {KINDS[k][0].upper()}{KINDS[k][1:]}\n\n{markdown(res, k)}"
                       for k in res.kinds())


# The ten jobs in README.md: those that people ask for first, including slow ones.
HEADLINES = ("r4k-psync-1", "r4k-libaio-1", "w4k-libaio-1", "dsync", "append-fsync-1", "r1m-d8",
             "a1m-d8", "bufwrite", "create", "untar")


def headlines(res, kind="tmpfs"):
    """The table of README.md: fusedio's speed, and its ratios to ext4 and fuse2fs."""
    rows = [[j.title, md_value(res, kind, j, "ring"), factor(
        res.ratio(kind, j.key, "ring", "ext4")), factor(res.ratio(kind, j.key, "ring", "fuse2fs"))]
            for j in res.jobs(kind) if j.key in HEADLINES and res.samples(kind, j.key, "ring")]
    return device_line(res, kind) + "\n\n" + md_rows(["job", "fusedio", "to ext4", "to fuse2fs"],
                                                     rows)


def into_document(path, text):
    """Replaces the text between the two marks of a document."""
    begin, end = "<!-- bench: begin -->\n", "<!-- bench: end -->"
    with open(path, encoding="utf-8") as f:
        old = f.read()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{path} has no marks for the table")
    new = old[:old.index(begin) + len(begin)] + text.rstrip("\n") + "\n" + old[old.index(end):]
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)
