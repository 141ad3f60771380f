"""Plots of the report: pure functions from runs to matplotlib figures, with one column of axes per run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sagelink.monitor.live_stats import STAGES
from sagelink.monitor.report.results_reader import Results, rolling
from sagelink.pipeline.files.output_files import MADE_BY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"edge": "#8b95a7", "server": "#3b82f6", "fused": "#10a37f", "budget": "#e0573e", "bits": "#7c6cf0"}
_MAX_BARS = 400
# Placeholder for the page's text colour in an SVG; nothing else has this colour.
_INK = "#010203"

Draw = Callable[["Axes", Results], None]


def plots(runs: Sequence[Results]) -> dict[str, Figure]:
    """All plots by name, in the order of the report."""
    figures = {
        "bits": _figure(runs, _bits, height=2.9, share=True),
        "verdicts": _figure(runs, _verdicts, height=1.9),
        "latency": _figure(runs, _latency, height=2.6),
    }
    if any(run.counts.accuracy() for run in runs):
        figures["accuracy"] = _figure(runs, _accuracy, height=1.7)
    return figures


def svg(figure: Figure) -> str:
    """The figure as inline SVG; its text has the colour of the page's text."""
    with io.StringIO() as out:
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
    body = text[text.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*pt" ', r"<svg \1", re.sub(r' height="[^"]*pt"', "", body, count=1), count=1
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG on white."""
    with io.BytesIO() as out:
        figure.savefig(out, format="png", dpi=160, facecolor="white", metadata={"Software": MADE_BY})
        return out.getvalue()


def _figure(runs: Sequence[Results], draw: Draw, height: float, share: bool = False) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {  # matplotlib types it as a Literal of every key
        "svg.fonttype": "none",
        "svg.hashsalt": draw.__name__,
        "text.parse_math": False,  # names of runs and classes may hold `$`
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.2, height), layout="constrained")
        axes = figure.subplots(1, len(runs), sharey=share, sharex=share, squeeze=False)[0]
        for ax, run in zip(axes, runs, strict=True):
            draw(ax, run)
            if len(runs) > 1:
                ax.set_title(run.name, loc="left", fontsize=9)
        if share:
            axes[0].set_xlim(0, max(map(_end, runs)))
        if axes[0].get_legend_handles_labels()[0]:
            axes[-1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
    return figure


def _end(run: Results) -> float:
    """Time of the last captured or sent frame in s."""
    return float(max([*run.charges()[0][-1:], *run.times(), 1e-3]))


def _bits(ax: Axes, run: Results) -> None:
    """Bits per frame, bits in the rolling window, and the budget."""
    times, bits = run.charges()
    frames = run.times()
    end = _end(run)
    edges = np.linspace(0, end, min(_MAX_BARS, max(len(run.lines), 2)) + 1)
    heights, _ = np.histogram(times, edges, weights=bits)
    width = np.diff(edges)
    ax.bar(edges[:-1], heights / 1e3, width, align="edge", color=COLOURS["bits"], label="sent")
    if run.window_s is not None and len(times):
        steps, level = rolling(times, bits, run.window_s)
        ax.fill_between(
            steps, level / 1e3, step="post", color=COLOURS["fused"], alpha=0.22, lw=0, label="in the window"
        )
    budget = run.budget()
    if not np.isnan(budget).all():
        limits = np.append(budget, budget[-1])
        ax.step(
            [*frames, end], limits / 1e3, where="post", color=COLOURS["budget"], lw=1.2, ls=(0, (4, 2)), label="budget"
        )
    ax.set_xlabel("s")
    ax.set_ylabel("kbit")


def _verdicts(ax: Axes, run: Results) -> None:
    """Shares of the verdicts by origin, and of the drop reasons."""
    total = len(run.lines)
    rows = [("verdicts", run.counts.origins), ("not answered", run.counts.drops)]
    greys = ["#5b6473", "#8b95a7", "#b4bcc9", "#d3d8e0"]
    for row, (_, counts) in enumerate(rows):
        left = 0.0
        for place, (name, count) in enumerate(counts.most_common()):
            share = count / total
            colour = COLOURS.get(name, greys[place % len(greys)])
            ax.barh(row, share, left=left, color=colour, height=0.56)
            if share > 0.07:
                dark = name in COLOURS or place % len(greys) == 0
                text = f"{name} {share:.0%}"
                ax.text(left + share / 2, row, text, ha="center", va="center", fontsize=8, color="w" if dark else "k")
            left += share
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel("of all frames")


def _latency(ax: Axes, run: Results) -> None:
    """p50 and p95 of each stage in ms."""
    shown = [(stage, ms) for stage in STAGES if len(ms := run.latencies(stage))]
    for row, (stage, ms) in enumerate(shown):
        p50, p95 = np.percentile(ms, [50, 95])
        colour = COLOURS["fused"] if stage == "total" else COLOURS["server"]
        ax.barh(row, p95, color=colour, alpha=0.3, height=0.6)
        ax.barh(row, p50, color=colour, height=0.6)
        ax.text(p95, row, f" {p50:.3g} / {p95:.3g}", va="center", fontsize=8)
    ax.set_yticks(range(len(shown)), [stage for stage, _ in shown])
    ax.invert_yaxis()
    ax.margins(x=0.18)
    ax.set_xlabel("ms, p50 / p95")


def _accuracy(ax: Axes, run: Results) -> None:
    """Share of the frames with the true class: edge alone, and verdict."""
    accuracy = run.counts.accuracy() or {}
    rows = [("edge alone", accuracy.get("edge"), "edge"), ("verdict", accuracy.get("verdict"), "fused")]
    for row, (_, share, colour) in enumerate(rows):
        if share is not None:
            ax.barh(row, share, color=COLOURS[colour], height=0.56)
            ax.text(share, row, f" {share:.1%}", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.08)
    ax.xaxis.set_major_formatter("{x:.0%}")
