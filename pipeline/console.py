"""What a run says on the terminal: a live line while it runs, a table when it ends."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.quantities import format_rate
from pipeline.types import Verdict

_PLAIN_EVERY_S = 5.0


class ProgressLine:
    """Frames, frames/s and kbit/s against the budget: one live line on a terminal, else a plain line now and then."""

    def __init__(self, console: Console, total: int | None, rate_bps: float | None, window_s: float) -> None:
        self._console = console
        self._budget = format_rate(rate_bps)
        self._window_s = window_s
        self._frames = 0
        self._spent = format_rate(0)
        self._began = self._told = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]{task.completed:.0f}[/] frames"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("run", total=total, status="")

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, verdict: Verdict) -> None:
        self._frames += 1
        now = time.monotonic()
        if verdict.window_bits is not None:  # a frame that was superseded says nothing of the budget
            self._spent = format_rate(verdict.window_bits / self._window_s)
        fps = self._frames / max(now - self._began, 1e-3)
        status = f"{fps:.1f} fps  {self._spent} of {self._budget}"
        self._progress.update(self._task, advance=1, status=status)
        if not self._console.is_terminal and now - self._told >= _PLAIN_EVERY_S:
            self._told = now
            self._console.print(f"{self._frames} frames  {status}", highlight=False)


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary as people read it."""
    frames = max(summary["frames"], 1)
    table = Table(title=f"{summary['source']}", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()

    def share(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count} ({count / frames:.0%})" for name, count in sorted(counts.items())) or "none"

    table.add_row("models", f"{summary['models']['edge']} -> {summary['models']['server']}")
    table.add_row("frames", f"{summary['frames']} in {summary['wall_s']:.1f} s, {summary['fps']:.1f} fps")
    if summary["skipped"]:
        table.add_row("skipped", f"{summary['skipped']} that could not be read")
    table.add_row("verdicts from", share(summary["origins"]))
    table.add_row("offloaded", f"{summary['offloaded']} ({summary['offloaded'] / frames:.0%})")
    table.add_row("not answered by the server", share(summary["drops"]))
    table.add_row("uplink", f"{summary['wire_bits'] / 8000:.1f} kB, {summary['wire_bits'] / 8 / frames:.0f} B a frame")
    limit = summary["budget_bits"]
    peak = f"{summary['peak_window_bits']} bits in {summary['window_s']:g} s"
    table.add_row("peak window", f"{peak} of {limit} ({summary['peak_window_bits'] / limit:.1%})" if limit else peak)
    if summary["frames"]:
        latency = summary["latency_ms"]
        table.add_row(
            "latency", f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, max {latency['max']:.0f} ms"
        )
    if summary["accuracy"]:
        accuracy = summary["accuracy"]
        table.add_row("accuracy", f"{accuracy['verdict']:.1%} (edge alone {accuracy['edge']:.1%})")
    return table
