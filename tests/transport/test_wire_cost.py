"""Bits that leave are paid by messages first, then by the connection; and what cannot be connected is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.wire_cost import WireCharger


def charger_of(budget: UplinkBudget) -> WireCharger:
    return WireCharger(WireLedger(budget, lambda: 0.0))


@given(st.lists(st.tuples(st.sampled_from(["message", "left", "close"]), st.integers(0, 5000)), max_size=60))
def test_all_bits_that_left_are_charged(steps):
    budget = UplinkBudget(None, 1.0)
    charger, open_messages, left = charger_of(budget), [], 0
    for kind, bits in steps:
        if kind == "message":
            assert budget.charge(0.0, bits)
            open_messages.append(charger.prepay("door", bits))
        elif kind == "left":
            charger.left(bits)
            left += bits
        elif open_messages:
            charger.close(open_messages.pop(0))
        assert budget.total_bits >= left


def test_bits_draw_on_messages_first_and_the_rest_of_a_message_counts_as_sent():
    budget = UplinkBudget(10_000, 1.0)
    charger = charger_of(budget)
    assert budget.charge(0.0, 1000)
    message = charger.prepay("door", 1000)
    charger.left(300)
    charger.left(50, of_messages=False)
    assert (budget.total_bits, budget.room(0.0)) == (1050, 10_000 - 350)
    charger.close(message)
    assert (budget.total_bits, budget.room(0.0)) == (1050, 10_000 - 1050)
    charger.close(message)
    assert budget.total_bits == 1050


def test_what_a_message_does_not_need_counts_as_sent_at_once():
    budget = UplinkBudget(10_000, 1.0)
    charger = charger_of(budget)
    assert budget.charge(0.0, 1000)
    message = charger.prepay("door", 1000)
    charger.trim(message, 700)
    charger.trim(message, 900)  # no more than it has
    assert (message.bits, budget.room(0.0), budget.total_bits) == (700, 10_000 - 300, 1000)


def test_a_replay_pays_nothing_and_has_all_the_room():
    charger = WireCharger(None)
    charger.close(charger.prepay("door", 1000))
    charger.left(1000)
    assert (charger.room_bits(), charger.pause_s(), charger.refusal(10**9, 10**9, 1.0)) == (None, 0.0, None)


@pytest.mark.parametrize(
    ("connect_bits", "packet_bits", "named"),
    [
        (10_000, 17_000, "a packet needs 17000 bits at once, and a window has 16000"),
        (200_000, 1000, "that takes 200000 bits, which is 12 s at 16 kbit/s; accepted: at least 20 kbit/s"),
        (160_000, 16_000, None),
    ],
)
def test_a_set_up_that_cannot_fit_is_refused_with_what_it_needs(connect_bits, packet_bits, named):
    refusal = charger_of(UplinkBudget(16_000, 1.0)).refusal(connect_bits, packet_bits, 10.0)
    assert named in refusal if named else refusal is None


def test_the_pause_after_a_failed_attempt_counts_its_cost():
    charger = charger_of(UplinkBudget(16_000, 1.0))
    charger.left(8000)
    assert charger.pause_s() == 5.0  # attempts use a tenth of the rate
