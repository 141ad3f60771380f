"""What a connection itself takes of the budget, and the same again."""

from __future__ import annotations

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.overhead import OverheadLog, OverheadReplay


def test_what_is_charged_is_taken_once() -> None:
    overhead = OverheadLog(UplinkBudget(1000, 1.0), recorded=True)
    assert overhead.charge(0.0, 300)
    assert not overhead.charge(0.5, 800)  # no room now
    assert overhead.charge(2.0, 800)
    assert overhead.take() == [(0.0, 300), (2.0, 800)]
    assert overhead.take() == []


def test_more_than_a_window_holds_takes_a_whole_one() -> None:
    overhead = OverheadLog(UplinkBudget(1000, 1.0), recorded=True)
    assert overhead.charge(1.0, 5000)
    assert overhead.take() == [(1.0, 1000)]


def test_nothing_is_kept_where_nobody_takes_it() -> None:
    overhead = OverheadLog(UplinkBudget(None, 1.0), recorded=False)
    assert overhead.charge(1.0, 5000)
    assert overhead.take() == []


def test_recorded_tolls_are_charged_when_their_time_has_come() -> None:
    budget, overhead = UplinkBudget(None, 1.0), OverheadReplay([[2.0, 30], [1.0, 20], [5.0, 50]])
    overhead.charge(budget, 0.5)
    assert budget.total_bits == 0
    overhead.charge(budget, 2.0)
    assert (budget.total_bits, budget.window_bits(2.0)) == (50, 50)
    overhead.charge(budget, 9.0)
    assert (budget.total_bits, budget.window_bits(5.5)) == (100, 50)
