"""Reads the results of a run from its folder (`results.jsonl`, `summary.json`) and computes counts, times and bits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagelink.monitor.report.result_values import check_line, check_summary
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json, read_text
from sagelink.pipeline.files.output_files import MARKER, RESULTS, RUNS, SUMMARY
from sagelink.pipeline.files.rotating_lines import read_lines
from sagelink.stages.sinks.tally import VerdictCounts

Floats = NDArray[np.float64]

_MAX_VALUES = 1000  # of a line


@dataclass(frozen=True, slots=True)
class Results:
    """One run, read from its folder."""

    folder: Path
    lines: list[dict[str, Any]]  # one per frame; docs/outputs.md lists the keys
    summary: dict[str, Any] | None  # None: the run has not ended, or was killed
    counts: VerdictCounts

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Reads the folder. Raises UsageError when it holds no run, or when a line is not one of results.jsonl."""
        path = folder / RESULTS
        try:
            raw = [*read_lines(folder, RESULTS)]
        except (OSError, ValueError) as error:
            reason = "not text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
            earlier = folder / RUNS
            hint = f", or an earlier run in {str(earlier)!r}" if _holds_earlier_runs(earlier) else ""
            raise UsageError(
                f"{str(path)!r}: {reason}; accepted: the folder that `sagelink run --out` made{hint}"
            ) from None
        lines = [_line(text, where) for where, text in raw]
        if not lines:
            raise UsageError(f"{str(path)!r} holds no frames yet; accepted: a run with at least one verdict")
        summary_path = folder / SUMMARY
        try:
            summary = parse_json(read_text(summary_path)) if summary_path.is_file() else None
        except OSError as error:
            raise UsageError(f"{str(summary_path)!r} cannot be read: {error.strerror}") from None
        except DocumentError as error:
            raise UsageError(f"{str(summary_path)!r} is not JSON: {error}") from None
        if summary_path.is_file():
            check_summary(summary, str(summary_path))
        return cls(folder, lines, summary, VerdictCounts.of_records(lines))

    @property
    def name(self) -> str:
        """The folder's name; of an earlier run, the name of its output folder and its start."""
        folder = self.folder.resolve()
        runs = folder.parent
        return f"{runs.parent.name}, {folder.name}" if _holds_earlier_runs(runs) else folder.name

    @property
    def window_s(self) -> float | None:
        return float(self.summary["window_s"]) if self.summary else None

    def charges(self) -> tuple[Floats, Floats]:
        """Time in s and size in bits of each sent message, (S,) each, by time."""
        sent = sorted((line["sent_s"], line["wire_bits"]) for line in self.lines if line["sent_s"] is not None)
        return np.array([t for t, _ in sent]), np.array([b for _, b in sent], np.float64)

    def times(self) -> Floats:
        """Stream time of each frame in s, (F,)."""
        return np.array([line["stream_s"] for line in self.lines], np.float64)

    def budget(self) -> Floats:
        """Limit of the budget window in bits at each frame, (F,); NaN without a limit.

        A frame that did not ask the budget repeats the last limit.
        """
        limit_bits, values = None, []
        for line in self.lines:
            if line["window_bits"] is not None:
                limit_bits = line["budget_bits"]
            values.append(np.nan if limit_bits is None else limit_bits)
        return np.array(values, np.float64)

    def latencies(self, stage: str) -> Floats:
        """Time in the stage in ms, of the frames that passed it."""
        return np.array([ms for line in self.lines if (ms := line["latency_ms"].get(stage)) is not None], np.float64)

    def frames_by_camera(self) -> Counter[str]:
        """Number of frames by camera name."""
        return Counter(line["camera"] for line in self.lines)


def _holds_earlier_runs(folder: Path) -> bool:
    return folder.name == RUNS and folder.is_dir() and (folder.parent / MARKER).exists()


def rolling(times_s: Floats, bits: Floats, window_s: float) -> tuple[Floats, Floats]:
    """Bits in the window (t - window, t] as a step function: its times in s, and its value from each time on.

    `times_s` and `bits` are (S,), times ascending; the results are (2S,) each.
    """
    steps = np.concatenate([times_s, times_s + window_s])
    changes = np.concatenate([bits, -bits])
    # At equal times, bits leave the window before others enter it.
    order = np.lexsort((changes, steps))
    return steps[order], np.cumsum(changes[order])


def _line(text: str, where: str) -> dict[str, Any]:
    try:
        line = parse_json(text, max_values=_MAX_VALUES)
    except DocumentError as error:
        raise UsageError(f"{where}: {error}") from None
    return check_line(line, where)
