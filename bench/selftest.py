# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of everything that needs no root: figures, tables, the plot, combining runs, the choice of
jobs, plans. `run-bench --self-test` runs them.
"""
import os
import tarfile
import tempfile
import unittest
import xml.etree.ElementTree as xml

import cli
import report
import srctree
import svg
from jobs import BY_KEY, JOBS
from peers import PEERS


def sample(value, rnd, ops=100, daemon=500, client=300, machine=1000):
    return {"value": float(value), "ops": ops, "client_us": client, "daemon_us": daemon,
            "machine_us": machine, "wall_s": 1.0, "round": rnd}


def results(kinds=("tmpfs",)):
    """
    All jobs on all peers: each peer has a tenth less than the one before it, and each round ten
    times more than the one before.
    """
    res = report.Results()
    res.data["machine"] = {"cpus": 2, "cpu": "A <CPU> & more", "memory_gib": 4, "kernel": "6.18",
                           "system": "Debian 12", "versions": {"fio": "3.33"}}
    res.data["runs"] = [{"time": "2026-01-02T03:04:05Z"}]
    for kind in kinds:
        for j in JOBS:
            for i, p in enumerate(PEERS):
                if j.raw or p not in ("raw", "qemu"):
                    for r in range(3):
                        res.add(kind, j.key, p, sample((10 - i) * 10 ** (r + 2), f"a.{r}",
                                                       daemon=None if i < 3 else 500))
    return res


class Figures(unittest.TestCase):
    def test_median_and_spread(self):
        res = report.Results()
        for r, v in enumerate((90, 100, 130)):
            res.add("tmpfs", "stat", "ext4", sample(v, f"a.{r}"))
        self.assertEqual(res.median("tmpfs", "stat", "ext4"), 100)
        self.assertAlmostEqual(res.spread("tmpfs", "stat", "ext4"), 0.2)
        self.assertIsNone(res.median("tmpfs", "stat", "xfs"))
        self.assertIsNone(res.spread("tmpfs", "stat", "xfs"))

    def test_ratios_are_taken_within_rounds(self):
        res = report.Results()
        # The machine becomes a hundred times slower: ratios of medians would be wrong.
        for r, (mine, theirs) in enumerate(((50, 100), (0.5, 1), (5, 100))):
            res.add("tmpfs", "stat", "ring", sample(mine, f"a.{r}"))
            res.add("tmpfs", "stat", "ext4", sample(theirs, f"a.{r}"))
        res.add("tmpfs", "stat", "ring", sample(1e9, "b.0"))
        self.assertEqual(sorted(res.ratios("tmpfs", "stat", "ring", "ext4")), [0.05, 0.5, 0.5])
        self.assertEqual(res.ratio("tmpfs", "stat", "ring", "ext4"), 0.5)
        self.assertIsNone(res.ratio("tmpfs", "stat", "ring", "qemu"))

    def test_quotient_of_jobs(self):
        res = report.Results()
        res.add("tmpfs", "fragments", "ring", sample(95, "a.0"))
        res.add("tmpfs", "contiguous", "ring", sample(100, "a.0"))
        self.assertAlmostEqual(res.ratio("tmpfs", "fragments", "ring", "ring", "contiguous"), 0.95)
        self.assertEqual(report.count_targets(res, "tmpfs", "ring"), (1, 1))

    def test_cpu(self):
        res = report.Results()
        res.add("tmpfs", "stat", "ext4", sample(1, "a.0", ops=100, daemon=None, client=250))
        self.assertIsNone(res.cpu("tmpfs", "stat", "ext4", "daemon_us"))
        self.assertEqual(res.cpu("tmpfs", "stat", "ext4", "client_us"), 2.5)

    def test_targets(self):
        self.assertEqual(report.judged(0.9, 0.9), "0.90 (0.9)")
        self.assertEqual(report.judged(0.896, 0.9), "0.90 (0.9)")
        self.assertEqual(report.judged(0.89, 0.9), "0.89 (0.9!)")
        self.assertEqual(report.judged(12.34, 10), "12.3 (10)")
        self.assertEqual(report.judged(None, 10), "-")
        self.assertEqual(report.judged(1.5, None), "1.50")

    def test_wanted_as_published(self):
        want = {k: BY_KEY[k].want.get("ext4") for k in BY_KEY}
        self.assertEqual([want[k] for k in ("r4k-psync-1", "w4k-psync-1", "r4k-psync-4",
                                            "w4k-psync-4")], [0.9, 0.9, 0.75, 0.75])
        self.assertEqual([want[k] for k in ("r4k-libaio-1", "r4k-libaio-2", "w4k-libaio-1",
                                            "w4k-libaio-2")], [0.7, 0.75, 0.8, 0.75])
        self.assertEqual([want[k] for k in ("r4k-uring-2", "r1m-d8", "w1m-d8", "a1m-d8", "dsync")],
                         [0.85, 0.95, 1.0, 0.9, 0.8])
        self.assertEqual(len(BY_KEY), len(JOBS), "two jobs have the same name")


class Tables(unittest.TestCase):
    def test_text(self):
        text = report.text_report(results(("tmpfs", "file")))
        for j in JOBS:
            self.assertGreaterEqual(text.count("  " + j.title + " "), 6, j.title)
        for p in PEERS:
            self.assertIn(f"  {report.column(p)}", text)
        # ext4 has 9, the ring 4.
        line = next(x for x in text.split("fusedio, io_uring: ratio to")[1].splitlines()
                    if x.startswith("  4 KiB random read, psync, 1 "))
        self.assertIn("0.44 (0.9!)", line)
        self.assertIn("100,000 extents to contiguous: io_uring 1.00 (0.9)", text)

    def test_columns_line_up(self):
        lines = report.grid(["a", "b"], [["x", "1"], ["heading"], ["yyyy", "22"]]).splitlines()
        self.assertEqual(lines, ["a      b", "x      1", "heading", "yyyy  22"])

    def test_left_out_and_errors(self):
        res = results()
        res.data["left_out"] = {"tmpfs": {"qemu": "is not installed"}}
        res.data["errors"] = ["it broke"]
        text = report.text_report(res)
        self.assertIn("left out: QEMU export: is not installed", text)
        self.assertIn("error: it broke", text)

    def test_markdown(self):
        res = results()
        text = report.markdown(res)
        for j in JOBS:
            self.assertEqual(text.count(f"| {j.title} |"), 3, j.title)
        for part in text.split("### ")[1:]:
            rows = [x for x in part.splitlines() if x.startswith("|")]
            self.assertEqual(len({x.count("|") for x in rows}), 1, "rows differ in their columns")
        self.assertIn("0.44 of 0.9", text)

    def test_documents_are_narrow(self):
        """Rows of a table cannot be wrapped: with large figures they still fit in 100 columns."""
        res = report.Results()
        for i, p in enumerate(PEERS):
            for j in JOBS:
                for r, v in enumerate((123_456, 234_567, 345_678)):
                    value = v / (i + 7) / (1 if j.unit == "op/s" else 40)
                    res.add("tmpfs", j.key, p, sample(value, f"a.{r}", machine=11_111))
        for text in (report.markdown(res), report.headlines(res)):
            self.assertEqual([x for x in text.splitlines() if len(x) > 100], [])

    def test_a_section_for_each_device(self):
        text = report.tables(results(("tmpfs", "file")))
        heads = [x for x in text.splitlines() if x.startswith("## ")]
        self.assertEqual(heads, ["## Loop device over tmpfs", "## Loop device over a file"])
        self.assertEqual(report.tables(results(("file",))).count("## Loop"), 1)

    def test_headlines(self):
        rows = [x for x in report.headlines(results()).splitlines() if x.startswith("|")]
        self.assertEqual(len(rows), len(report.HEADLINES) + 2)
        self.assertEqual(len(report.HEADLINES), 10)

    def test_variants_have_tables(self):
        res = results()
        res.add("tmpfs", "stat", "new", sample(5, "a.0"))
        self.assertEqual(res.ours("tmpfs"), ["ring", "devfuse", "new"])
        self.assertIn("fusedio, new: ratio to", report.text_report(res))

    def test_empty(self):
        self.assertIsInstance(report.text_report(report.Results()), str)

    def test_into_document(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "document")
            with open(path, "w", encoding="utf-8") as f:
                f.write("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
            for _ in range(2):
                report.into_document(path, "new\n")
            with open(path, encoding="utf-8") as f:
                self.assertEqual(f.read(),
                                 "before\n<!-- bench: begin -->\nnew\n<!-- bench: end -->\nafter\n")
            with open(path, "w", encoding="utf-8") as f:
                f.write("nothing\n")
            with self.assertRaises(ValueError):
                report.into_document(path, "new")


class Files(unittest.TestCase):
    def test_adding_up(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "r.json")
            res = results()
            res.save(path)
            again = report.Results.load(path)
            again.add("tmpfs", "stat", "ring", sample(7, "b.0"))
            again.save(path)
            self.assertEqual(len(report.Results.load(path).samples("tmpfs", "stat", "ring")), 4)
            self.assertEqual(os.listdir(d), ["r.json"])
            with open(path, "w", encoding="utf-8") as f:
                f.write('{"version": 99}')
            with self.assertRaises(ValueError):
                report.Results.load(path)

    def test_source_tree_is_always_the_same(self):
        with tempfile.TemporaryDirectory() as d:
            a, b = os.path.join(d, "a"), os.path.join(d, "b")
            n = srctree.make(a, 300)
            self.assertEqual(n, srctree.make(b, 300))
            with open(a, "rb") as f, open(b, "rb") as g:
                self.assertEqual(f.read(), g.read())
            with tarfile.open(a) as t:
                names = t.getnames()
            self.assertEqual((len(names), len(set(names))), (n, n))
            self.assertTrue(all(x == "src" or x.startswith("src/") for x in names))


class Plot(unittest.TestCase):
    def test_everything_is_inside(self):
        root = xml.fromstring(svg.plot(results(), "tmpfs"))
        wide, high = float(root.get("width")), float(root.get("height"))
        titles = set()
        for e in root.iter():
            tag = e.tag.rpartition("}")[2]
            if tag in ("circle", "text"):
                x, y = float(e.get("cx") or e.get("x")), float(e.get("cy") or e.get("y"))
                self.assertTrue(0 <= x <= wide and 0 <= y <= high, (tag, x, y))
            if tag == "text":
                titles.add(e.text)
                # About 0.6 of the font size for each character.
                if e.get("text-anchor") == "end":
                    self.assertGreater(float(e.get("x")) - len(e.text) * float(e.get(
                        "font-size")) * 0.6, 0, e.text)
        self.assertTrue({j.title for j in JOBS} <= titles)

    def test_without_ext4_there_is_none(self):
        res = report.Results()
        res.add("tmpfs", "stat", "ring", sample(1, "a.0"))
        self.assertIsNone(svg.plot(res, "tmpfs"))

    def test_scale(self):
        s = svg.Scale([0.013, 3.0])
        self.assertLessEqual(s.low, 0.013)
        self.assertGreaterEqual(s.high, 3.0)
        self.assertAlmostEqual(s.x(s.low), svg.LEFT)
        self.assertAlmostEqual(s.x(s.high), svg.WIDTH - svg.RIGHT)


class Choice(unittest.TestCase):
    def test_jobs(self):
        self.assertEqual([j.key for j in cli.choose_jobs("stat,create", False)], ["create", "stat"])
        self.assertEqual([j.key for j in cli.choose_jobs("r4k-libaio-*", False)],
                         ["r4k-libaio-1", "r4k-libaio-2"])
        self.assertEqual({j.group for j in cli.choose_jobs("names", False)}, {"names"})
        self.assertEqual(cli.choose_jobs("", False), JOBS)
        self.assertTrue(4 < len(cli.choose_jobs("", True)) < len(JOBS))
        with self.assertRaises(cli.Usage):
            cli.choose_jobs("nonsense", False)

    def test_peers(self):
        self.assertEqual(cli.choose_peers("ring,ext4", {}), ["ext4", "ring"])
        self.assertEqual(cli.choose_peers("ring,x", {"x": ("a", None)}), ["ring", "x"])
        self.assertEqual(cli.choose_peers("", {"x": ("a", None)}), [*PEERS, "x"])
        with self.assertRaises(cli.Usage):
            cli.choose_peers("ring,nobody", {})

    def test_variants(self):
        self.assertEqual(cli.parse_variants(["x=transport=uring,poll=50"]),
                         {"x": ("transport=uring,poll=50", None)})
        self.assertEqual(cli.parse_variants(["old=transport=devfuse@/a/fusedio"]),
                         {"old": ("transport=devfuse", "/a/fusedio")})
        for bad in ("x", "=a", "ring=a", "a b=c"):
            with self.assertRaises(cli.Usage):
                cli.parse_variants([bad])

    def test_plan(self):
        slices = cli.slices(JOBS, 7, 3, 90)
        self.assertEqual([j for s in slices for j in s], JOBS)
        tied = {"fragments", "contiguous"}
        self.assertTrue(all(len(s) == 1 or {j.key for j in s} == tied or cli.estimate(s, 7, 3) <= 90
                            for s in slices))
        together = [{j.key for j in s} for s in slices if any(j.key == "fragments" for j in s)]
        self.assertTrue(tied <= together[0], "their quotient is taken within a round")


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__("selftest"))
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1
