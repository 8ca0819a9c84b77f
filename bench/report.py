# SPDX-License-Identifier: GPL-2.0-or-later
"""
What was measured, kept in one JSON file over any number of runs, and the tables made from it.

A sample belongs to a round of a run. A ratio is taken within each round, where both peers ran side by side, and the table shows the
median of these; so runs of different days may be added up without comparing one day with another.
"""
import json
import os
import statistics

from devices import KINDS
from jobs import JOBS, QUOTIENTS
from peers import PEERS

VERSION = 1
OURS = ("ring", "devfuse")


class Results:
    def __init__(self, data=None):
        self.data = data or {"version": VERSION, "machine": {}, "runs": [], "samples": {}, "left_out": {}, "errors": []}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        if data.get("version") != VERSION:
            raise ValueError(f"{path} is no result of this bench")
        return cls(data)

    def save(self, path):
        """Whole or not at all."""
        tmp = path + ".tmp"
        with open(tmp, "w", encoding="utf-8") as f:
            json.dump(self.data, f, separators=(",", ":"))
            f.write("\n")
        os.replace(tmp, path)

    def add(self, kind, job, peer, sample):
        self.data["samples"].setdefault(kind, {}).setdefault(job, {}).setdefault(peer, []).append(compact(sample))

    def samples(self, kind, job, peer):
        return self.data["samples"].get(kind, {}).get(job, {}).get(peer, [])

    def kinds(self):
        return [k for k in KINDS if self.data["samples"].get(k)]

    def jobs(self, kind):
        return [j for j in JOBS if self.data["samples"].get(kind, {}).get(j.key)]

    def peers(self, kind):
        """Those with at least one sample, in the order of the tables, variants last."""
        there = {p for job in self.data["samples"].get(kind, {}).values() for p, s in job.items() if s}
        return [p for p in PEERS if p in there] + sorted(there - set(PEERS))

    def ours(self, kind):
        there = self.peers(kind)
        return [p for p in OURS if p in there] + [p for p in there if p not in PEERS]

    def median(self, kind, job, peer):
        v = [s["value"] for s in self.samples(kind, job, peer)]
        return statistics.median(v) if v else None

    def spread(self, kind, job, peer):
        """Half the distance of the extremes, as a part of the median."""
        v = [s["value"] for s in self.samples(kind, job, peer)]
        m = statistics.median(v) if v else 0
        return (max(v) - min(v)) / 2 / m if m else None

    def ratios(self, kind, job, peer, other, other_job=None):
        """One for each round in which both were measured."""
        theirs = {s["round"]: s["value"] for s in self.samples(kind, other_job or job, other)}
        return [s["value"] / theirs[s["round"]] for s in self.samples(kind, job, peer) if theirs.get(s["round"])]

    def ratio(self, kind, job, peer, other, other_job=None):
        r = self.ratios(kind, job, peer, other, other_job)
        return statistics.median(r) if r else None

    def cpu(self, kind, job, peer, what):
        """Microseconds for each operation, median; None where there is no daemon."""
        v = [s[what] / s["ops"] for s in self.samples(kind, job, peer) if s.get(what) is not None and s["ops"]]
        return statistics.median(v) if v else None

    def round_count(self, kind):
        return max((len(v) for job in self.data["samples"].get(kind, {}).values() for v in job.values()), default=0)

    def fewest_rounds(self, kind):
        return min((len(v) for job in self.data["samples"].get(kind, {}).values() for v in job.values()), default=0)


def compact(sample):
    """Enough digits, and no more: the file is kept."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in sample.items()}


def title_of(peer):
    return PEERS[peer][0] if peer in PEERS else f"fusedio, {peer}"


def column(peer):
    """A short title, for columns."""
    short = {"raw": "raw", "ext4": "ext4", "xfs": "XFS", "fuse2fs": "fuse2fs", "qemu": "QEMU", "devfuse": "/dev/fuse", "ring": "io_uring"}
    return short.get(peer, peer)


def number(v):
    if v is None:
        return "-"
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def factor(v):
    """A ratio, with as many digits as it is worth."""
    if v is None:
        return "-"
    return f"{v:.2f}" if v < 9.995 else f"{v:.1f}" if v < 99.95 else f"{v:.0f}"


def reached(v, want):
    """Whether a ratio as printed reaches its target."""
    return round(v, 2) >= want


def judged(v, want):
    """A ratio and what it should be; an exclamation mark where it is not."""
    if v is None or want is None:
        return factor(v)
    return f"{factor(v)} ({want:g}{'' if reached(v, want) else '!'})"


def grid(head, rows, left=1):
    """Text columns; the first `left` ones to the left, the others to the right. A row of one cell is a heading."""
    full = [head] + [r for r in rows if len(r) > 1]
    widths = [max(len(r[i]) for r in full) for i in range(len(head))]
    out = []
    for r in [head] + rows:
        if len(r) == 1:
            out.append(r[0])
            continue
        out.append("  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())
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
    rows = by_group(res.jobs(kind), lambda j: ["  " + j.title, j.unit] + [cell(j, p) for p in peers])
    return grid(["median, half the distance of the extremes", "unit"] + [column(p) for p in peers], rows, 2)


def ratio_table(res, kind, ours):
    others = [p for p in res.peers(kind) if p not in res.ours(kind)] + (["devfuse"] if ours != "devfuse" and "devfuse" in res.peers(kind) else [])

    def cell(j, p):
        return judged(res.ratio(kind, j.key, ours, p), j.want.get(p))
    rows = by_group([j for j in res.jobs(kind) if res.samples(kind, j.key, ours)], lambda j: ["  " + j.title] + [cell(j, p) for p in others])
    text = grid([f"{title_of(ours)}: ratio to"] + [column(p) for p in others], rows)
    for title, job, base, want in QUOTIENTS:
        cells = [f"{column(p)} {judged(res.ratio(kind, job, p, p, base), want if p == ours else None)}"
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
    return grid(["CPU time for one operation, µs: daemon, client, whole machine"] + [column(p) for p in peers], rows)


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
    parts = [f"{m.get('cpus', '?')} CPUs ({m.get('cpu', '?')})", f"{m.get('memory_gib', '?')} GiB", f"Linux {m.get('kernel', '?')}",
             m.get("system", "")] + [f"{k} {v}" for k, v in sorted(m.get("versions", {}).items())] + [when]
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
                out.append(f"  In parentheses what the project wants; with an exclamation mark where it is not reached. {hit} of {total} reached.")
        out += ["", cpu_table(res, kind)]
        for peer, why in sorted(res.data["left_out"].get(kind, {}).items()):
            out.append(f"left out: {title_of(peer)}: {why}")
    out += [f"error: {e}" for e in res.data["errors"]]
    return "\n".join(out)


def rounds_text(res, kind):
    few, many = res.fewest_rounds(kind), res.round_count(kind)
    return f"{many} round{'s' if many != 1 else ''}" if few == many else f"{few} to {many} rounds"


def markdown(res, kind="tmpfs"):
    """The README's table: what kernel ext4 and fusedio do, with spread; fusedio's ratios; CPU time of both."""
    peers = res.peers(kind)
    columns = [(ours, p) for ours in ("ring",) for p in ("ext4", "xfs", "fuse2fs", "qemu", "raw") if ours in peers and p in peers]
    columns += [("devfuse", "ext4")] if "devfuse" in peers and "ext4" in peers else []
    heads = {"ext4": "ext4", "xfs": "XFS", "fuse2fs": "fuse2fs", "qemu": "QEMU", "raw": "raw device"}
    both = [p for p in ("ext4", "ring") if p in peers]
    head = ["job"] + [{"ext4": "kernel ext4", "ring": "fusedio, io_uring"}[p] for p in both]
    head += [("`/dev/fuse` to " if o == "devfuse" else "io_uring to ") + heads[p] for o, p in columns]
    head += ["CPU µs: " + ", ".join({"ext4": "ext4", "ring": "fusedio"}[p] for p in both)] if both else []
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]

    def value(j, p):
        m, s = res.median(kind, j.key, p), res.spread(kind, j.key, p)
        if not m:
            return ""
        return f"{number(m)} {j.unit}" + (f" ±{s * 100:.0f}%" if len(res.samples(kind, j.key, p)) > 1 else "")

    def cpu(j):
        return ", ".join(number3(res.cpu(kind, j.key, p, "machine_us")) for p in both)

    def cell(j, o, p):
        v, want = res.ratio(kind, j.key, o, p), j.want.get(p)
        if v is None:
            return ""
        return factor(v) if want is None else f"**{factor(v)}**" if reached(v, want) else f"{factor(v)} of {want:g}"
    for j in res.jobs(kind):
        cells = [j.title] + [value(j, p) for p in both] + [cell(j, o, p) for o, p in columns] + ([cpu(j)] if both else [])
        lines.append("| " + " | ".join(cells) + " |")
    for title, job, base, want in QUOTIENTS:
        v = res.ratio(kind, job, "ring", "ring", base)
        if v is not None:
            lines.append(f"\n{title}, through io_uring: {factor(v)}; wanted: {want:g}.")
    sizes = sorted({r["size_mib"] for r in res.data["runs"] if "size_mib" in r})
    files = f", files of {' or '.join(str(n) for n in sizes)} MiB" if sizes else ""
    return "\n".join([f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}{files}, medians of {rounds_text(res, kind)}; {machine_line(res)}.", ""] + lines)


def tables(res):
    """The table of the first kind of device, and the others to be unfolded."""
    texts = [markdown(res, k) for k in res.kinds()]
    folded = [f"<details><summary>The same on a {KINDS[k]}</summary>\n\n{t}\n\n</details>"
              for k, t in list(zip(res.kinds(), texts))[1:]]
    return "\n\n".join(texts[:1] + folded)


def into_readme(path, text):
    """Puts a text between the README's two marks."""
    begin, end = "<!-- bench: begin -->\n", "<!-- bench: end -->"
    with open(path, encoding="utf-8") as f:
        old = f.read()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{path} has no marks for the table")
    new = old[:old.index(begin) + len(begin)] + text.rstrip("\n") + "\n" + old[old.index(end):]
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)
