"""Compares runs with other settings on the same recorded frames: cost and verdicts, as a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sagelink.pipeline.files.output_files import MADE_BY
from sagelink.pipeline.files.private_files import make_private_folder, replacing
from sagelink.stages.sinks.tally import VerdictCounts

Row = dict[str, Any]  # a line of results.jsonl


@dataclass(frozen=True, slots=True)
class TrialRun:
    """The results of one run over the recorded frames."""

    name: str
    rows: dict[tuple[str, int], Row]  # by camera and seq
    counts: VerdictCounts

    @property
    def offloaded(self) -> float:
        """Share of the frames whose evidence was sent."""
        return self.counts.offloaded / max(self.counts.verdicts, 1)

    @property
    def sent_bytes(self) -> float:
        return self.counts.wire_bits / 8

    def agreement(self, other: TrialRun) -> float:
        """Share of the frames with the same verdict."""
        return float(np.mean([row["class_id"] == other.rows[place]["class_id"] for place, row in self.rows.items()]))

    def accuracy(self) -> float | None:
        """Share of right verdicts; None where the truth is unknown."""
        accuracy = self.counts.accuracy()
        return accuracy["verdict"] if accuracy else None


def trial_run(name: str, folder: Path) -> TrialRun:
    """Reads a run from its results."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return _trial_run(name, map(json.loads, lines))


def recorded(rows: Mapping[tuple[str, int], Row]) -> TrialRun:
    """The recorded run itself, from the lines of frames.jsonl."""
    return _trial_run("as recorded", (row["verdict"] for row in rows.values()))


def _trial_run(name: str, rows: Iterable[Row]) -> TrialRun:
    by_frame = {(row["camera"], row["seq"]): row for row in rows}
    return TrialRun(name, by_frame, VerdictCounts.of_records(by_frame.values()))


def comparison_table(rows: Mapping[tuple[str, int], Row], runs: Sequence[TrialRun]) -> Table:
    """One line per run."""
    base = recorded(rows)
    table = Table(title=f"{len(base.rows)} recorded frames", title_justify="left")
    for heading in ("uplink", "offloaded", "bytes/frame", "sent, kB", "same verdict", "accuracy"):
        table.add_column(heading, justify="left" if heading == "uplink" else "right", no_wrap=True)
    for run in (base, *runs):
        accuracy = run.accuracy()
        table.add_row(
            run.name,
            f"{run.offloaded:.0%}",
            f"{run.sent_bytes / max(len(run.rows), 1):.0f}",
            f"{run.sent_bytes / 1000:.1f}",
            f"{run.agreement(base):.1%}",
            "" if accuracy is None else f"{accuracy:.1%}",
        )
    return table


def save_comparison(rows: Mapping[tuple[str, int], Row], runs: Sequence[TrialRun], path: Path) -> None:
    """Draws for each run the bytes sent over time, and the share of verdicts equal to those of the recorded run."""
    from matplotlib.figure import Figure

    base = recorded(rows)
    times = {place: row["at_s"] for place, row in rows.items()}
    figure = Figure(figsize=(10, 4), layout="constrained")
    sent, shares = figure.subplots(1, 2, width_ratios=[3, 2])
    for run in (base, *runs):
        order = sorted(run.rows, key=lambda place: times[place])
        bits = np.cumsum([run.rows[place]["wire_bits"] for place in order])
        style = {"color": "black", "linestyle": "--"} if run is base else {}
        sent.step([times[place] for place in order], bits / 8000, where="post", label=run.name, **style)
    sent.set(xlabel="seconds", ylabel="kB sent", title="bytes sent")
    names = [run.name for run in (base, *runs)]
    places = np.arange(len(names))
    shares.barh(places - 0.2, [run.offloaded for run in (base, *runs)], 0.4, label="offloaded")
    shares.barh(places + 0.2, [run.agreement(base) for run in (base, *runs)], 0.4, label="same verdict as recorded")
    shares.set_yticks(places, names)
    shares.invert_yaxis()
    shares.set(xlim=(0, 1), title="share of frames")
    sent.legend()
    figure.legend(handles=shares.containers, loc="outside lower right", ncols=2)
    make_private_folder(path.parent)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=120, metadata={"Software": MADE_BY})
