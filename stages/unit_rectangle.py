"""Finds the rectangle of units with the best units in it: unit order and number of units in, units out. Pure.

Image codecs send such a rectangle where they do not send the whole picture. The best units lie all over a picture, and
a picture with holes costs an image codec nearly as many bytes as the whole picture. A rectangle costs less, its place
takes three bytes, and it leaves out the least important units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import Units


def best_rectangle(order: Units, count: int, side: int) -> Units:
    """The units, ascending, of the best rectangle of at most `count` units on a grid of side x side.

    `order`: units, best first. The first unit scores side**2, each next unit one less, units outside `order` 0. The
    best rectangle has the largest sum; of equal sums, the smallest height.
    """
    sums = corner_sums(_scores(order, side))
    shapes = [(height, min(side, count // height)) for height in range(1, min(side, count) + 1)]
    places = [best_place(sums, *shape) for shape in shapes]
    best = int(np.argmax([total for total, _, _ in places]))
    return _units(*places[best][1:], *shapes[best], side)


def best_rectangle_of(order: Units, height: int, width: int, side: int) -> Units:
    """As `best_rectangle`, for one height and width in units."""
    _, top, left = best_place(corner_sums(_scores(order, side)), height, width)
    return _units(top, left, height, width, side)


def corner_sums(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of a grid (S, S), the sums (S + 1, S + 1) of all values above and to the left of each corner."""
    sums = np.zeros((len(scores) + 1, len(scores) + 1))
    sums[1:, 1:] = scores.cumsum(0, dtype=np.float64).cumsum(1)
    return sums


def best_place(sums: NDArray[np.float64], height: int, width: int) -> tuple[float, int, int]:
    """Largest sum of a rectangle of this size, its first row and first column; of equal sums, the first."""
    totals = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(totals.argmax()), totals.shape[1])
    return float(totals[top, left]), top, left


def _scores(order: Units, side: int) -> NDArray[np.float64]:
    """(side, side): side**2 for the best unit, one less for each next unit, 0 for units that are not in `order`."""
    scores = np.zeros(side**2)
    scores[order] = np.arange(side**2, side**2 - len(order), -1)
    return scores.reshape(side, side)


def _units(top: int, left: int, height: int, width: int, side: int) -> Units:
    return (np.arange(top, top + height)[:, None] * side + np.arange(left, left + width)).ravel()
