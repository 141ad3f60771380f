"""Formats the summary of a run as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from sagelink.monitor.quota_words import quota_title, quota_words


def summary_table(summary: dict[str, Any]) -> Table:
    """`summary`: the content of summary.json; docs/outputs.md lists its keys."""
    frames = max(summary["frames"], 1)
    table = Table(title=f"{summary['source']}", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()

    def share(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count} ({count / frames:.0%})" for name, count in sorted(counts.items())) or "none"

    table.add_row("models", f"{summary['models']['edge']} -> {summary['models']['server']}")
    table.add_row("frames", f"{summary['frames']} in {summary['wall_s']:.1f} s, {summary['fps']:.1f} fps")
    if summary["skipped"]:
        table.add_row("skipped", f"{summary['skipped']} unreadable pictures")
    table.add_row("verdicts from", share(summary["origins"]))
    table.add_row("offloaded", f"{summary['offloaded']} ({summary['offloaded'] / frames:.0%})")
    table.add_row("not answered by the server", share(summary["drops"]))
    if summary["revised"]:
        table.add_row("revised by the server", f"{summary['revised']} ({summary['revised'] / frames:.0%})")
    if summary["unknown"]:
        table.add_row("none of the classes", f"{summary['unknown']} ({summary['unknown'] / frames:.0%})")
    if opinions := summary.get("frigate"):
        table.add_row("sub-labels", f"{opinions['written']} of {opinions['events']} events")
        for reason, count in opinions["reasons"].items():
            table.add_row("", f"{count} without: {reason}")
    table.add_row(
        "uplink", f"{summary['wire_bits'] / 8000:.1f} kB, {summary['wire_bits'] / 8 / frames:.0f} B per frame"
    )
    limit = summary["budget_bits"]
    peak = f"{summary['peak_window_bits']} bits in {summary['window_s']:g} s"
    if limit and summary["peak_window_bits"] <= limit:  # above it only where the budget was lowered later
        peak += f" of {limit} ({summary['peak_window_bits'] / limit:.1%})"
    table.add_row("peak window", peak)
    for quota in summary["quotas"]:
        table.add_row(f"quota {quota_title(quota)}", quota_words(quota))
    if summary["frames"]:
        latency = summary["latency_ms"]
        table.add_row(
            "latency", f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, max {latency['max']:.0f} ms"
        )
    if summary["accuracy"]:
        accuracy = summary["accuracy"]
        table.add_row("accuracy", f"{accuracy['verdict']:.1%} (edge alone {accuracy['edge']:.1%})")
    return table
