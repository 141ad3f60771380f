"""The rectangle of units that an image codec codes where not all of a picture is sent.

A selector's units lie all over a picture, and one with holes costs an image codec nearly what the whole one does. A
rectangle of units costs less, its place takes three bytes, and what it leaves out is what matters least.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import Units


def rectangle(order: Units, count: int, side: int) -> Units:
    """The rectangle of at most `count` units of a grid of side x side that has the best of `order`, best first.

    Returns its units, ascending. A unit is worth as many units as come after it. Of equals, the lowest rectangle.
    """
    sums = sums_of(_worth(order, side))
    shapes = [(height, min(side, count // height)) for height in range(1, min(side, count) + 1)]
    found = [best_place(sums, *shape) for shape in shapes]
    at = int(np.argmax([worth for worth, _, _ in found]))
    return _units(*found[at][1:], *shapes[at], side)


def placed(order: Units, height: int, width: int, side: int) -> Units:
    """As `rectangle`, of a given size."""
    _, top, left = best_place(sums_of(_worth(order, side)), height, width)
    return _units(top, left, height, width, side)


def sums_of(worth: NDArray[np.floating]) -> NDArray[np.float64]:
    """(S + 1, S + 1) of a grid (S, S): what all that lies above and to the left of a corner is worth."""
    sums = np.zeros((len(worth) + 1, len(worth) + 1))
    sums[1:, 1:] = worth.cumsum(0, dtype=np.float64).cumsum(1)
    return sums


def best_place(sums: NDArray[np.float64], height: int, width: int) -> tuple[float, int, int]:
    """The most that a rectangle of that size holds; its first row and column, of equals the first."""
    held = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(held.argmax()), held.shape[1])
    return float(held[top, left]), top, left


def _worth(order: Units, side: int) -> NDArray[np.float64]:
    worth = np.zeros(side**2)
    worth[order] = np.arange(side**2, side**2 - len(order), -1)
    return worth.reshape(side, side)


def _units(top: int, left: int, height: int, width: int, side: int) -> Units:
    return (np.arange(top, top + height)[:, None] * side + np.arange(left, left + width)).ravel()
