"""Tally: what a run came to, in numbers that fit in constant memory."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from sagelink.pipeline.types import Verdict


class LatencyHistogram:
    """Percentiles within 1 % from logarithmic bins, for a run of any length."""

    _LOWEST_MS = 0.01
    _GROWTH = math.log(1.01)

    def __init__(self) -> None:
        self._counts = np.zeros(2048, np.int64)  # up to about 7 million ms
        self.max_ms = 0.0

    def add(self, ms: float) -> None:
        step = math.log(max(ms, self._LOWEST_MS) / self._LOWEST_MS) / self._GROWTH
        self._counts[min(int(step), len(self._counts) - 1)] += 1
        self.max_ms = max(self.max_ms, ms)

    def percentile(self, share: float) -> float | None:
        """The value below which that share (0..1) lies; None when nothing was added."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        step = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return min(self._LOWEST_MS * math.exp((step + 0.5) * self._GROWTH), self.max_ms)


@dataclass(slots=True)
class Tally:
    """A sink that counts."""

    verdicts: int = 0
    offloaded: int = 0  # frames whose evidence was sent
    wire_bits: int = 0
    revised: int = 0  # verdicts that revise what was said at once
    unanswered: int = 0  # frames on which not even the edge model gave an answer
    origins: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    cameras: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    with_truth: int = 0
    correct: int = 0
    edge_correct: int = 0

    def write(self, verdict: Verdict) -> None:
        self.verdicts += 1
        self.offloaded += verdict.sent_s is not None
        self.wire_bits += verdict.wire_bits
        self.cameras[verdict.frame.camera].update(offloaded=verdict.sent_s is not None, wire_bits=verdict.wire_bits)
        self.revised += verdict.revised_from is not None
        self.unanswered += verdict.answer is None
        self.origins[verdict.origin] += 1
        if verdict.drop is not None:
            self.drops[verdict.drop.value] += 1
        self.latency.add(verdict.latency_ms["total"] or 0.0)
        truth = verdict.frame.truth
        if truth is not None:
            self.with_truth += 1
            self.correct += verdict.answer is not None and verdict.answer.class_id == truth
            self.edge_correct += verdict.edge is not None and verdict.edge.class_id == truth

    def close(self) -> None:
        pass
