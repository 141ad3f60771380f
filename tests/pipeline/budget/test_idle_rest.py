"""Bits for what can wait: evidence always finds half of the window, and a quota its even pace."""

from __future__ import annotations

from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.idle_rest import idle_bits
from sagelink.pipeline.budget.quota import Moment, Quota, count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget

DAY_S = 86_400.0
MIDNIGHT_S = 1_800_057_600.0  # of a day in UTC


def test_a_window_that_is_mostly_free_gives_its_first_half():
    budget = UplinkBudget(1000, 2.0)
    assert idle_bits(budget, 0.0) == 1000
    budget.charge(0.0, 500)
    assert idle_bits(budget, 0.1) == 500
    budget.charge(0.1, 1)
    assert idle_bits(budget, 0.2) == 0
    assert idle_bits(budget, 2.2) == 1000


def test_without_a_limit_there_is_none():
    assert idle_bits(UplinkBudget(None, 1.0), 0.0) is None


def test_a_calendar_quota_gives_what_an_even_pace_would_have_spent():
    count = count_of(Quota("day", 1000, Calendar("day")))
    budget = UplinkBudget(None, 1.0, [count], lambda now_s: Moment(now_s, MIDNIGHT_S + now_s))
    assert idle_bits(budget, 0.0) == 0
    assert idle_bits(budget, DAY_S / 4) == 250
    budget.charge(DAY_S / 4, 240)
    assert idle_bits(budget, DAY_S / 4) == 10
    budget.charge(DAY_S / 4, 400)
    assert idle_bits(budget, DAY_S / 2) == 0
    assert idle_bits(budget, DAY_S * 0.75) == 110


def test_a_rolling_quota_gives_its_first_half():
    budget = UplinkBudget(None, 1.0, [count_of(Quota("h", 1000, every_s=3600.0))])
    budget.charge(0.0, 300)
    assert idle_bits(budget, 1.0) == 200
    assert idle_bits(budget, 3700.0) == 500
