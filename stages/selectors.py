"""Selectors: pure functions from the importance and embeddings of units to units, best first.

A selector takes `importance` (N,) and `embeddings` (N, D), both finite, and the number of units to pick. It returns
min(count, N) distinct row-major unit indices. Any prefix of the result is a good selection. Ties go to the lower index.
It raises ValueError for other shapes, a count below 1, or values that are not finite.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.types import Units

Floats = NDArray[np.float32]

_CHUNK = 128  # columns that `coverage` updates at once: they stay in the processor's cache


class Selector(Protocol):
    def __call__(self, importance: Floats, embeddings: Floats, count: int, *, seed: int) -> Units:
        """`seed` differs from frame to frame; only selectors that draw at random use it."""
        ...


def sage(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Importance filtering, then embedding diversity (SAGE, Choi & Park, arXiv:2604.19623).

    The pool is the 2 x count units of highest importance (all, when that is N or more). The first pick is the most
    important unit; each next pick is the unit of the pool whose largest cosine similarity to the picks so far is
    smallest.
    """
    count = _checked(importance, embeddings, count)
    pool = np.sort(_descending(importance)[: 2 * count])
    first = int(importance[pool].argmax())
    return pool[_farthest(_unit_length(embeddings[pool]), first, count)]


def topk(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """The units of highest importance."""
    count = _checked(importance, embeddings, count)
    return _descending(importance)[:count]


def uniform(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Units spread evenly over the grid: farthest-point sampling of positions from the centre on (Eldar, 1997)."""
    count = _checked(importance, embeddings, count)
    side = math.isqrt(len(importance))
    if side * side != len(importance):
        raise ValueError(f"{len(importance)} units are not a square grid")
    rows, columns = np.divmod(np.arange(side * side), side)
    squared = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    picks = np.empty(count, np.intp)
    pick = (side // 2) * side + side // 2
    nearest = squared[pick]
    for i in range(count):
        picks[i] = pick
        nearest = np.minimum(nearest, squared[pick])
        nearest[pick] = -1
        pick = int(nearest.argmax())
    return picks


def random(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Units drawn at random, with equal probability."""
    count = _checked(importance, embeddings, count)
    return np.random.default_rng(seed).permutation(len(importance))[:count].astype(np.intp)


def fps(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Diversity alone: SAGE with every unit in its pool (farthest-point sampling, Gonzalez, 1985)."""
    count = _checked(importance, embeddings, count)
    return _farthest(_unit_length(embeddings), int(importance.argmax()), count)


def coverage(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Important units that resemble many others (greedy facility location, Nemhauser et al., 1978).

    A step picks the units with the largest importance x summed gain in best similarity over all N units; similarity is
    the cosine of mean-centred embeddings, clipped at 0. A step takes one unit, after n picks n / 8 or n * n / 512
    units where this is more: later gains are small. When no gain is left, the other units follow by importance.
    """
    count = _checked(importance, embeddings, count)
    directions = _unit_length(embeddings - embeddings.mean(0))
    similarity = directions @ directions.T
    np.maximum(similarity, 0, out=similarity)
    weight = np.maximum(importance, 0)
    best = np.zeros(len(similarity), similarity.dtype)
    gain = similarity.sum(1)
    picks = np.empty(0, np.intp)
    total = np.empty((1 + min(_CHUNK, len(gain)), len(gain)), gain.dtype)  # row 0: sum of the losses so far
    losses = total[1:]
    while len(picks) < count:
        score = weight * gain
        step = _descending(score)[: max(1, len(picks) // 8, len(picks) ** 2 // 512)]
        step = step[score.take(step) > 0]
        if not len(step):
            rest = _descending(importance)
            picks = np.concatenate([picks, rest[~np.isin(rest, picks)]])
            break
        picks = np.concatenate([picks, step])
        weight[step] = 0
        # The picks change the gain of other units only in the columns that they improve; the matrix is symmetric.
        better = np.maximum(np.maximum.reduce(similarity.take(step, 0)), best)
        total[0] = 0
        improved = (better > best).nonzero()[0]
        for start in range(0, len(improved), _CHUNK):
            columns = improved[start : start + _CHUNK]
            before, lost = best.take(columns)[:, None], losses[: len(columns)]
            similarity.take(columns, 0, out=lost, mode="clip")  # this mode writes to `out` without a copy
            np.maximum(lost, before, out=lost)
            np.minimum(lost, better.take(columns)[:, None], out=lost)
            lost -= before
            total[0] = np.add.reduce(total[: 1 + len(columns)])
        gain -= total[0]
        best = better
    return picks[:count]


def mmr(importance: Floats, embeddings: Floats, count: int, *, seed: int = 0) -> Units:
    """Maximal marginal relevance (Carbonell & Goldstein, 1998): importance against redundancy, equally weighted.

    Each pick has the largest value of importance, scaled to 0..1, minus the largest cosine similarity to the picks so
    far (0 before the first pick).
    """
    count = _checked(importance, embeddings, count)
    directions = _unit_length(embeddings)
    similarity = directions @ directions.T
    spread = importance.max() - importance.min()
    relevance = (importance - importance.min()) / (spread if spread > 0 else 1)
    picks = np.empty(count, np.intp)
    closest = np.zeros(len(similarity), similarity.dtype)
    for i in range(count):
        pick = int((relevance - closest).argmax())
        picks[i] = pick
        closest = similarity[pick].copy() if i == 0 else np.maximum(closest, similarity[pick])
        closest[picks[: i + 1]] = np.inf
    return picks


SELECTORS: dict[str, Selector] = {
    "coverage": coverage,
    "sage": sage,
    "topk": topk,
    "mmr": mmr,
    "fps": fps,
    "uniform": uniform,
    "random": random,
}


def register_selector(name: str, selector: Selector) -> None:
    """Makes a selector available to configurations under `name`."""
    SELECTORS[name] = selector


def selector_by_name(name: str) -> Selector:
    """The selector of that name. Raises UsageError for an unknown name."""
    if name not in SELECTORS:
        accepted = ", ".join(SELECTORS)
        raise UsageError(
            f"select.selector: unknown selector {name!r}{suggest(name, [*SELECTORS])}; accepted: {accepted}"
        )
    return SELECTORS[name]


def _checked(importance: Floats, embeddings: Floats, count: int) -> int:
    """Checks the arguments of a selector and returns the number of units to pick. Raises ValueError."""
    if importance.ndim != 1 or embeddings.ndim != 2 or not 0 < len(importance) == len(embeddings):
        raise ValueError(f"importance {importance.shape} and embeddings {embeddings.shape}; accepted: (N,) and (N, D)")
    if count < 1:
        raise ValueError(f"count is {count}; accepted: 1 or more")
    if not (np.isfinite(importance).all() and np.isfinite(embeddings).all()):
        raise ValueError("importance or embeddings have values that are not finite")
    return min(count, len(importance))


def _descending(values: Floats) -> Units:
    """Places of (N,) values, the largest first."""
    return (-values).argsort(kind="stable")


def _unit_length(embeddings: Floats) -> Floats:
    """L2-normalised rows; a row of zeros stays zero, so its similarity to every row is 0."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    directions: Floats = embeddings / lengths
    return directions


def _farthest(directions: Floats, first: int, count: int) -> Units:
    """Farthest-point sampling by cosine similarity (Gonzalez, 1985) over `directions` (M, D) of unit length."""
    similarity = directions @ directions.T
    picks = np.empty(count, np.intp)
    closest = np.full(len(directions), -np.inf, similarity.dtype)
    pick = first
    for i in range(count):
        picks[i] = pick
        np.maximum(closest, similarity[pick], out=closest)
        closest[pick] = np.inf
        pick = int(closest.argmin())
    return picks
