"""Learns from the server's replies whether its answers change too fast to be averaged: classes in, a decision out.

Where only the server is believed, there are two ways to hold its answers. The mean of the recent ones is better where
small messages make each of them unsure; the newest one is better where the picture changes. Each reply tells which of
the two had predicted it. That says nothing about the time right after a reply, when the newest answer is the fresher
one; so a reply that could not change the mean counts for the newest answer too, but less: it may be a mistake. Old
replies fade, so the choice can change. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

_KEPT = 0.95  # of what was learned before, at each reply
_UNCHANGED = 0.25  # of a wrong prediction: so much a reply counts that leaves the class of the mean as it was
_LEAD = 1.0  # replies by which the newest answer must be ahead
_MOST = 1 / (1 - _KEPT)  # replies that count


class ChangingAnswers:
    """Of one camera."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what was learned."""
        self._lead = 0.0  # of the newest answer before the mean, in replies
        self._confirmed = 0.5  # share of replies that named the class of the answer before

    def learn(self, reply: int, newest: int, mean: int, updated: int) -> None:
        """A reply. Class ids: its own, that of the answer before, of the mean without the reply, and with it."""
        gain = (newest == reply) - (mean == reply) + _UNCHANGED * (updated != reply)
        self._lead = _KEPT * self._lead + gain
        self._confirmed = _KEPT * self._confirmed + (1 - _KEPT) * (newest == reply)

    @property
    def newest_only(self) -> bool:
        """Whether the newest answer is to be held alone."""
        return self._lead > _LEAD

    @property
    def confirmed(self) -> float:
        """Probability that the next reply names the class of the newest answer."""
        return self._confirmed

    def state(self) -> list[float]:
        """What was learned, as plain JSON values."""
        return [self._lead, self._confirmed]

    def restore(self, state: Sequence[float]) -> None:
        """Takes what `state` returned. Raises ValueError or TypeError for anything else; then nothing changes."""
        lead, confirmed = (float(each) for each in state)
        if not (abs(lead) <= 2 * _MOST and 0 <= confirmed <= 1):
            raise ValueError(f"lead {lead:g}, confirmed {confirmed:g}; accepted: up to {2 * _MOST:g}, 0 to 1")
        self._lead, self._confirmed = lead, confirmed
