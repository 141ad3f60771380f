"""Learns from the server's replies how far a camera's edge answers can be believed: replies in, a weight out.

Where models have no names for what a camera sees, edge and server contradict each other all the time, and the mean of
their answers is neither's. So each reply is compared with the edge's answer to the same frame. The share of replies
that agree is estimated for the camera and for each class of edge answer; a class that was seldom replied to takes the
camera's share. Below a low share only the server is believed, where it has answered; above a high one the edge keeps
its full weight. No labels are needed, and without replies nothing changes. Old replies fade, so trust can return. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LOW, _HIGH = 0.3, 0.5  # shares of agreement between which the weight rises from 0 to 1
_PRIOR_SHARE, _PRIOR_REPLIES = 0.65, 8.0  # what counts before the first reply, and as how many replies
_CLASS_REPLIES = 10.0  # as many the camera's share counts in the share of a class
_MEMORY = 60.0  # replies: beyond it, older ones fade
_APART_S = 1.0  # replies to frames that are nearer to each other are as good as repeated, and teach less
_FULL_WEIGHT = 0.2  # a reply with a smaller fusion weight comes from weak evidence, and teaches less


@dataclass(slots=True)
class _Replies:
    """Replies to one kind of edge answer."""

    all: float = 0.0
    agreed: float = 0.0

    def add(self, agreed: bool, weight: float) -> None:
        kept = min(1.0, _MEMORY / (self.all + weight))
        self.all = kept * (self.all + weight)
        self.agreed = kept * (self.agreed + weight * agreed)

    def share(self, prior: float, strength: float) -> float:
        """Share that agreed, where `prior` counts as `strength` replies."""
        return (self.agreed + strength * prior) / (self.all + strength)


class EdgeTrust:
    """Of one camera and one set of classes."""

    def __init__(self) -> None:
        self._camera = _Replies()
        self._by_class: dict[int, _Replies] = {}  # by class of the edge answer
        self._last_s = -math.inf  # time of the newest frame that was replied to

    def learn(self, edge_class: int, server_class: int, weight: float, at_s: float) -> None:
        """A reply to a frame with this edge answer. `weight`: the fusion weight of the server's answer. `at_s`: time of
        the frame."""
        passed_s, self._last_s = max(0.0, at_s - self._last_s), max(at_s, self._last_s)
        agreed, weight = edge_class == server_class, min(1.0, weight / _FULL_WEIGHT) * min(1.0, passed_s / _APART_S)
        for replies in (self._camera, self._by_class.setdefault(edge_class, _Replies())):
            replies.add(agreed, weight)

    def weight(self, edge_class: int) -> float:
        """Weight of an edge answer of this class beside a server answer, 0 to 1."""
        share = self._camera.share(_PRIOR_SHARE, _PRIOR_REPLIES)
        if (replies := self._by_class.get(edge_class)) is not None:
            share = replies.share(share, _CLASS_REPLIES)
        return min(1.0, max(0.0, (share - _LOW) / (_HIGH - _LOW)))
