"""A month of quotas in virtual time, from a demand by price."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.month import Demand, play_month
from sagelink.pipeline.calendar_periods import Calendar
from sagelink.pipeline.quota import Quota

START_S, LENGTH_S = 1_772_323_200.0, 31 * 86_400.0  # March 2026
PRICES = np.array([0.0, 1e-8, 1e-6, 1e-4])


def demand() -> Demand:
    """An hour by day and an hour at night: 100 frames, 50 right alone. Half of the bits bring four fifths of the
    gain."""
    hours = np.arange(24)
    busy = np.where((hours > 6) & (hours < 20), 1.0, 0.1)
    gains, bits = np.array([30.0, 30.0, 24.0, 0.0]), np.array([8e6, 8e6, 4e6, 0.0])
    frames = 100 * busy
    right = 0.5 * frames + gains[:, None] * busy
    return Demand(3600.0, PRICES, bits[:, None] * busy, right, gains[:, None] * busy, frames, 0.5 * frames)


def month(megabytes: float) -> list[Quota]:
    return [Quota("month", round(8e6 * megabytes), Calendar("month"))]


def test_as_needed_spends_the_quota_first_and_adaptive_makes_it_last() -> None:
    needed, even, adaptive = (
        play_month(demand(), month(210), pace, START_S, LENGTH_S) for pace in ("as-needed", "even", "adaptive")
    )
    assert needed.gone_s == pytest.approx(14.7 * 86_400, rel=0.01)
    assert even.gone_s == pytest.approx(30.8 * 86_400, rel=0.01)
    for outcome in (needed, even, adaptive):
        assert 0.97 * 210 <= outcome.used_bits / 8e6 <= 210.001
        assert len(outcome.days_bits) == 31
    assert adaptive.right > max(needed.right, even.right) + 0.02


def test_with_more_than_enough_all_paces_give_the_same() -> None:
    outcomes = [play_month(demand(), month(5000), pace, START_S, LENGTH_S) for pace in ("as-needed", "adaptive")]
    assert [outcome.gone_s for outcome in outcomes] == [None, None]
    assert outcomes[0].right == pytest.approx(0.8)
    assert outcomes[1].right == pytest.approx(0.8, abs=0.005)


def test_a_second_quota_limits_each_day() -> None:
    quotas = [*month(210), Quota("day", 8 * 3_000_000, Calendar("day"))]
    outcome = play_month(demand(), quotas, "adaptive", START_S, LENGTH_S)
    assert max(outcome.days_bits) <= 8 * 3_000_000 + 24
    assert outcome.used_bits >= 0.95 * 31 * 8 * 3_000_000
