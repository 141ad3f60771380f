"""Formats a `Report` as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from sagelink.lab.eval.report import Difference, Report, Row


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def points(difference: Difference) -> str:
    """A difference in percentage points with its interval; empty for None."""
    if difference is None:
        return ""
    value, (low, high) = difference
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def units_table(report: Report) -> Table:
    """One row per selector, importance and number of units; at each number the most accurate first."""
    table = _table(report, ("units", "bytes"), ("selector", "importance"), "server - sage, last")
    by_units = sorted(report.units_rows, key=lambda row: (row.units, -(row.server_acc or 0.0)))
    for units, rows in groupby(by_units, lambda row: row.units):
        for row in rows:
            names = (str(units), _bytes(row), row.selector, row.importance)
            table.add_row(*names, *_accuracies(row), points(row.vs_paper.get("server_acc")))
        table.add_section()
    return table


def codecs_table(report: Report) -> Table:
    """One row per codec and cap; at each cap the most accurate first."""
    table = _table(report, ("cap", "bytes", "sent"), ("codec",), "server - best frame")
    by_cap = sorted(report.codec_rows, key=lambda row: (row.cap_bytes, -(row.server_acc or 0.0)))
    for cap, rows in groupby(by_cap, lambda row: row.cap_bytes):
        for row in rows:
            names = (str(cap), _bytes(row), percent(row.sent), row.codec)
            table.add_row(*names, *_accuracies(row), points(row.vs_frame.get("server_acc")))
        table.add_section()
    return table


def _table(report: Report, numbers: Sequence[str], names: Sequence[str], difference: str) -> Table:
    metric = "top-1" if report.truth == "labels" else "agreement with the server on all units"
    table = Table(
        title=f"{report.images} images, {metric}\nedge {percent(report.edge)}, server with all units "
        f"{percent(report.ceiling)}, fused {percent(report.fused_ceiling)}; hard {percent(report.hard_share)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for number in numbers:
        table.add_column(number, justify="right")
    for name in names:
        table.add_column(name)
    for accuracy in ("server", "fused", "hard"):
        table.add_column(accuracy, justify="right")
    table.add_column(difference, justify="right", no_wrap=True)
    return table


def _accuracies(row: Row) -> list[str]:
    return [percent(share) for share in (row.server_acc, row.fused_acc, row.hard_fused_acc)]


def _bytes(row: Row) -> str:
    return "-" if row.bytes_mean is None else f"{row.bytes_mean:.0f}"
