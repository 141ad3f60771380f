"""Bootstrap intervals against known results."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.bootstrap_intervals import Bootstrap

BOOTSTRAP = Bootstrap.over(400, seed=0)
HALF = np.arange(400) % 2 == 0


def test_interval_of_a_share_is_binomial():
    share, (low, high) = BOOTSTRAP.share(HALF)
    assert share == 0.5
    half_width = 1.96 * (0.25 / 400) ** 0.5
    assert low == pytest.approx(0.5 - half_width, abs=0.012)
    assert high == pytest.approx(0.5 + half_width, abs=0.012)


def test_only_the_subset_counts():
    subset = np.arange(400) < 100
    share, (low, high) = BOOTSTRAP.share(subset, subset)
    assert (share, low, high) == (1.0, 1.0, 1.0)
    assert BOOTSTRAP.share(HALF, np.zeros(400, bool)) is None
    assert BOOTSTRAP.difference(HALF, HALF, np.zeros(400, bool)) is None


def test_differences_are_paired():
    """Two selectors differ on four images: the interval follows from these four, not from two independent samples."""
    better = HALF.copy()
    better[[1, 3, 5, 7]] = True
    value, (low, high) = BOOTSTRAP.difference(better, HALF)
    assert value == pytest.approx(0.01)
    assert 0 <= low < 0.01 < high < 0.025
    assert BOOTSTRAP.difference(HALF, HALF) == (0.0, (0.0, 0.0))


def test_same_seed_gives_same_resamples():
    assert (Bootstrap.over(30, 5).counts == Bootstrap.over(30, 5).counts).all()
    assert (Bootstrap.over(30, 5).counts.sum(1) == 30).all()
