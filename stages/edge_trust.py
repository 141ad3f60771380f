"""Learns from the server's replies how far a camera's edge answers can be believed: replies in, a weight out.

Where models have no names for what a camera sees, edge and server contradict each other all the time, and the mean of
their answers is neither's. So each reply is compared with the class that the edge has found for the scene. Two good
models often differ on a hard picture, but the class of one is then among the likely ones of the other: so for the
camera as a whole a reply confirms the edge if the server finds its class plausible, and a few replies are enough. For a
single class, which may stand for minutes, a reply confirms the edge only if the server names the same class; a class
that was seldom replied to takes the camera's share. Below a low share only the server is believed, where it has
answered; above a high one the edge keeps its full weight. No labels are needed, and without replies nothing changes.
Old replies fade, so trust can return. What was learned can be stored and restored, with what the replies say about the
server's own answers (`sagelink.stages.changing_answers`). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagelink.stages.changing_answers import ChangingAnswers

_PLAUSIBLE = math.log(0.1)  # a class whose probability is at least this share of the largest one is plausible
_LOW, _HIGH = 0.3, 0.5  # shares of replies that confirm the edge, between which the weight rises from 0 to 1
_PRIOR_SHARE, _PRIOR_REPLIES = 0.7, 4.0  # what counts before the first reply, and as how many replies
_CLASS_REPLIES = 5.0  # as many the camera's share counts in the share of a class
_MEMORY = 60.0  # replies: beyond it, older ones fade
_APART_S = 0.5  # replies to frames that are nearer to each other are as good as repeated, and teach less
_FULL_WEIGHT = 0.2  # a reply with a smaller fusion weight comes from weak evidence, and teaches less
_MAX_STORED = 64  # classes: those with the most replies
_MAX_CLASS_ID = 1_000_000


@dataclass(slots=True)
class _Replies:
    """Replies to one kind of edge answer."""

    all: float = 0.0
    confirmed: float = 0.0

    def add(self, confirmed: bool, weight: float) -> None:
        kept = min(1.0, _MEMORY / (self.all + weight)) if weight else 1.0
        self.all = kept * (self.all + weight)
        self.confirmed = kept * (self.confirmed + weight * confirmed)

    def share(self, prior: float, strength: float) -> float:
        """Share that confirmed the edge, where `prior` counts as `strength` replies."""
        return (self.confirmed + strength * prior) / (self.all + strength)


class EdgeTrust:
    """Of one camera and one set of classes."""

    def __init__(self) -> None:
        self.changes = ChangingAnswers()
        self._copies: list[EdgeTrust] = []
        self.reset()

    def copy(self) -> EdgeTrust:
        """One that begins with what is known now and learns by itself; it forgets when this one does."""
        other = EdgeTrust()
        other.restore(self.state())
        self._copies.append(other)
        return other

    def reset(self) -> None:
        """Forgets what was learned."""
        for copy in self._copies:
            copy.reset()
        self.changes.reset()
        self._camera = _Replies()
        self._by_class: dict[int, _Replies] = {}  # by class of the edge answer
        self._last_s = -math.inf  # time of the newest frame that was replied to

    def learn(self, edge_class: int, server: NDArray[np.float32], weight: float, at_s: float) -> None:
        """A reply to a frame for whose scene the edge had found this class. `server`: (C,) its log-probabilities.
        `weight`: the fusion weight of the server's answer. `at_s`: time of the frame."""
        passed_s, self._last_s = max(0.0, at_s - self._last_s), max(at_s, self._last_s)
        weight = min(1.0, weight / _FULL_WEIGHT) * min(1.0, passed_s / _APART_S)
        odds = server[edge_class] - server.max()
        self._camera.add(bool(odds >= _PLAUSIBLE), weight)
        self._by_class.setdefault(edge_class, _Replies()).add(bool(odds >= 0), weight)

    def weight(self, edge_class: int) -> float:
        """Weight of an edge answer of this class beside a server answer, 0 to 1."""
        share = self._camera.share(_PRIOR_SHARE, _PRIOR_REPLIES)
        if (replies := self._by_class.get(edge_class)) is not None:
            share = replies.share(share, _CLASS_REPLIES)
        return _weight(share)

    @property
    def has_learned(self) -> bool:
        """Whether any reply counts."""
        return self._camera.all > 0

    def summary(self) -> dict[str, Any]:
        """What people are shown: `replies` that count, `plausible`: share of them to which the edge's class was
        plausible (None without replies), `weight` of an edge answer of a new class, `newest_only`: whether only the
        newest server answer is held where the edge is not believed."""
        camera = self._camera
        return {
            "replies": round(camera.all, 1),
            "plausible": round(camera.confirmed / camera.all, 3) if camera.all else None,
            "weight": round(_weight(camera.share(_PRIOR_SHARE, _PRIOR_REPLIES)), 3),
            "newest_only": self.changes.newest_only,
        }

    def state(self) -> dict[str, Any]:
        """What was learned, as plain JSON values; at most 64 classes."""
        classes = sorted(self._by_class.items(), key=lambda item: -item[1].all)[:_MAX_STORED]
        return {
            "camera": [self._camera.all, self._camera.confirmed],
            "classes": {str(each): [replies.all, replies.confirmed] for each, replies in classes},
            "changes": self.changes.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` returned. Raises ValueError for anything else; then nothing changes."""
        try:
            camera = _replies(state["camera"])
            classes = {_class_id(each): _replies(pair) for each, pair in state["classes"].items()}
            changes = ChangingAnswers()
            if "changes" in state:  # files of earlier versions have none
                changes.restore(state["changes"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no learned trust: {type(error).__name__}") from None
        if len(classes) > _MAX_STORED:
            raise ValueError(f"{len(classes)} classes; accepted: up to {_MAX_STORED}")
        self._camera, self._by_class, self._last_s = camera, classes, -math.inf
        self.changes = changes


def _weight(share: float) -> float:
    return min(1.0, max(0.0, (share - _LOW) / (_HIGH - _LOW)))


def _replies(pair: Any) -> _Replies:
    seen, confirmed = (float(each) for each in pair)
    if not 0 <= confirmed <= seen <= 2 * _MEMORY:
        raise ValueError(f"replies {seen:g}, confirmed {confirmed:g}; accepted: 0 to {2 * _MEMORY:g}, rising")
    return _Replies(seen, confirmed)


def _class_id(text: Any) -> int:
    if not (isinstance(text, str) and text.isascii() and text.isdecimal() and int(text) < _MAX_CLASS_ID):
        raise ValueError("a class is no number")
    return int(text)
