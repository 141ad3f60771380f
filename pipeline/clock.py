"""The clock of the budget: monotonic time in live runs, stream time in replays."""

from __future__ import annotations

import time
from typing import Protocol

from sagelink.pipeline.types import Frame


class BudgetClock(Protocol):
    def now_s(self, frame: Frame) -> float:
        """The budget's time while `frame` is processed, in seconds since the start of the run."""
        ...


class MonotonicClock:
    """Live runs: seconds since the start of the run, on the machine's monotonic clock."""

    def __init__(self) -> None:
        self._began_ns = time.monotonic_ns()

    def now_s(self, frame: Frame) -> float:
        return self.elapsed_s()

    def elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._began_ns) / 1e9


class StreamClock:
    """Replays: the time of the frame in its stream, so that a replay at any speed charges the same as a live run."""

    def __init__(self) -> None:
        self._latest_s = 0.0

    def now_s(self, frame: Frame) -> float:
        self._latest_s = frame.stream_s
        return frame.stream_s

    def elapsed_s(self) -> float:
        return self._latest_s
