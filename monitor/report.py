"""`sagelink report`: one self-contained HTML file about a run, or two side by side, and its plots as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagelink.monitor.report_plots import plots, png, svg
from sagelink.monitor.run_results import Results
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.outputs import PICTURES
from sagelink.pipeline.quantities import format_rate

_SHOWN = 12  # frames of a contact sheet
_TITLES = {
    "bits": ("Bits over time", "Sent bits, the rolling window, and what it may hold."),
    "verdicts": ("Verdicts", "Who answered, and why the server did not."),
    "latency": ("Latency by stage", "Half and 95 % of the frames that came through a stage took at most this long."),
    "accuracy": ("Accuracy", "Share of frames with the true class."),
}


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the page and the plots beside it; returns the page's path.

    `out`: the page, by default `report.html` in the first folder. Plots go into `report-NAME.png` beside it. Raises
    UsageError for a folder that holds no run, SagelinkError when nothing can be written.
    """
    runs = [Results.read(folder) for folder in folders]
    page = out or folders[0] / "report.html"
    figures = plots(runs)
    sections = [
        {"name": name, "title": _TITLES[name][0], "about": _TITLES[name][1], "svg": svg(figure)}
        for name, figure in figures.items()
    ]
    html = _template().render(
        title=" and ".join(run.name for run in runs),
        runs=[{"name": run.name, "facts": _facts(run), "sheets": _sheets(run)} for run in runs],
        facts=[(name, [_facts(run).get(name, "") for run in runs]) for name in _names(runs)],
        sections=sections,
        stylesheet=(Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8"),
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
        for name, figure in figures.items():
            page.with_name(f"{page.stem}-{name}.png").write_bytes(png(figure))
    except OSError as error:
        raise SagelinkError(f"report cannot be written: {error}") from None
    return page


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(loader=PackageLoader("monitor"), autoescape=True, undefined=StrictUndefined).get_template(
        "report.html"
    )


def _names(runs: Sequence[Results]) -> list[str]:
    """Of the facts that any of the runs has."""
    return [*dict.fromkeys(name for run in runs for name in _facts(run))]


def _facts(run: Results) -> dict[str, str]:
    """What the table says of a run, in the table's order."""
    frames = len(run.lines)
    _, bits = run.charges()
    summary = run.summary or {}
    middle, most = np.percentile(run.latencies("total"), [50, 95])
    accuracy, agreement = run.accuracy(), run.agreement()
    peak = summary.get("peak_window_bits")
    limit = summary.get("budget_bits")
    budget = "not known: the run has no summary"
    if run.window_s:
        budget = f"{format_rate(None if limit is None else limit / run.window_s)} over {run.window_s:g} s"
    share = f" ({peak / limit:.1%})" if limit and peak <= limit else ""  # else the budget was lowered after it
    cameras = run.counts("camera")
    facts = {
        "Source": str(summary.get("source", "not known")),
        "Models": f"{summary['models']['edge']} and {summary['models']['server']}" if summary else "not known",
        "Cameras": ", ".join(f"{name} {count}" for name, count in cameras.items()) if len(cameras) > 1 else "1",
        "Frames": f"{frames:,}",
        "Offloaded": f"{len(bits):,} ({len(bits) / frames:.0%})",
        "Budget": budget,
        "Fullest window": f"{peak:,} bits{share}" if summary else "not known",
        "Sent": f"{bits.sum() / 8000:,.1f} kB, {bits.sum() / 8 / frames:,.0f} B a frame",
        "Latency": f"p50 {middle:.0f} ms, p95 {most:.0f} ms",
        "Accuracy": f"{accuracy['verdict']:.1%}, edge alone {accuracy['edge']:.1%}" if accuracy else "no truth known",
        "Edge and server agree": f"on {agreement:.1%} of what was answered" if agreement is not None else "no answers",
    }
    if revised := run.revised():
        facts["Revised"] = f"{revised:,} ({revised / frames:.0%}): the server changed what was said at once"
    answers, lost_share = run.cut_short()
    if answers:
        facts["Parts lost"] = f"{answers:,} answers lack {lost_share:.1%} of all units sent"
    if summary.get("interrupted"):
        facts["Frames"] += ", interrupted"
    return facts


def _sheets(run: Results) -> list[dict[str, Any]]:
    """The two contact sheets: of the frames whose picture the run kept."""
    kept = [line for line in run.lines if _picture(run, line).is_file()]
    dearest = sorted((line for line in kept if line["wire_bits"]), key=lambda line: (-line["wire_bits"], line["seq"]))
    unsure = sorted((line for line in kept if line["prob"] is not None), key=lambda line: (line["prob"], line["seq"]))
    sheets = [("Most expensive frames", dearest), ("Least certain frames", unsure)]
    return [
        {"title": title, "cards": [_card(run, line) for line in lines[:_SHOWN]]} for title, lines in sheets if lines
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
