# SPDX-License-Identifier: GPL-2.0-or-later
"""
The plot: a row for each job, in it a mark for each peer at its speed relative to the kernel's ext4,
on a logarithmic scale. It has a light background, so that it is readable on dark pages.
"""
import math
from xml.sax.saxutils import escape

from devices import KINDS
from report import machine_line, rounds_text, title_of

# Colours that people with any colour vision can tell apart, and a shape for each peer.
STYLES = {"raw": ("#666666", "line"), "ext4": ("#000000", "ring"), "xfs": ("#009e73", "triangle"),
          "fuse2fs": ("#e69f00", "square"), "qemu": ("#56b4e9", "cross"),
          "devfuse": ("#cc79a7", "diamond"), "ring": ("#d55e00", "disc")}
VARIANTS = (("#0072b2", "disc"), ("#0072b2", "diamond"), ("#0072b2", "square"),
            ("#0072b2", "triangle"))
LEFT, RIGHT, ROW, GROUP, TOP, BOTTOM, WIDTH = 380, 30, 21, 25, 104, 62, 1040
FONT = 'font-family="DejaVu Sans, Verdana, Helvetica, sans-serif"'


def style_of(peer, variants):
    return STYLES.get(peer) or VARIANTS[variants.index(peer) % len(VARIANTS)]


def mark(shape, x, y, colour, size=5.5):
    s = size
    if shape == "disc":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{s:.1f}" fill="{colour}"/>'
    if shape == "ring":
        return (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{s:.1f}" fill="none" '
                f'stroke="{colour}" stroke-width="1.6"/>')
    if shape == "line":
        return (f'<path d="M{x:.1f} {y - s - 1:.1f}V{y + s + 1:.1f}" '
                f'stroke="{colour}" stroke-width="2.4"/>')
    if shape == "cross":
        return (f'<path d="M{x - s:.1f} {y - s:.1f}L{x + s:.1f} {y + s:.1f}'
                f'M{x - s:.1f} {y + s:.1f}L{x + s:.1f} {y - s:.1f}" '
                f'stroke="{colour}" stroke-width="2.4"/>')
    corners = {"triangle": ((0, -s), (s, s * .8), (-s, s * .8)),
               "square": ((-s * .8, -s * .8), (s * .8, -s * .8), (s * .8, s * .8),
                          (-s * .8, s * .8)),
               "diamond": ((0, -s - 1), (s + 1, 0), (0, s + 1), (-s - 1, 0))}[shape]
    points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)
    return f'<polygon points="{points}" fill="{colour}"/>'


def text(x, y, s, size=12, anchor="start", colour="#222222", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{colour}" font-weight="{weight}">{escape(s)}</text>')


class Scale:
    """A logarithmic scale, from a round number below all values to one above."""

    def __init__(self, values):
        low, high = min([*values, 0.5]), max([*values, 2.0])
        steps = [m * 10.0 ** e for e in range(-5, 5) for m in (1, 2, 5)]
        self.low = max(s for s in steps if s <= low * 0.95)
        self.high = min(s for s in steps if s >= high * 1.05)
        self.ticks = [s for s in steps if self.low <= s <= self.high]

    def x(self, v):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(v / self.low) / math.log(
            self.high / self.low)


def legend(peers, variants):
    out, x, y = [], LEFT - 330, 62
    for p in peers:
        colour, shape = style_of(p, variants)
        label = title_of(p)
        wide = 26 + 6.9 * len(label)
        if x + wide > WIDTH - RIGHT:
            x, y = LEFT - 330, y + 20
        out += [mark(shape, x + 6, y, colour), text(x + 17, y + 4, label)]
        x += wide
    return out


def plot(res, kind):
    """The whole picture as a string; None if the kernel's ext4 was not measured."""
    peers = [p for p in res.peers(kind)]
    jobs = [j for j in res.jobs(kind) if res.median(kind, j.key, "ext4")]
    if not jobs:
        return None
    variants = [p for p in peers if p not in STYLES]
    ratios = {(j.key, p): res.ratio(kind, j.key, p, "ext4") for j in jobs for p in peers}
    scale = Scale([v for v in ratios.values() if v]
                  + [j.want["ext4"] for j in jobs if j.want.get("ext4")])
    groups = len({j.group for j in jobs})
    height = TOP + ROW * len(jobs) + GROUP * groups + BOTTOM
    end = height - BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 '
           f'0 {WIDTH} {height}" {FONT}>',
           f'<title>{escape("fusedio and others relative to kernel ext4, " + KINDS[kind])}</title>',
           f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
           text(50, 28, f"Speed relative to the kernel's ext4, {KINDS[kind]}", 17, weight="bold"),
           text(50, 46,
                f"medians of {rounds_text(res, kind)}; further right is faster; logarithmic", 11,
                colour="#555555"), *legend(peers, variants)]
    for t in scale.ticks:
        x = scale.x(t)
        out.append(f'<path d="M{x:.1f} {TOP}V{end}" stroke="{"#444444" if t == 1 else "#e2e2e2"}" '
                   'stroke-width="1"/>')
        out.append(text(x, end + 16, f"{t:g}", 11, "middle", "#444444"))
    y, group = TOP, None
    for j in jobs:
        if j.group != group:
            group = j.group
            out.append(text(50, y + 17, group, 12, weight="bold"))
            y += GROUP
        mid = y + ROW / 2
        out.append(
            f'<path d="M{LEFT} {mid:.1f}H{WIDTH - RIGHT}" stroke="#f0f0f0" stroke-width="1"/>')
        out.append(text(LEFT - 12, mid + 4, j.title, 11, "end"))
        if j.want.get("ext4"):
            x = scale.x(j.want["ext4"])
            out.append(f'<path d="M{x - 4:.1f} {mid - 10:.1f}H{x + 4:.1f}L{x:.1f} {mid - 5:.1f}Z" '
                       'fill="#d55e00" fill-opacity="0.55"/>')
        # fusedio's marks are drawn last, on top of the others.
        for p in [p for p in peers if p not in res.ours(kind)] + res.ours(kind)[::-1]:
            if ratios[j.key, p]:
                colour, shape = style_of(p, variants)
                out.append(mark(shape, scale.x(ratios[j.key, p]), mid, colour))
        y += ROW
    out.append(
        text(50, height - 24,
             "The small triangle above a row: what the project wants of fusedio over io_uring.", 11,
             colour="#555555"))
    out.append(text(50, height - 8, machine_line(res), 10, colour="#555555"))
    return "\n".join(out + ["</svg>", ""])
