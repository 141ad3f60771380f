"""Ranks frames by how much a label of them would teach: answers in, the most useful frames first out.

A frame is useful when its two best classes are close (margin), when edge and server disagree, and when it is unlike the
pictures that have a label or stand before it in the list (novelty). Novelty keeps near-identical frames of a fixed
camera apart: without it, the list would show one moment many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.monitor.labelling.folder import FrameKey

_WEIGHTS = {"margin": 0.5, "disagreement": 0.3, "novelty": 0.4}
_FAR = 0.3  # cosine distance of two class tokens: such frames show different things
_CLOSE, _NEW = 0.5, 0.6  # a margin below and a novelty above are named as reasons


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A frame that may be labelled, with what the models said about it."""

    frame: FrameKey
    token: NDArray[np.float32] | None  # (D,) class token of the edge, of length 1
    label: str | None  # of the verdict; None without an answer
    prob: float
    second: str | None  # the class that comes next
    margin: float | None  # probability of the best class over that of the second; None where classes are not the user's
    disagreement: bool  # edge and server name different classes
    unknown: bool  # none of the classes


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate at its place in the list, with the reasons for people."""

    candidate: Candidate
    score: float
    reasons: tuple[str, ...]


def unit_token(token: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D,) scaled to length 1."""
    return (token / max(float(np.linalg.norm(token)), 1e-12)).astype(np.float32)


def rank(candidates: Sequence[Candidate], known: Sequence[NDArray[np.float32]], count: int) -> list[Ranked]:
    """The `count` most useful candidates, best first. `known`: tokens (D,) of pictures that have a label."""
    if not candidates:
        return []
    base = np.array([_base(each) for each in candidates])
    size = next((len(each.token) for each in candidates if each.token is not None), 1)
    tokens = np.stack([np.zeros(size, np.float32) if each.token is None else each.token for each in candidates])
    nearest = np.full(len(candidates), np.inf)  # cosine distance to the nearest known or chosen token
    for token in known:
        if len(token) == size:
            nearest = np.minimum(nearest, 1 - tokens @ token)
    chosen: list[Ranked] = []
    free = np.ones(len(candidates), bool)
    for _ in range(min(count, len(candidates))):
        novelty = np.clip(nearest / _FAR, 0, 1)
        scores = np.where(free, base + _WEIGHTS["novelty"] * novelty, -np.inf)
        place = int(scores.argmax())
        each = candidates[place]
        chosen.append(Ranked(each, round(float(scores[place]), 4), _reasons(each, float(novelty[place]))))
        free[place] = False
        if each.token is not None:
            nearest = np.minimum(nearest, 1 - tokens @ each.token)
    return chosen


def _base(each: Candidate) -> float:
    margin = 0.0 if each.margin is None else 1 - each.margin
    if each.unknown:
        margin = 1.0
    return _WEIGHTS["margin"] * margin + _WEIGHTS["disagreement"] * each.disagreement


def _reasons(each: Candidate, novelty: float) -> tuple[str, ...]:
    found = []
    if each.unknown:
        found.append("none of the classes")
    elif each.margin is not None and each.margin < _CLOSE and each.second is not None:
        found.append(f"{each.label} or {each.second}?")
    if each.disagreement:
        found.append("edge and server disagree")
    if novelty > _NEW:
        found.append("unlike the others")
    return tuple(found)
