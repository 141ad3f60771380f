"""Plots of an evaluation: accuracy against units and against bytes, with confidence bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.evaluate import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = (("server_acc", "server alone"), ("fused_acc", "fused"))


def draw(report: Report, out: Path) -> list[Path]:
    """Writes accuracy-units and accuracy-bytes as PNG and SVG; returns their paths."""
    from matplotlib.figure import Figure

    written = []
    for name, label in (("units", "units sent"), ("bytes", "bytes of a message, mean")):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS, strict=True):
            _lines(axes, report.rows, name, key)
            axes.axhline(report.edge * 100, color="0.45", lw=1, ls=":", label="edge alone")
            ceiling = report.ceiling if key == "server_acc" else report.fused_ceiling
            axes.axhline(ceiling * 100, color="0.2", lw=1, ls="--", label="all units")
            axes.set(title=title, xlabel=label)
            axes.grid(alpha=0.25)
            if name == "bytes" and any(row.ci95[key] for row in report.rows):
                axes.set_xscale("log")
        figure.axes[0].set_ylabel("top-1, %" if report.truth == "labels" else "agreement with the server, %")
        figure.axes[1].legend(fontsize=8, loc="lower right")
        for suffix in (".png", ".svg"):
            path = out / f"accuracy-{name}{suffix}"
            figure.savefig(path, dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
            written.append(path)
    return written


def _lines(axes: Axes, rows: Sequence[Row], x: str, key: str) -> None:
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        curves.setdefault((row.selector, row.importance), []).append(row)
    for number, ((selector, importance), points) in enumerate(curves.items()):
        points = [row for row in sorted(points, key=lambda row: row.units) if row.ci95[key] is not None]
        where = [row.units if x == "units" else row.bytes_mean for row in points]
        values = [100 * (getattr(row, key) or 0.0) for row in points]
        bands = [row.ci95[key] or (0.0, 0.0) for row in points]
        label = selector if importance == "none" else f"{selector}, {importance}"
        colour = f"C{number % 10}"
        axes.plot(where, values, marker="o", ms=3, lw=1.4, color=colour, label=label, ls="-" if number < 10 else "--")
        axes.fill_between(
            where, [100 * low for low, _ in bands], [100 * high for _, high in bands], color=colour, alpha=0.1, lw=0
        )
