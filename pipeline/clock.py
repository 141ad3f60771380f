"""Which time the budget runs on."""

from __future__ import annotations

import time
from typing import Protocol

from sagelink.pipeline.types import Frame


class BudgetClock(Protocol):
    def now_s(self, frame: Frame) -> float:
        """The budget's time while `frame` is being handled, in seconds since the run began."""
        ...


class MonotonicClock:
    """Live runs: seconds of the machine's monotonic clock since the run began."""

    def __init__(self) -> None:
        self._began_ns = time.monotonic_ns()

    def now_s(self, frame: Frame) -> float:
        return self.elapsed_s()

    def elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._began_ns) / 1e9


class StreamClock:
    """Replays: the frame's own time, so that a replay spends what the live run would have spent, at any speed."""

    def now_s(self, frame: Frame) -> float:
        return frame.stream_s
