"""Capped exponential backoff with jitter: seconds to wait before the next attempt. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits that double per failure from `first_s` up to `max_s`.

    Each wait is shortened at random by up to half, so that a thousand cameras that lost the same broker do not
    reconnect at the same time.
    """

    def __init__(self, first_s: float = 0.5, max_s: float = 15.0, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` returns random numbers in 0..1."""
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self._failures = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait after one more failure. `at_least_s`: lower bound of the wait before jitter."""
        full_s = max(at_least_s, min(self._max_s, self._first_s * 2.0 ** min(self._failures, 32)))
        self._failures += 1
        return full_s * (1 - 0.5 * self._jitter())

    def reset(self) -> None:
        """After a success the waits start over."""
        self._failures = 0
