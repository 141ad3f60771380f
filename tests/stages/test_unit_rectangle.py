"""The rectangle with the best units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.stages.unit_rectangle import best_rectangle, best_rectangle_of


def cells(units: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """First row, number of rows, first column and number of columns of a rectangle of units."""
    y, x = np.divmod(units, side)
    assert len(units) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
    assert (np.diff(units) > 0).all()
    return int(y[0]), int(np.ptp(y)) + 1, int(x[0]), int(np.ptp(x)) + 1


def test_a_rectangle_is_where_the_best_units_are() -> None:
    block = (np.arange(5, 8)[:, None] * 14 + np.arange(2, 11)).ravel()  # 3 x 9
    order = np.concatenate([block, np.setdiff1d(np.arange(196), block)])
    assert cells(best_rectangle(order, 27, 14), 14) == (5, 3, 2, 9)
    assert set(block) < set(best_rectangle(order, 60, 14).tolist())


def test_all_units_are_the_whole_grid() -> None:
    assert best_rectangle(np.random.default_rng(0).permutation(196), 196, 14).tolist() == list(range(196))


def test_units_outside_the_order_score_nothing() -> None:
    assert cells(best_rectangle(np.array([30, 31, 45]), 4, 14), 14) == (2, 2, 2, 2)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.data())
def test_no_rectangle_of_as_many_units_scores_more(side: int, seed: int, data: st.DataObject) -> None:
    order = np.random.default_rng(seed).permutation(side**2)
    count = data.draw(st.integers(1, side**2))
    score = np.empty(side**2)
    score[order] = np.arange(side**2, 0, -1)
    found = best_rectangle(order, count, side)
    _, rows, _, columns = cells(found, side)
    assert len(found) <= count
    for height in range(1, side + 1):
        for width in range(1, min(side, count // height) + 1):
            assert score[best_rectangle_of(order, height, width, side)].sum() <= score[found].sum()
    assert best_rectangle(order, len(found), side).tolist() == found.tolist()
    assert best_rectangle_of(order, rows, columns, side).tolist() == found.tolist()


@pytest.mark.parametrize("shape", [(1, 14), (14, 1), (3, 5), (14, 14)])
def test_a_rectangle_of_a_given_size_is_at_the_best_place(shape: tuple[int, int]) -> None:
    order = np.random.default_rng(2).permutation(196)
    score = np.empty((14, 14))
    score.flat[order] = np.arange(196, 0, -1)
    top, rows, left, columns = cells(best_rectangle_of(order, *shape, 14), 14)
    assert (rows, columns) == shape
    best = max(score[y : y + rows, x : x + columns].sum() for y in range(15 - rows) for x in range(15 - columns))
    assert score[top : top + rows, left : left + columns].sum() == best
