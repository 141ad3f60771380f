"""The budget as a connection sees it: charges that are held until their bits leave, room, reserve, and a replay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import LedgerReplay, WireLedger


def test_a_held_charge_leaves_the_window_one_window_after_it_was_settled():
    budget = UplinkBudget(1000, 1.0)
    assert budget.charge(0.0, 600)
    budget.hold(0.0, 600)
    assert (budget.window_bits(5.0), budget.allowance(5.0), budget.room(5.0)) == (600, 400, 1000)
    budget.settle(5.0, 200)
    budget.settle(5.5, 400)
    assert (budget.window_bits(5.9), budget.room(5.9)) == (600, 400)
    assert budget.window_bits(6.2) == 400
    assert (budget.window_bits(7.0), budget.total_bits, budget.peak_window_bits) == (0, 600, 600)


def test_room_later_is_room_without_what_leaves_the_window_by_then():
    budget = UplinkBudget(1000, 1.0)
    budget.charge_sent(0.0, 300)
    budget.charge_sent(0.4, 200)
    assert [budget.room(0.5, later_s) for later_s in (0.0, 0.4, 0.6, 1.0)] == [500, 500, 800, 1000]
    assert budget.room(0.5) == 500


def test_only_the_last_charge_is_held():
    budget = UplinkBudget(1000, 1.0)
    assert budget.charge(0.0, 300)
    assert budget.charge(0.5, 200)
    budget.hold(0.5, 200)
    assert budget.window_bits(1.1) == 200
    assert budget.window_bits(9.0) == 200


def test_a_reserve_lowers_the_allowance_and_not_the_room():
    budget = UplinkBudget(1000, 1.0)
    budget.reserve(300)
    assert (budget.allowance(0.0), budget.room(0.0)) == (700, 1000)
    assert not budget.charge(0.0, 701)
    budget.reserve(0)
    assert budget.charge(0.0, 701)


@given(
    st.lists(
        st.tuples(st.floats(0, 0.7), st.sampled_from(["message", "piece", "own"]), st.integers(0, 700)), max_size=80
    )
)
def test_no_window_of_the_wire_exceeds_the_limit(steps):
    """A sender that asks for room before each piece: whatever it sends when, by messages or by itself."""
    budget, now_s, held, wire = UplinkBudget(1000, 1.0), 0.0, 0, []
    for wait_s, kind, bits in steps:
        now_s += wait_s
        if kind == "message":
            if budget.charge(now_s, bits):
                budget.hold(now_s, bits)
                held += bits
        elif bits <= (budget.room(now_s) or 0):
            paid = min(bits, held) if kind == "piece" else 0
            held -= paid
            budget.settle(now_s, paid)
            budget.charge_sent(now_s, bits - paid)
            wire.append((now_s, bits))
        for start_s, _ in wire:
            assert sum(sent for at_s, sent in wire if start_s <= at_s < start_s + 1.0) <= 1000
    assert budget.total_bits >= sum(bits for _, bits in wire)


def test_entries_are_taken_once_and_a_replay_makes_them_again():
    clock = iter((0.0, 1.0, 1.5, 2.0, 2.5))
    budget = UplinkBudget(1000, 1.0)
    ledger = WireLedger(budget, lambda: next(clock), recorded=True)
    ledger.charge(300)
    assert budget.charge(1.0, 500)
    ledger.hold("", 500)
    ledger.reserve(100)
    ledger.reserve(100)  # no change, no entry
    ledger.settle("", 200)
    entries = ledger.take()
    assert entries == [
        (0.0, 300, "charge", ""),
        (1.0, 500, "hold", ""),
        (1.5, 100, "reserve", ""),
        (2.0, 200, "settle", ""),
    ]
    assert ledger.take() == []
    again, replay = UplinkBudget(1000, 1.0), LedgerReplay(entries)
    replay.enter(again, {}, 1.0)
    assert again.charge(1.0, 500)
    replay.enter(again, {}, 9.0)
    for now_s in (2.0, 2.5, 3.5, 9.0):
        assert again.allowance(now_s) == budget.allowance(now_s)
    assert again.total_bits == budget.total_bits == 800


def test_without_recording_no_entry_is_stored():
    ledger = WireLedger(UplinkBudget(None, 1.0), lambda: 0.0)
    ledger.charge(5000)
    assert ledger.take() == []
