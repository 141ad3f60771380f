"""A pace that changes while a run goes on: limits, prices, and what was learned."""

from __future__ import annotations

from sagelink.pipeline.budget.pace_control import PaceControl
from sagelink.pipeline.budget.quota import Quota, count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget

DAY = Quota("day", 2_400_000, every_s=86_400)


def test_each_pace_sets_what_the_budgets_grant_and_what_a_bit_costs():
    count = count_of(DAY)
    pacing = PaceControl({"": [count]})
    site, own = UplinkBudget(64_000, 1.0, [count]), UplinkBudget(None, 1.0, [count])
    for budget in (site, own):
        pacing.govern(budget, "")
    assert (site.bound_allowance(0.0), site.bit_price(0.0)) == (2_400_000, 0)
    pacing.change("even")
    assert site.bound_allowance(0.0) == own.bound_allowance(0.0) == 100_000
    assert site.charge(0.0, 60_000)
    pacing.change("adaptive")
    assert site.bound_allowance(0.0) == 2_340_000
    assert site.bit_price(0.0) > own.bit_price(0.0) == pacing.prices[""][0].latest_price
    pacing.change("as-needed")
    assert (site.bound_allowance(0.0), site.bit_price(0.0), pacing.prices) == (2_340_000, 0, {})


def test_what_an_adaptive_pace_has_learned_stays_and_is_not_learned_while_it_rests():
    count = count_of(DAY)
    pacing = PaceControl({"": [count]})
    budget = UplinkBudget(None, 1.0, [count])
    pacing.govern(budget, "")
    pacing.change("adaptive")
    for at_s in range(0, 36_000, 3600):
        budget.charge(at_s, 100_000)
        budget.bit_price(at_s)
    price, learned_s = budget.bit_price(36_000.0), pacing.adaptive[""][0].state().learned_s
    pacing.change("as-needed")
    assert not pacing.adaptive[""][0].in_use
    budget.charge(40_000.0, 500_000)
    pacing.change("adaptive")
    assert budget.bit_price(70_000.0) == price
    assert (pacing.adaptive[""][0].in_use, pacing.adaptive[""][0].state().learned_s) == (True, learned_s)
