"""Writes accuracy tables into docs pages: `python -m bench.doc_tables docs/accuracy.md docs/codec.md docs/video.md`.

A page marks each table: the lines between `<!-- table: KIND FILE -->` and `<!-- end -->` are replaced by the table KIND
of the result FILE, which `sagelink eval`, `sagelink eval-video` or `bench.complementary_units` wrote.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sagelink.lab.eval.tables import points

Rows = Sequence[Sequence[str]]  # the first row holds the column names

_MARKED = re.compile(r"(<!-- table: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
DEFAULT, PAPER = ("coverage", "gradient"), ("sage", "last")
_STATELESS = ("stateless", "webp-each", "paper")  # policies that decide on each frame alone


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def with_interval(share: float, interval: Sequence[float]) -> str:
    return f"{percent(share)} ({percent(interval[0])} to {percent(interval[1])})"


def units(report: dict[str, Any]) -> Rows:
    """Server accuracy of every selector, by number of units."""
    cells = {(row["selector"], row["importance"], row["units"]): row for row in report["rows"]}
    counts = sorted({count for _, _, count in cells})
    curves = dict.fromkeys((selector, importance) for selector, importance, _ in cells)
    table = [["selector", "importance", *map(str, counts)]]
    table += [[*curve, *(percent(cells[*curve, count]["server_acc"]) for count in counts)] for curve in curves]
    gains = [points(cells[*DEFAULT, count]["vs_paper"]["server_acc"]) for count in counts]
    return [*table, ["`coverage`, `gradient` less `sage`, `last`", "", *gains]]


def fused(report: dict[str, Any]) -> Rows:
    """Verdicts of the default selection, and their difference to the edge alone."""
    table = [["units", "server", "fused", "fused less edge"]]
    for row in _of(report, DEFAULT):
        gain = points(row["vs_edge"])
        table.append([str(row["units"]), percent(row["server_acc"]), percent(row["fused_acc"]), gain])
    others = [
        [f"all, {name} of the probabilities", "", percent(acc), ""] for name, acc in report["other_rules"].items()
    ]
    return [*table, *others]


def rivals(report: dict[str, Any]) -> Rows:
    """SAGE as in the paper, and the differences of simpler selections to it."""
    table = [["units", "`sage`, `last`", *(f"`{name}` less that" for name in ("topk", "uniform", "random"))]]
    for row in _of(report, PAPER):
        cells = [row["units"], with_interval(row["server_acc"], row["ci95"]["server_acc"])]
        for rival in (("topk", "last"), ("uniform", "none"), ("random", "none")):
            (same,) = (each for each in _of(report, rival) if each["units"] == row["units"])
            cells.append(points(same["vs_paper"]["server_acc"]))
        table.append([str(cell) for cell in cells])
    return table


def ceiling(report: dict[str, Any]) -> Rows:
    """Server accuracy as a share of its accuracy on all units."""
    table = [["units", "share of the grid", "`sage`, `last`", "`coverage`, `gradient`"]]
    for paper, ours in zip(_of(report, PAPER), _of(report, DEFAULT), strict=True):
        maximum = report["ceiling"]
        shares = (
            with_interval(row["server_acc"] / maximum, [end / maximum for end in row["ci95"]["server_acc"]])
            for row in (paper, ours)
        )
        table.append([str(paper["units"]), f"{paper['units'] / 196:.0%}", *shares])
    return table


def swap(rows: list[dict[str, Any]]) -> Rows:
    """Server accuracy when important units are replaced by complementary ones."""
    shares = sorted({row["swapped"] for row in rows})
    table = [["units", "none swapped", *(f"{share:.0%} swapped" for share in shares[1:])]]
    for count in sorted({row["units"] for row in rows}):
        first, *others = (row for row in rows if row["units"] == count)
        table.append([str(count), percent(first["server_acc"][0]), *(points(row["vs_none"]) for row in others)])
    return table


def caps(report: dict[str, Any]) -> Rows:
    """Server accuracy of every codec under every cap, and the difference of `auto` to the best whole frame."""
    cells = {(row["codec"], row["cap_bytes"]): row for row in report["rows"]}
    limits = sorted({cap for _, cap in cells})
    codecs = dict.fromkeys(codec for codec, _ in cells)
    table = [["codec", *(f"{cap} B" for cap in limits)]]
    table += [[f"`{codec}`", *(percent(cells[codec, cap]["server_acc"]) for cap in limits)] for codec in codecs]
    gains = [points(cells["auto", cap]["vs_frame"]["server_acc"]) for cap in limits]
    verdicts = [percent(cells["auto", cap]["fused_acc"]) for cap in limits]
    return [*table, ["`auto` less the best whole frame", *gains], ["`auto`, fused", *verdicts]]


def video(report: dict[str, Any]) -> Rows:
    """Accuracy of every policy at every rate, best first."""
    cells, rates, policies = _over_rates(report)
    table = [[name, *(percent(cells[name, rate]["accuracy"]) for rate in rates)] for name in policies]
    return [["policy", *(f"{rate:g}" for rate in rates)], *([f"`{name}`", *rest] for name, *rest in table)]


def video_gains(report: dict[str, Any]) -> Rows:
    """Accuracy of `auto` minus that of every other policy."""
    cells, rates, policies = _over_rates(report)
    table = [
        [f"`{name}`", *(points(cells[name, rate]["vs_ours"]) for rate in rates)] for name in policies if name != "auto"
    ]
    return [["`auto` less", *(f"{rate:g}" for rate in rates)], *table]


def video_slow(report: dict[str, Any]) -> Rows:
    """Static and slow clips: accuracy and kbit/s spent; `auto` at half the rate minus the stateless policies."""
    cells, rates, policies = _over_rates(report)
    table = [["policy", *(f"{rate:g}" for rate in rates)]]
    for name in policies:
        if name in ("auto", "edge", "webp-periodic+edge", *_STATELESS):
            shown = [cells[name, rate] for rate in rates]
            table.append([f"`{name}`", *(f"{percent(row['slow_accuracy'])} ({row['slow_kbps']:.1f})" for row in shown)])
    for name in _STATELESS:
        halves = [points(cells[name, rate]["slow_vs_ours_at_half"]) for rate in rates]
        table.append([f"`auto` at half the rate less `{name}`", *halves])
    return table


def video_ages(report: dict[str, Any]) -> Rows:
    """Verdicts of `auto` by the age of their server evidence: share of all verdicts, and accuracy of these."""
    cells, rates, _ = _over_rates(report)
    limits = sorted({each["below_ms"] or math.inf for rate in rates for each in cells["auto", rate]["by_age"]})
    table = [["kbit/s", *(f"below {limit:g} ms" if limit < math.inf else "older" for limit in limits), "none"]]
    for rate in rates:
        row = cells["auto", rate]
        found = {each["below_ms"] or math.inf: each for each in row["by_age"]}
        shares = sum(each["share"] for each in found.values())
        right = row["accuracy"] - sum(each["share"] * each["accuracy"] for each in found.values())
        cells_of = [
            _aged(found[limit]["share"], found[limit]["accuracy"]) if limit in found else "" for limit in limits
        ]
        rest = _aged(1 - shares, right / (1 - shares)) if shares < 1 - 1e-9 else ""
        table.append([f"{rate:g}", *cells_of, rest])
    return table


def _aged(share: float, accuracy: float) -> str:
    return f"{100 * share:.0f} %: {percent(accuracy)}"


def _over_rates(report: dict[str, Any]) -> tuple[dict[tuple[str, float], dict[str, Any]], list[float], list[str]]:
    """Rows by policy and rate, the rates, and the policies without ablations, highest mean accuracy first."""
    cells = {(row["policy"], row["kbps"]): row for row in report["rows"]}
    rates = sorted({rate for _, rate in cells})
    names = [name for name in dict.fromkeys(name for name, _ in cells) if not name.startswith("auto-")]
    return cells, rates, sorted(names, key=lambda name: -sum(cells[name, rate]["accuracy"] for rate in rates))


def video_parts(report: dict[str, Any]) -> Rows:
    """Accuracy of `auto` with one setting changed."""
    cells, rates, _ = _over_rates(report)
    names = [name for name in dict.fromkeys(name for name, _ in cells) if name.startswith("auto")]
    table = [[f"`{name}`", *(percent(cells[name, rate]["accuracy"]) for rate in rates)] for name in names]
    return [["", *(f"{rate:g}" for rate in rates)], *table]


KINDS: dict[str, Callable[[Any], Rows]] = {
    "units": units,
    "fused": fused,
    "rivals": rivals,
    "ceiling": ceiling,
    "swap": swap,
    "caps": caps,
    "video": video,
    "video-gains": video_gains,
    "video-slow": video_slow,
    "video-ages": video_ages,
    "video-parts": video_parts,
}


def _of(report: dict[str, Any], curve: tuple[str, str]) -> Iterable[dict[str, Any]]:
    rows = [row for row in report["rows"] if (row["selector"], row["importance"]) == curve]
    return sorted(rows, key=lambda row: row["units"])


def markdown(table: Rows) -> str:
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fill(page: Path) -> None:
    def write(found: re.Match[str]) -> str:
        begin, kind, path, end = found.groups()
        if not Path(path).is_file():
            sys.exit(f"{page} needs {path}, which does not exist; the page names the command that writes it")
        return begin + markdown(KINDS[kind](json.loads(Path(path).read_text(encoding="utf-8")))) + end

    page.write_text(_MARKED.sub(write, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        fill(Path(name))
