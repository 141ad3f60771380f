"""Plots a `Report` as PNG and SVG: accuracy against units and against bytes, with confidence bands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sagelink.lab.eval.report import CodecRow, Report, UnitsRow
from sagelink.pipeline.files.output_files import MADE_BY, PLOT_MARK, marked
from sagelink.pipeline.files.private_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves: TypeAlias = dict[str, list[tuple[float, UnitsRow | CodecRow]]]  # by name: (x, row) per point

_PANELS = (("server_acc", "server alone"), ("fused_acc", "fused"))


def draw(report: Report, out: Path) -> list[Path]:
    """Writes the plot accuracy-bytes, and accuracy-units if the report compares selectors; returns the paths."""
    written = _figure(report, "bytes", "mean bytes per message", _by_bytes(report.rows), out)
    if report.units_rows:
        written += _figure(report, "units", "units sent", _by_units(report.units_rows), out)
    return written


def _by_units(rows: Iterable[UnitsRow]) -> Curves:
    curves: Curves = {}
    for row in rows:
        curves.setdefault(_name(row), []).append((row.units, row))
    return curves


def _by_bytes(rows: Iterable[UnitsRow | CodecRow]) -> Curves:
    curves: Curves = {}
    for row in rows:
        if row.bytes_mean is not None:
            curves.setdefault(_name(row), []).append((row.bytes_mean, row))
    return curves


def _name(row: UnitsRow | CodecRow) -> str:
    if isinstance(row, UnitsRow):
        return row.selector if row.importance == "none" else f"{row.selector}, {row.importance}"
    return row.codec


def _figure(report: Report, name: str, label: str, curves: Curves, out: Path) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), _PANELS, strict=True):
        _draw_curves(axes, curves, key)
        axes.axhline(report.edge * 100, color="0.45", lw=1, ls=":", label="edge alone")
        ceiling = report.ceiling if key == "server_acc" else report.fused_ceiling
        axes.axhline(ceiling * 100, color="0.2", lw=1, ls="--", label="all units")
        axes.set(title=title, xlabel=label)
        axes.grid(alpha=0.25)
        if name == "bytes" and any(row.ci95[key] for points in curves.values() for _, row in points):
            axes.set_xscale("log")
    figure.axes[0].set_ylabel("top-1, %" if report.truth == "labels" else "agreement with the server, %")
    figure.axes[1].legend(fontsize=8, loc="lower right")
    paths = _paths(out, name)
    for path in paths:
        svg = path.suffix == ".svg"
        with replacing(path) as unfinished:
            metadata = {"Date": None, "Creator": MADE_BY} if svg else {"Software": MADE_BY}
            figure.savefig(unfinished, dpi=130, metadata=metadata)
    return paths


def plot_paths(out: Path) -> list[Path]:
    """All files that `draw` may write."""
    return [*_paths(out, "bytes"), *_paths(out, "units")]


def is_plot(path: Path) -> bool:
    """Recognises files that `draw` wrote."""
    return marked(f"<dc:title>{MADE_BY}</dc:title>".encode() if path.suffix == ".svg" else PLOT_MARK)(path)


def _paths(out: Path, name: str) -> list[Path]:
    return [out / f"accuracy-{name}{suffix}" for suffix in (".png", ".svg")]


def _draw_curves(axes: Axes, curves: Curves, key: str) -> None:
    """One line per curve, with a band for the 95 % interval."""
    for number, (name, points) in enumerate(curves.items()):
        known = [(x, row) for x, row in sorted(points, key=lambda point: point[0]) if row.ci95[key] is not None]
        positions = [x for x, _ in known]
        colour = f"C{number % 10}"
        style = "-" if number < 10 else "--"
        values = [100 * (getattr(row, key) or 0.0) for _, row in known]
        axes.plot(positions, values, marker="o", ms=3, lw=1.4, color=colour, label=name, ls=style)
        bands = [row.ci95[key] or (0.0, 0.0) for _, row in known]
        low, high = [100 * low for low, _ in bands], [100 * high for _, high in bands]
        axes.fill_between(positions, low, high, color=colour, alpha=0.1, lw=0)
