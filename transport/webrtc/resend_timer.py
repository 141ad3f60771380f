"""Estimates the round trip from message to verdict, and how long to wait before a message is sent again. Pure."""

from __future__ import annotations

_INITIAL_S = 0.1  # estimate before the first measurement
_SMOOTHING, _DEVIATION_SMOOTHING, _DEVIATIONS = 0.125, 0.25, 4.0  # RFC 6298, 2.3
_MIN_MARGIN = 0.25  # shortest wait beyond the mean, as a share of the mean


class ResendTimer:
    """The retransmission timer of RFC 6298, with an estimate that a resent message hardly changes."""

    def __init__(self) -> None:
        self._mean_s = _INITIAL_S
        self._deviation_s = _INITIAL_S / _DEVIATIONS

    @property
    def timeout_s(self) -> float:
        """A message without a verdict after this time is sent again."""
        return self._mean_s + max(_MIN_MARGIN * self._mean_s, _DEVIATIONS * self._deviation_s)

    def record(self, round_trip_s: float) -> None:
        """Takes a measured round trip. One longer than the timeout may be the verdict on the second copy, so it counts
        as the timeout: a lost message hardly delays the next one, and the estimate still follows a slower network."""
        difference_s = min(round_trip_s, self.timeout_s) - self._mean_s
        self._deviation_s += _DEVIATION_SMOOTHING * (abs(difference_s) - self._deviation_s)
        self._mean_s += _SMOOTHING * difference_s
