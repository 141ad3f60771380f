"""A month of quotas in virtual time, from a demand by price."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.plan.month import SITE, Demand, MonthOutcome, play_month
from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.pacing import PaceName
from sagelink.pipeline.budget.quota import Quota

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


def played(quotas: list[Quota], pace: PaceName) -> MonthOutcome:
    return play_month({SITE: demand()}, {SITE: quotas}, pace, START_S, LENGTH_S)


def test_as_needed_spends_the_quota_first_and_adaptive_makes_it_last() -> None:
    needed, even, adaptive = (played(month(210), pace) for pace in ("as-needed", "even", "adaptive"))
    assert needed.gone_s == pytest.approx(14.7 * 86_400, rel=0.01)
    assert even.gone_s == pytest.approx(30.8 * 86_400, rel=0.01)
    for outcome in (needed, even, adaptive):
        assert 0.97 * 210 <= outcome.used_bits / 8e6 <= 210.001
        assert len(outcome.days_bits) == 31
    assert adaptive.right > max(needed.right, even.right) + 0.02


def test_with_more_than_enough_all_paces_give_the_same() -> None:
    outcomes = [played(month(5000), pace) for pace in ("as-needed", "adaptive")]
    assert [outcome.gone_s for outcome in outcomes] == [None, None]
    assert outcomes[0].right == pytest.approx(0.8)
    assert outcomes[1].right == pytest.approx(0.8, abs=0.005)


def test_a_second_quota_limits_each_day() -> None:
    quotas = [*month(210), Quota("day", 8 * 3_000_000, Calendar("day"))]
    outcome = played(quotas, "adaptive")
    assert max(outcome.days_bits) <= 8 * 3_000_000 + 24
    assert outcome.used_bits >= 0.95 * 31 * 8 * 3_000_000


def test_the_quota_of_one_camera_limits_this_camera_and_the_quota_of_the_site_limits_both() -> None:
    both = {SITE: demand(), "door": demand()}
    own = {"door": month(30)}
    outcome = play_month(both, own, "as-needed", START_S, LENGTH_S)
    alone = played([], "as-needed").used_bits
    assert outcome.used_bits == pytest.approx(alone + 30 * 8e6, rel=0.001)
    assert outcome.gone_s == pytest.approx(30 / 14.3 * 86_400, rel=0.2)
    limited = play_month(both, own | {SITE: month(100)}, "adaptive", START_S, LENGTH_S)
    assert 0.97 * 100 <= limited.used_bits / 8e6 <= 100.001
