"""An evaluation as people read it."""

from __future__ import annotations

from rich.table import Table

from lab.evaluate import Report
from lab.statistics import Interval


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def points(difference: tuple[float, Interval] | None) -> str:
    """A difference in percentage points with its interval."""
    if difference is None:
        return ""
    value, (low, high) = difference
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def units_table(report: Report) -> Table:
    """A row for each selector, importance and number of units."""
    what = "top-1" if report.truth == "labels" else "agreement with the server on all units"
    table = Table(
        title=f"{report.images} images, {what}\nedge {percent(report.edge)}, server with all units "
        f"{percent(report.ceiling)}, fused {percent(report.fused_ceiling)}; hard {percent(report.hard_share)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for name in ("units", "bytes"):
        table.add_column(name, justify="right")
    table.add_column("selector")
    table.add_column("importance")
    for name in ("server", "fused", "hard"):
        table.add_column(name, justify="right")
    table.add_column("server - sage, last", justify="right", no_wrap=True)
    units = None
    for row in sorted(report.rows, key=lambda row: (row.units, -(row.server_acc or 0.0))):
        if units is not None and row.units != units:
            table.add_section()
        units = row.units
        table.add_row(
            str(row.units),
            f"{row.bytes_mean:.0f}",
            row.selector,
            row.importance,
            *(percent(share) for share in (row.server_acc, row.fused_acc, row.hard_fused_acc)),
            points(row.vs_paper.get("server_acc")),
        )
    return table
