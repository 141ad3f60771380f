"""Overhead of a connection: charged, recorded, and charged again in a replay."""

from __future__ import annotations

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.connection_overhead import OverheadLog, OverheadReplay


def test_charges_are_taken_once() -> None:
    overhead = OverheadLog(UplinkBudget(1000, 1.0), recorded=True)
    assert overhead.charge(0.0, 300)
    assert not overhead.charge(0.5, 800)  # above the allowance
    assert overhead.charge(2.0, 800)
    assert overhead.take() == [(0.0, 300), (2.0, 800)]
    assert overhead.take() == []


def test_bits_above_the_limit_count_as_one_full_window() -> None:
    overhead = OverheadLog(UplinkBudget(1000, 1.0), recorded=True)
    assert overhead.charge(1.0, 5000)
    assert overhead.take() == [(1.0, 1000)]


def test_without_recording_no_charge_is_stored() -> None:
    overhead = OverheadLog(UplinkBudget(None, 1.0), recorded=False)
    assert overhead.charge(1.0, 5000)
    assert overhead.take() == []


def test_recorded_overhead_is_charged_at_its_time() -> None:
    budget, overhead = UplinkBudget(None, 1.0), OverheadReplay([[2.0, 30], [1.0, 20], [5.0, 50]])
    overhead.charge(budget, 0.5)
    assert budget.total_bits == 0
    overhead.charge(budget, 2.0)
    assert (budget.total_bits, budget.window_bits(2.0)) == (50, 50)
    overhead.charge(budget, 9.0)
    assert (budget.total_bits, budget.window_bits(5.5)) == (100, 50)
