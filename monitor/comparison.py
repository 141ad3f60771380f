"""What other settings would have cost on recorded frames: a table and a plot beside the run as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

Row = dict[str, Any]  # a line of results.jsonl


@dataclass(frozen=True, slots=True)
class Tried:
    """One way to run the frames."""

    name: str
    rows: dict[tuple[str, int], Row]  # by camera and seq

    @property
    def offloaded(self) -> float:
        """Share of the frames whose evidence was sent."""
        return float(np.mean([row["sent_s"] is not None for row in self.rows.values()]))

    @property
    def sent_bytes(self) -> float:
        bits: int = sum(row["wire_bits"] for row in self.rows.values())
        return bits / 8

    def agreement(self, other: Tried) -> float:
        """Share of the frames with the same verdict."""
        return float(np.mean([row["class_id"] == other.rows[place]["class_id"] for place, row in self.rows.items()]))

    def accuracy(self) -> float | None:
        """Share of right verdicts; None where the truth is not known."""
        known = [row["class_id"] == row["truth"] for row in self.rows.values() if row["truth"] is not None]
        return float(np.mean(known)) if known else None


def tried(name: str, folder: Path) -> Tried:
    """A run from its results."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return Tried(name, _placed(json.loads(line) for line in lines))


def recorded(rows: Mapping[tuple[str, int], Row]) -> Tried:
    """The recorded run itself, from the lines of frames.jsonl."""
    return Tried("as recorded", _placed(row["verdict"] for row in rows.values()))


def _placed(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    return {(row["camera"], row["seq"]): row for row in rows}


def comparison_table(rows: Mapping[tuple[str, int], Row], runs: Sequence[Tried]) -> Table:
    """One line a run."""
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


def save_comparison(rows: Mapping[tuple[str, int], Row], runs: Sequence[Tried], path: Path) -> None:
    """Draws what each run had sent by when, and how many verdicts it shares with the recorded run."""
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
    sent.set(xlabel="seconds", ylabel="kB sent", title="sent so far")
    names = [run.name for run in (base, *runs)]
    places = np.arange(len(names))
    shares.barh(places - 0.2, [run.offloaded for run in (base, *runs)], 0.4, label="offloaded")
    shares.barh(places + 0.2, [run.agreement(base) for run in (base, *runs)], 0.4, label="same verdict as recorded")
    shares.set_yticks(places, names)
    shares.invert_yaxis()
    shares.set(xlim=(0, 1), title="share of the frames")
    sent.legend()
    figure.legend(handles=shares.containers, loc="outside lower right", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
