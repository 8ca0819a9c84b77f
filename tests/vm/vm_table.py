# SPDX-License-Identifier: GPL-2.0-or-later
"""
The results as a Markdown table: a row for each kernel and channel, a column for each scenario. A
cell has the number of checks that passed; below the table stands why something failed or was
skipped. The file is written anew after each scenario, so it is of use after an interruption too.
"""
import threading

from vm_env import CHANNEL_NAMES as NAMES


def cell(job):
    if job is None:
        return ""
    if job.failed:
        return f"**{job.failed} of {job.passed + job.failed} failed**"
    return "skipped" if job.skipped else str(job.passed)


class Table:
    """The table in the file path (None: nowhere). Any thread adds to it."""

    def __init__(self, path, scenarios):
        self.path, self.scenarios = path, scenarios
        self.lock = threading.Lock()
        self.jobs = {}  # (kernel's version, channel) -> scenario -> job
        self.notes = []

    def row(self, version, channel):
        return self.jobs.setdefault((version, channel), {})

    def add(self, kernel, job):
        with self.lock:
            self.row(kernel.version, job.channel)[job.scenario] = job
            if job.skipped:
                self.notes.append(f"{kernel.version}, {NAMES[job.channel]}, {job.scenario}: "
                                  f"skipped: {job.skipped}")
            self.write()

    def no_ring(self, kernel):
        with self.lock:
            self.notes.append(f"{kernel.version} does not offer FUSE over io_uring.")

    def no_kernel(self, spec, why):
        with self.lock:
            self.notes.append(f"{spec} was not tested: {why}.")
            self.write()

    def text(self):
        used = [s for s in self.scenarios if any(s in row for row in self.jobs.values())]
        lines = [f"| kernel | channel | {' | '.join(used)} |", f"|---|---|{'---:|' * len(used)}"]
        for (version, channel), row in self.jobs.items():
            cells = " | ".join(cell(row.get(s)) for s in used)
            lines.append(f"| {version} | {NAMES[channel]} | {cells} |")
        return "\n".join(lines) + "\n" + "".join(f"\n- {n}" for n in self.notes) + "\n"

    def write(self):
        if self.path:
            with open(self.path, "w", encoding="utf-8") as f:
                f.write(self.text())
