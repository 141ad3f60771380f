"""The pace of a quota: the price of a bit, the plan of the day, hourly parts, and the price of a window."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.pacing import (
    HIGHEST_PRICE,
    LOWEST_PRICE,
    AdaptivePace,
    EvenPace,
    PaceState,
    window_price,
)
from sagelink.pipeline.budget.quota import Moment, Quota, count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget

START_S = 1_772_323_200.0  # 2026-03-01, 00:00 UTC
DAY_S = 86_400.0
MONTH = Quota("month", 31_000_000, Calendar("month"))
ROLLING = Quota("day", 1_000_000, every_s=DAY_S)


def at(seconds: float) -> Moment:
    return Moment(seconds, START_S + seconds)


def spend(pace: AdaptivePace, demand, days: float, step_s: float = 300.0, from_s: float = 0.0) -> list[float]:
    """Spends `demand(second, price)` in each step, as far as the quota allows; returns the prices."""
    prices = []
    for number in range(int(days * DAY_S / step_s)):
        second = from_s + number * step_s
        price = pace.price(at(second))
        prices.append(price)
        allowed = pace.count.allowance(at(second))
        pace.count.add(at(second), min(allowed, round(demand(second, price) * step_s)))
    return prices


def elastic(second: float, price: float) -> float:
    """bit/s; at 1e-6 five times the quota of a month, and less at a higher price; three times as much by day."""
    by_day = 1.5 if 6 <= second / 3600 % 24 < 18 else 0.5
    return 5 * 1_000_000 / DAY_S * by_day * (1e-6 / price) ** 0.7


@pytest.mark.parametrize("quota", [MONTH, ROLLING])
def test_a_price_spends_the_whole_quota_and_never_more(quota: Quota) -> None:
    pace = AdaptivePace(count_of(quota))
    prices = spend(pace, elastic, 31)
    assert 0.97 * 31_000_000 <= pace.count.counted_bits <= 31_000_000 * 1.001
    assert all(LOWEST_PRICE <= price <= HIGHEST_PRICE for price in prices)


def test_the_price_is_nearly_even_once_the_day_is_learned() -> None:
    pace = AdaptivePace(count_of(MONTH))
    prices = spend(pace, elastic, 20)
    last = prices[-3 * 288 :]
    assert max(last) / min(last) < 1.6
    state = pace.state()
    rates = [bits / seen_s for bits, seen_s in zip(state.hour_bits, state.hour_seen_s, strict=True)]
    assert sum(rates[6:18]) > 2 * (sum(rates) - sum(rates[6:18]))


def test_without_demand_the_price_falls_and_with_too_much_it_rises() -> None:
    idle, busy = AdaptivePace(count_of(MONTH)), AdaptivePace(count_of(MONTH))
    assert spend(idle, lambda second, price: 0.0, 5)[-1] == pytest.approx(LOWEST_PRICE)
    prices = spend(busy, lambda second, price: 200.0, 0.25)
    assert prices[-1] > 10 * prices[0]


def test_what_was_learned_goes_on_after_a_restart() -> None:
    before = AdaptivePace(count_of(MONTH))
    spend(before, elastic, 3)
    after = AdaptivePace(count_of(MONTH))
    after.restore(before.state())
    after.count.restore(at(3 * DAY_S), before.count.used_bits(at(3 * DAY_S)))
    assert after.price(at(3 * DAY_S)) == pytest.approx(before.latest_price)
    assert after.state() == before.state()


def test_a_stored_price_outside_of_its_range_is_limited() -> None:
    pace = AdaptivePace(count_of(MONTH))
    pace.restore(replace(pace.state(), price=math.inf))
    assert pace.latest_price == pytest.approx(HIGHEST_PRICE)
    assert isinstance(pace.state(), PaceState)


def test_bits_of_other_processes_raise_the_price() -> None:
    pace, alone = AdaptivePace(count_of(MONTH)), AdaptivePace(count_of(MONTH))
    for each in (pace, alone):
        each.price(at(0))
    pace.count.restore(at(600), 2_000_000)
    assert pace.price(at(600)) > alone.price(at(600))


def test_even_releases_a_quota_hour_by_hour() -> None:
    count = count_of(MONTH)
    even = EvenPace(count)
    part = 31_000_000 // (31 * 24)
    assert even.allowance(at(0)) == even.allowance(at(3599)) == part
    count.add(at(10), part)
    assert even.allowance(at(3599)) == 0
    assert even.allowance(at(3 * 3600)) == pytest.approx(3 * part, abs=2)  # what hours leave is not lost
    assert even.allowance(at(31 * DAY_S - 1)) == 31_000_000 - part


def test_even_releases_a_rolling_quota_in_24_parts() -> None:
    even = EvenPace(count_of(ROLLING))
    assert even.allowance(at(0)) == 1_000_000 // 24
    even.add(at(0), 41_666)
    assert even.allowance(at(1)) == 0
    assert even.allowance(at(3600)) == pytest.approx(41_667, abs=2)
    assert even.allowance(at(10 * DAY_S)) == 1_000_000


def test_the_last_bits_of_a_window_have_the_highest_price() -> None:
    prices = [window_price(used, 640_000) for used in (0, 160_000, 320_000, 640_000)]
    assert prices == sorted(prices)
    assert prices[-1] == pytest.approx(1000 * prices[0])


def test_a_budget_adds_the_prices_of_its_quotas_and_of_its_window() -> None:
    budget = UplinkBudget(64_000, 10.0)
    assert budget.bit_price(0.0) == 0
    pace = AdaptivePace(count_of(ROLLING))
    budget.pacers, budget.prices_window = [pace], True
    assert budget.bit_price(0.0) == pytest.approx(pace.latest_price + window_price(0, 640_000))
    budget.charge(0.0, 320_000)
    assert budget.bit_price(0.0) == pytest.approx(pace.latest_price + window_price(320_000, 640_000))
