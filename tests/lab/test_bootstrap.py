"""Bootstrap intervals against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.bootstrap import Bootstrap

BOOT = Bootstrap.over(400, seed=0)
HALF = np.arange(400) % 2 == 0


def test_a_share_has_the_interval_of_a_binomial():
    share, (low, high) = BOOT.share(HALF)
    assert share == 0.5
    spread = 1.96 * (0.25 / 400) ** 0.5
    assert low == pytest.approx(0.5 - spread, abs=0.012)
    assert high == pytest.approx(0.5 + spread, abs=0.012)


def test_only_the_chosen_pictures_count():
    among = np.arange(400) < 100
    share, (low, high) = BOOT.share(among, among)
    assert (share, low, high) == (1.0, 1.0, 1.0)
    assert BOOT.share(HALF, np.zeros(400, bool)) is None
    assert BOOT.difference(HALF, HALF, np.zeros(400, bool)) is None


def test_pairs_stay_pairs():
    """Two selectors that differ on four pictures: the interval is that of the four, not of two independent samples."""
    better = HALF.copy()
    better[[1, 3, 5, 7]] = True
    value, (low, high) = BOOT.difference(better, HALF)
    assert value == pytest.approx(0.01)
    assert 0 <= low < 0.01 < high < 0.025
    assert BOOT.difference(HALF, HALF) == (0.0, (0.0, 0.0))


def test_the_same_seed_draws_the_same():
    assert (Bootstrap.over(30, 5).counts == Bootstrap.over(30, 5).counts).all()
    assert (Bootstrap.over(30, 5).counts.sum(1) == 30).all()
