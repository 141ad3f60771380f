"""Counts the verdicts of a run, in total and per camera, in constant memory.

`VerdictCounts` is the one definition of each counted quantity: the summary, the live state, the Prometheus metrics and
the report all count with it, from verdicts or from the records of results.jsonl.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from sagelink.pipeline.types import Verdict


@dataclass(slots=True)
class VerdictCounts:
    """Counts over some verdicts."""

    verdicts: int = 0
    offloaded: int = 0  # frames whose evidence was sent
    wire_bits: int = 0
    units: int = 0  # units sent
    lost_units: int = 0  # units sent that the server's answer does not include
    short_answers: int = 0  # server answers that do not include all units sent
    revised: int = 0  # verdicts that differ from the provisional answer
    unanswered: int = 0  # frames for which not even the edge model gave an answer
    origins: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    unknown: int = 0  # verdicts on pictures of none of the taught classes
    scored: int = 0  # frames on which the edge model ran
    with_truth: int = 0
    correct: int = 0
    edge_correct: int = 0
    compared: int = 0  # frames with an answer of the edge and of the server
    agreeing: int = 0  # those on which both name the same class

    @classmethod
    def of_records(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Counts over records of results.jsonl."""
        counts = cls()
        for record in records:
            counts.add_record(record)
        return counts

    def add(self, verdict: Verdict) -> None:
        sides = (answer.class_id if answer else None for answer in (verdict.edge, verdict.server))
        self._add_result(verdict.origin, verdict.drop, verdict.sent_s, verdict.revised_from)
        self._add_sent(verdict.wire_bits, len(verdict.units), verdict.lost_units)
        self._add_classes(verdict.frame.truth, verdict.class_id, *sides)
        self.unanswered += verdict.answer is None
        self.unknown += verdict.unknown
        self.scored += verdict.was_scored

    def add_record(self, record: Mapping[str, Any]) -> None:
        """`record`: one object of results.jsonl; docs/outputs.md lists its keys."""
        edge, server = ((record[key] or {}).get("class_id") for key in ("edge", "server"))
        self._add_result(record["origin"], record["drop"], record["sent_s"], record.get("revised_from"))
        self._add_sent(record["wire_bits"], record["units"], record.get("lost_units", 0))
        self._add_classes(record["truth"], record["class_id"], edge, server)
        self.unanswered += record["label"] is None
        self.unknown += record["class_id"] is None and record["label"] is not None
        self.scored += record.get("scored", record["edge"] is not None)

    def _add_result(self, origin: str, drop: str | None, sent_s: float | None, revised_from: object) -> None:
        self.verdicts += 1
        self.origins[str(origin)] += 1
        if drop is not None:
            self.drops[str(drop)] += 1
        self.offloaded += sent_s is not None
        self.revised += revised_from is not None

    def _add_sent(self, wire_bits: int, units: int, lost_units: int) -> None:
        self.wire_bits += wire_bits
        self.units += units
        self.lost_units += lost_units
        self.short_answers += lost_units > 0

    def _add_classes(self, truth: int | None, verdict: int | None, edge: int | None, server: int | None) -> None:
        if truth is not None:
            self.with_truth += 1
            self.correct += verdict == truth
            self.edge_correct += edge == truth
        if edge is not None and server is not None:
            self.compared += 1
            self.agreeing += edge == server

    def accuracy(self) -> dict[str, float] | None:
        """Share (0..1) of right answers of the verdicts and of the edge; None where no truth is known."""
        if not self.with_truth:
            return None
        return {"verdict": self.correct / self.with_truth, "edge": self.edge_correct / self.with_truth}


class LatencyHistogram:
    """Percentiles within 1 % from logarithmic bins, for a run of any length."""

    _MIN_MS = 0.01
    _GROWTH = math.log(1.01)

    def __init__(self) -> None:
        self._counts = np.zeros(2048, np.int64)  # up to about 7 million ms
        self.max_ms = 0.0

    def add(self, ms: float) -> None:
        step = math.log(max(ms, self._MIN_MS) / self._MIN_MS) / self._GROWTH
        self._counts[min(int(step), len(self._counts) - 1)] += 1
        self.max_ms = max(self.max_ms, ms)

    def percentile(self, share: float) -> float | None:
        """Milliseconds below which this share (0..1) of the values lies; None when there are no values."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        step = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return min(self._MIN_MS * math.exp((step + 0.5) * self._GROWTH), self.max_ms)


class Tally:
    """Counts of a whole run: in total, per camera, and the latency of its verdicts."""

    def __init__(self) -> None:
        self.total = VerdictCounts()
        self.cameras: defaultdict[str, VerdictCounts] = defaultdict(VerdictCounts)
        self.latency = LatencyHistogram()

    def add(self, verdict: Verdict) -> None:
        self.total.add(verdict)
        self.cameras[verdict.frame.camera].add(verdict)
        self.latency.add(verdict.latency_ms["total"] or 0.0)
