"""The window: the part of a picture that an image codec codes where not all of it is sent.

A selector's units lie all over a picture, and one with holes costs an image codec nearly what the whole one does. A
rectangle of units costs less, its place takes three bytes, and what it leaves out is what matters least.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Units


def window(order: Units, count: int, side: int) -> Units:
    """The rectangle of at most `count` units of a grid of side x side that has the best of `order`, best first.

    Returns its units, ascending. A unit is worth as many units as come after it. Of equals, the lowest rectangle.
    """
    sums = _sums(order, side)
    shapes = [(height, min(side, count // height)) for height in range(1, min(side, count) + 1)]
    found = [_best(sums, *shape) for shape in shapes]
    at = int(np.argmax([worth for worth, _, _ in found]))
    return _units(*found[at][1:], *shapes[at], side)


def placed(order: Units, height: int, width: int, side: int) -> Units:
    """As `window`, of a rectangle of given size."""
    _, top, left = _best(_sums(order, side), height, width)
    return _units(top, left, height, width, side)


def _sums(order: Units, side: int) -> NDArray[np.float64]:
    """(side + 1, side + 1): what all units above and to the left of a corner of the grid are worth."""
    worth = np.zeros(side**2)
    worth[order] = np.arange(side**2, side**2 - len(order), -1)
    sums = np.zeros((side + 1, side + 1))
    sums[1:, 1:] = worth.reshape(side, side).cumsum(0).cumsum(1)
    return sums


def _best(sums: NDArray[np.float64], height: int, width: int) -> tuple[float, int, int]:
    """The most that a rectangle holds; its first row and column."""
    held = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(held.argmax()), held.shape[1])
    return float(held[top, left]), top, left


def _units(top: int, left: int, height: int, width: int, side: int) -> Units:
    return (np.arange(top, top + height)[:, None] * side + np.arange(left, left + width)).ravel()
