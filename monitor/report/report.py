"""`sagelink report`: writes a self-contained HTML page about one run, or two side by side, and its plots as PNG."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagelink.monitor.quota_words import quota_title, quota_words
from sagelink.monitor.report.events import report_events
from sagelink.monitor.report.plots import plots, png, svg
from sagelink.monitor.report.results_reader import Results
from sagelink.pipeline.files.output_files import (
    MADE_BY,
    PICTURES,
    PLOT_MARK,
    REPORT,
    REPORT_PLOTS,
    cannot_write,
    check_output_file,
    marked,
)
from sagelink.pipeline.files.private_files import make_private_folder, replace_text, replacing
from sagelink.pipeline.quantities import format_rate
from sagelink.stages.sinks.tally import VerdictCounts

_SHEET_FRAMES = 12  # at most, in a contact sheet
_PAGE_MARK = f'<meta name="generator" content="{MADE_BY}">'.encode()
_TITLES = {
    "bits": ("Bits over time", "Bits sent, bits in the rolling window, and the budget of the window."),
    "verdicts": ("Verdicts", "Origin of the verdicts, and why the server did not answer the other frames."),
    "latency": (
        "Latency by stage",
        "p50 and p95: half of the frames, and 95 % of them, needed at most this time in a stage.",
    ),
    "accuracy": ("Accuracy", "Share of the frames with the true class."),
}


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the page and its plots; returns the path of the page.

    `out`: path of the page, by default `report.html` in the first folder. Plots go beside it, as `report-NAME.png`.
    Raises UsageError for a folder that holds no run, SagelinkError when a file cannot be written.
    """
    runs = [Results.read(folder) for folder in folders]
    page = out or folders[0] / REPORT
    check_output_file(page, marked(_PAGE_MARK), "`sagelink report`")
    plot_files = {name: page.with_name(f"{page.stem}-{name}.png") for name in REPORT_PLOTS}
    for file in plot_files.values():
        check_output_file(file, marked(PLOT_MARK), "`sagelink report`")
    figures = plots(runs)
    sections = [
        {"name": name, "title": _TITLES[name][0], "about": _TITLES[name][1], "svg": svg(figure)}
        for name, figure in figures.items()
    ]
    html = _template().render(
        title=" and ".join(run.name for run in runs),
        runs=[
            {"name": run.name, "facts": _facts(run), "sheets": _sheets(run), "events": report_events(run.folder)}
            for run in runs
        ],
        facts=[(name, [_facts(run).get(name, "") for run in runs]) for name in _names(runs)],
        sections=sections,
        stylesheet=(Path(__file__).parents[1] / "templates" / "report.css").read_text(encoding="utf-8"),
    )
    try:
        make_private_folder(page.parent)
        replace_text(page, html)
        for name, figure in figures.items():
            with replacing(plot_files[name]) as unfinished:
                unfinished.write_bytes(png(figure))
    except OSError as error:
        raise cannot_write(page, error) from None
    return page


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sagelink.monitor"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html")


def _names(runs: Sequence[Results]) -> list[str]:
    """Names of the facts that at least one run has, in order."""
    return [*dict.fromkeys(name for run in runs for name in _facts(run))]


def _facts(run: Results) -> dict[str, str]:
    """Rows of the table about a run, in order: name and value."""
    frames = len(run.lines)
    counts = run.counts
    _, bits = run.charges()
    summary = run.summary or {}
    p50, p95 = np.percentile(run.latencies("total"), [50, 95])
    accuracy = counts.accuracy()
    peak = summary.get("peak_window_bits")
    limit = summary.get("budget_bits")
    budget = "unknown: the run has no summary"
    if run.window_s:
        budget = f"{format_rate(None if limit is None else limit / run.window_s)} over {run.window_s:g} s"
    share = (
        f" ({peak / limit:.1%})" if limit and peak <= limit else ""
    )  # above it only where the budget was lowered later
    cameras = run.frames_by_camera().most_common()
    facts = {
        "Source": str(summary.get("source", "unknown")),
        "Models": f"{summary['models']['edge']} and {summary['models']['server']}" if summary else "unknown",
        "Cameras": ", ".join(f"{name} {count}" for name, count in cameras) if len(cameras) > 1 else "1",
        "Frames": f"{frames:,}",
        "Offloaded": f"{len(bits):,} ({len(bits) / frames:.0%})",
        "Budget": budget,
        "Fullest window": f"{peak:,} bits{share}" if summary else "unknown",
        "Sent": f"{bits.sum() / 8000:,.1f} kB, {bits.sum() / 8 / frames:,.0f} B per frame",
        "Latency": f"p50 {p50:.0f} ms, p95 {p95:.0f} ms",
        "Accuracy": f"{accuracy['verdict']:.1%}, edge alone {accuracy['edge']:.1%}"
        if accuracy
        else "unknown: the source has no true classes",
        "Edge and server agree": _agreement(counts),
    }
    for quota in summary.get("quotas", []):
        facts[f"Quota {quota_title(quota)}"] = quota_words(quota)
    if counts.revised:
        share = f"{counts.revised / frames:.0%}"
        facts["Revised"] = f"{counts.revised:,} ({share}): a later server answer changed the provisional answer"
    if counts.short_answers:
        share = f"{counts.lost_units / max(1, counts.units):.1%}"
        facts["Parts lost"] = f"{counts.short_answers:,} server answers do not include {share} of all units sent"
    if summary.get("interrupted"):
        facts["Frames"] += ", interrupted"
    return facts


def _agreement(counts: VerdictCounts) -> str:
    if not counts.compared:
        return "no server answers"
    return f"on {counts.agreeing / counts.compared:.1%} of the frames that the server answered"


def _sheets(run: Results) -> list[dict[str, Any]]:
    """The two contact sheets, from the frames whose picture was saved."""
    saved = [line for line in run.lines if _picture(run, line).is_file()]
    costly = sorted((line for line in saved if line["wire_bits"]), key=lambda line: (-line["wire_bits"], line["seq"]))
    unsure = sorted((line for line in saved if line["prob"] is not None), key=lambda line: (line["prob"], line["seq"]))
    sheets = [("Most expensive frames", costly), ("Least certain frames", unsure)]
    return [
        {"title": title, "cards": [_card(run, line) for line in lines[:_SHEET_FRAMES]]}
        for title, lines in sheets
        if lines
    ]


def _picture(run: Results, line: dict[str, Any]) -> Path:
    from sagelink.stages.sinks.highlights import picture_name

    return run.folder / PICTURES / picture_name(line["camera"], line["seq"])


def _card(run: Results, line: dict[str, Any]) -> dict[str, str]:
    data = base64.b64encode(_picture(run, line).read_bytes()).decode()
    right = "" if line["truth"] is None else "right" if line["truth"] == line["class_id"] else "wrong"
    sent = f"{line['units']} units, {line['wire_bits'] / 8:,.0f} B" if line["sent_s"] is not None else "nothing sent"
    return {
        "image": f"data:image/jpeg;base64,{data}",
        "label": str(line["label"]),
        "was": f", was {line['revised_from']['label']}" if line.get("revised_from") else "",
        "prob": "" if line["prob"] is None else f"{line['prob']:.0%}",
        "origin": line["origin"],
        "right": right,
        "detail": sent if line["drop"] is None else f"{sent} ({line['drop']})",
        "time": f"frame {line['seq']}, {line['stream_s']:.1f} s",
    }
