"""Capped exponential backoff with jitter: how long to wait before the next attempt. Pure."""

from __future__ import annotations

import random


class Backoff:
    """Waits double from `first_s` up to `max_s`; each is drawn from the upper half, so that a thousand cameras that
    lost the same broker do not come back at once."""

    def __init__(self, first_s: float = 0.5, max_s: float = 15.0, seed: int | None = None) -> None:
        self._first_s = first_s
        self._most_s = max_s
        self._random = random.Random(seed)
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        full_s: float = min(self._most_s, self._first_s * 2 ** min(self._failures, 32))
        self._failures += 1
        return full_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """After a success."""
        self._failures = 0
