"""The rows of a video evaluation as a table for the terminal and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from sagelink.lab.eval.tables import percent, points
from sagelink.lab.video.comparison import OURS, VideoRow
from sagelink.pipeline.files.output_files import MADE_BY
from sagelink.pipeline.files.private_files import replacing


def video_table(rows: Sequence[VideoRow], measured: str) -> Table:
    """One row per rate and policy; at each rate the most accurate first. `measured`: accuracy or agreement."""
    labelled = any(row.events for row in rows)
    names = ["kbit/s", "policy", measured, "spent", "peak, bits", "limit, bits", "age, ms", "ours - this"]
    if labelled:
        names[3:3] = ["by state", "missed", "false", "delay, s"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    last = None
    for row in sorted(rows, key=lambda row: (row.kbps, -row.accuracy)):
        if last is not None and row.kbps != last:
            table.add_section()
        last = row.kbps
        age = "" if row.verdict_age_ms is None else f"{row.verdict_age_ms:.0f}"
        table.add_row(
            f"{row.kbps:g}",
            row.policy,
            percent(row.accuracy),
            *(_events(row) if labelled else ()),
            f"{row.spent_kbps:.1f}",
            str(row.peak_window_bits),
            str(row.budget_bits),
            age,
            points(row.vs_ours),
        )
    return table


def _events(row: VideoRow) -> tuple[str, str, str, str]:
    if row.events is None:
        return "", "", "", ""
    delay_s = row.events.delay_s
    missed = f"{row.events.missed} of {row.events.states}"
    return percent(row.macro_accuracy), missed, str(row.events.false), "" if delay_s is None else f"{delay_s:.1f}"


def draw_video_plot(rows: Sequence[VideoRow], path: Path, label: str) -> None:
    """Writes a PNG file: one curve per policy over the rates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row.policy for row in rows)):
        curve = sorted((row for row in rows if row.policy == name), key=lambda row: row.kbps)
        axes.plot(
            [row.kbps for row in curve],
            [100 * row.accuracy for row in curve],
            marker="o",
            ms=3,
            lw=2.4 if name == OURS else 1.2,
            ls="-" if number < 10 else "--",
            label=name,
        )
    axes.set(xlabel="uplink, kbit/s", ylabel=label, xscale="log")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=130, metadata={"Software": MADE_BY})
