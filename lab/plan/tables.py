"""The result of `sagelink plan` as a table for the terminal and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from sagelink.lab.eval.tables import percent
from sagelink.pipeline.files.output_files import MADE_BY
from sagelink.pipeline.files.private_files import replacing
from sagelink.pipeline.quantities import format_bytes

_DAY_S = 86_400.0


def month_table(report: dict[str, Any]) -> Table:
    """One row per size of the quotas and pace. `report`: the content of plan.json."""
    measured = report["measured"].partition(" ")[0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("quota", "pace", measured, "answered", "sent", "gone after"):
        table.add_column(name, justify="left" if name == "pace" else "right", no_wrap=True)
    last = None
    for row in report["rows"]:
        if last is not None and row["scale"] != last:
            table.add_section()
        last = row["scale"]
        gone = "never" if row["gone_s"] is None else f"{row['gone_s'] / _DAY_S:.1f} days"
        table.add_row(
            quota_sizes(report, row["scale"]),
            row["pace"],
            percent(row["right"]),
            percent(row["answered"]),
            format_bytes(row["used_bits"] / 8),
            gone,
        )
    return table


def quota_sizes(report: dict[str, Any], scale: float) -> str:
    """Such as `125 MB month, 5 MB day`."""
    return ", ".join(
        f"{format_bytes(each['limit_bits'] * scale / 8)} {each['name']}"
        + (f" ({each['camera']})" if each["camera"] else "")
        for each in report["quotas"]
    )


def draw_month_plot(report: dict[str, Any], path: Path) -> None:
    """Writes a PNG file: right answers over the size of the quotas, and the bytes of each day at the given size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for pace in dict.fromkeys(row["pace"] for row in report["rows"]):
        curve = [row for row in report["rows"] if row["pace"] == pace]
        sizes = [report["quotas"][0]["limit_bits"] * row["scale"] / 8e6 for row in curve]
        left.plot(sizes, [100 * row["right"] for row in curve], marker="o", ms=3, label=pace)
        given = next(row for row in curve if row["scale"] == 1)
        days = given["days_bits"]
        right.step(range(1, len(days) + 1), [bits / 8e6 for bits in days], where="mid", label=pace)
    left.axhline(100 * report["edge_right"], color="0.6", lw=1, ls="--", label="edge alone")
    left.set(xlabel=f"quota {report['quotas'][0]['name']}, MB", ylabel=f"{report['measured'].partition(' ')[0]}, %")
    left.set_xscale("log")
    right.set(xlabel="day", ylabel="MB a day, quota as given")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=130, metadata={"Software": MADE_BY})
