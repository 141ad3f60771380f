"""How long a verdict takes, and when a message without one is taken for lost. Pure."""

from __future__ import annotations

_FIRST_S = 0.1  # until it is measured
_SMOOTH, _SMOOTH_DEVIATION, _DEVIATIONS = 0.125, 0.25, 4.0  # RFC 6298, 2.3
_LEAST = 0.25  # of the round trip, that is waited beyond it


class ResendTimer:
    """From a message to its verdict."""

    def __init__(self) -> None:
        self._mean_s = _FIRST_S
        self._deviation_s = _FIRST_S / _DEVIATIONS

    @property
    def patience_s(self) -> float:
        """After so long a message goes again."""
        return self._mean_s + max(_LEAST * self._mean_s, _DEVIATIONS * self._deviation_s)

    def learn(self, took_s: float) -> None:
        """What took longer than it was waited for may be the answer to the second copy, so it counts as that wait: a
        lost message hardly slows the next, and a network that has become slower is still followed."""
        off_s = min(took_s, self.patience_s) - self._mean_s
        self._deviation_s += _SMOOTH_DEVIATION * (abs(off_s) - self._deviation_s)
        self._mean_s += _SMOOTH * off_s
