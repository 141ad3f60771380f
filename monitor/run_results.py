"""A run folder as numbers: what `results.jsonl` and `summary.json` say, and what follows from them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.outputs import RESULTS, SUMMARY
from sagelink.stages.sinks.jsonl import check_keys

Floats = NDArray[np.float64]

# What is read of a line, and of a summary.
_LINE = {
    *("seq", "camera", "stream_s", "sent_s", "label", "class_id", "prob", "origin", "drop", "units", "wire_bits"),
    *("window_bits", "budget_bits", "edge", "server", "truth", "latency_ms"),
}
_SUMMARY = {"window_s", "budget_bits", "peak_window_bits", "source", "models", "interrupted"}


@dataclass(frozen=True, slots=True)
class Results:
    """One run, read from its folder."""

    folder: Path
    lines: list[dict[str, Any]]  # one a frame, as docs/outputs.md says
    summary: dict[str, Any] | None  # None: the run is still going, or was killed

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Raises UsageError when the folder holds no run, or its lines are not those of a run."""
        path = folder / RESULTS
        try:
            raw = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"{str(path)!r}: {reason}; accepted: the folder that `sagelink run --out` made") from None
        if raw and not raw[-1].endswith("\n"):
            raw.pop()  # the run was killed, or is, in the middle of a line
        lines = [_line(text, f"{path}:{number}") for number, text in enumerate(raw, 1)]
        if not lines:
            raise UsageError(f"{str(path)!r} holds no frames yet")
        summary = folder / SUMMARY
        try:
            told = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else None
        except ValueError as error:
            raise UsageError(f"{str(summary)!r} is not JSON: {error}") from None
        if told is not None and not (isinstance(told, dict) and told.keys() >= _SUMMARY):
            raise UsageError(f"{str(summary)!r} is not that of a run; see docs/outputs.md")
        return cls(folder, lines, told)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def window_s(self) -> float | None:
        return float(self.summary["window_s"]) if self.summary else None

    def charges(self) -> tuple[Floats, Floats]:
        """Times in s and bits of what was sent, (S,) each, in the order of the charges."""
        sent = sorted((line["sent_s"], line["wire_bits"]) for line in self.lines if line["sent_s"] is not None)
        return np.array([t for t, _ in sent]), np.array([b for _, b in sent], np.float64)

    def times(self) -> Floats:
        """The frames' own times in s, (F,)."""
        return np.array([line["stream_s"] for line in self.lines], np.float64)

    def budget(self) -> Floats:
        """What a window might hold at each frame, (F,); NaN without a limit. One that never asked repeats the last."""
        held, values = None, []
        for line in self.lines:
            if line["window_bits"] is not None:
                held = line["budget_bits"]
            values.append(np.nan if held is None else held)
        return np.array(values, np.float64)

    def latencies(self, stage: str) -> Floats:
        """Milliseconds of the frames that came through the stage."""
        return np.array([ms for line in self.lines if (ms := line["latency_ms"].get(stage)) is not None], np.float64)

    def counts(self, key: str) -> Counter[str]:
        """How many lines have each value of `origin`, `drop` or `camera`, most first; null ones are left out."""
        return Counter(dict(Counter(line[key] for line in self.lines if line[key] is not None).most_common()))

    def accuracy(self) -> dict[str, float] | None:
        """Shares of frames with the true class: of the verdict, of the edge; None where no truth is known."""
        known = [line for line in self.lines if line["truth"] is not None]
        if not known:
            return None
        edge = sum(line["edge"] is not None and line["edge"]["class_id"] == line["truth"] for line in known)
        return {
            "verdict": sum(line["class_id"] == line["truth"] for line in known) / len(known),
            "edge": edge / len(known),
        }

    def revised(self) -> int:
        """Frames on which the server changed what was said at once; 0 where nothing was said before."""
        return sum(line.get("revised_from") is not None for line in self.lines)

    def cut_short(self) -> tuple[int, float]:
        """Server answers that lack units which were sent, and the share of the units sent that is."""
        lost = [line.get("lost_units", 0) for line in self.lines]
        return sum(map(bool, lost)), sum(lost) / max(1, sum(line["units"] for line in self.lines))

    def agreement(self) -> float | None:
        """Share of the frames that the server answered on which edge and server name the same class."""
        both = [(line["edge"], line["server"]) for line in self.lines if line["edge"] and line["server"]]
        return sum(edge["class_id"] == server["class_id"] for edge, server in both) / len(both) if both else None


def rolling(times_s: Floats, bits: Floats, window_s: float) -> tuple[Floats, Floats]:
    """Bits in the window (t - window, t] as a step function: its times in s and its value from each of them on.

    `times_s` and `bits` are (S,), times ascending; the result is (2S,) each.
    """
    steps = np.concatenate([times_s, times_s + window_s])
    changes = np.concatenate([bits, -bits])
    # What leaves the window at a time leaves before what is charged then.
    order = np.lexsort((changes, steps))
    return steps[order], np.cumsum(changes[order])


def _line(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if isinstance(line, dict):
        check_keys(line, where)
    if not isinstance(line, dict) or not line.keys() >= _LINE or "total" not in line["latency_ms"]:
        raise UsageError(f"{where}: not a line of results.jsonl; see docs/outputs.md")
    return line
