"""What the kernel may send by itself fits the window, even if the process that counts does not run meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.transport.tcp_counters import TcpCounters
from sagelink.transport.tcp_repeats import ACKS, Need, Pacing, SegmentSizes, acks_due, needs, repeat_bytes

IDLE = TcpCounters(
    *(0,) * 8,
    segment_bytes=1448,
    repeats=0,
    out_of_order=0,
    round_trip_s=0.08,
    repeat_after_s=0.28,
    probe_after_s=0.292,
    next_repeat_s=0.0,
    is_paced=True,
)
SIZES = SegmentSizes(66, 78)
SMALL = Pacing(bytes_per_s=16_000.0, limit_bytes=2000, window_s=1.0, is_short=True, is_linear=False)


def size_at(wanted: list[Need], until_s: float) -> int:
    return max(need.size_bytes for need in wanted if need.until_s == pytest.approx(until_s))


def test_a_segment_alone_may_be_repeated_by_the_timer_at_waits_that_double():
    wanted = needs(IDLE, SIZES, 400, 0.0, 10.0)
    assert size_at(wanted, 0.0) == 466 + 5 * 78
    assert size_at(wanted, 0.28) == 2 * 466 + 5 * 78
    assert size_at(wanted, 0.28 + 0.28) == 3 * 466 + 5 * 78
    assert size_at(wanted, 0.28 + 0.28 + 0.56) == 4 * 466 + 5 * 78
    assert size_at(needs(IDLE, SIZES, 400, 0.0, 10.0, is_linear=True), 3 * 0.28) == 4 * 466 + 5 * 78


def test_a_pause_puts_off_the_first_and_the_second_repeat():
    wanted = needs(IDLE, SIZES, 400, 0.2, 10.0)
    assert size_at(wanted, 0.48) == 2 * 466 + 5 * 78
    assert size_at(wanted, 0.96) == 3 * 466 + 5 * 78


def test_what_has_left_the_window_before_a_repeat_does_not_count():
    assert size_at(needs(IDLE, SIZES, 400, 0.3, 1.0), 1.16) == 2 * 466 + 5 * 78


def test_answers_are_acknowledged_a_round_trip_after_a_segment():
    wanted = needs(IDLE, SIZES, 400, 0.0, 10.0, acks=acks_due(0))
    assert size_at(wanted, 0.0) == 466 + 78
    assert size_at(wanted, 0.08) == 466 + 3 * 78
    assert size_at(wanted, 0.36) == 2 * 466 + 3 * 78
    assert (acks_due(1), acks_due(9)) == (3, ACKS)


def test_an_acknowledgement_of_the_next_segment_may_repeat_the_one_before():
    counters = replace(IDLE, queued_bytes=1000, unacknowledged_segments=1, next_repeat_s=0.2)
    assert repeat_bytes(counters, SIZES) == 1066
    wanted = needs(counters, SIZES, 400, 0.0, 10.0)
    assert size_at(wanted, 0.0) == 466 + 5 * 78
    assert size_at(wanted, 0.08) == 1066 + 466 + 5 * 78
    assert size_at(wanted, 0.16) == 1066 + 2 * 466 + 5 * 78


def test_a_timer_that_runs_may_repeat_the_new_segment_at_once():
    counters = replace(IDLE, queued_bytes=1000, unacknowledged_segments=1, next_repeat_s=0.01)
    assert size_at(needs(counters, SIZES, 400, 0.0, 10.0), 0.01) == 1066 + 2 * 466 + 5 * 78


def test_what_was_never_sent_may_leave_and_be_repeated():
    counters = replace(IDLE, queued_bytes=500, unsent_bytes=500, next_repeat_s=0.28)
    wanted = needs(counters, SIZES, 0, 0.0, 10.0)
    assert size_at(wanted, 0.0) == 566 + 5 * 78
    assert size_at(wanted, 0.08) == 2 * 566 + 5 * 78


def test_a_long_segment_of_a_small_window_gets_a_long_pause():
    longest = SMALL.longest_payload(IDLE, SIZES, acks_due(0))
    assert longest == 816  # twice, with three acknowledgements: 1998 bytes
    assert SMALL.pause_s(longest, IDLE, SIZES, acks_due(0)) == pytest.approx((1.05 - 0.572) / 2)
    assert SMALL.pause_s(longest + 8, IDLE, SIZES, acks_due(0)) is None
    assert SMALL.pause_s(300, IDLE, SIZES, acks_due(0)) == pytest.approx(300 / 32_000)


def test_without_pacing_segments_are_shorter():
    young = replace(IDLE, is_paced=False)
    assert SMALL.longest_payload(young, SIZES, acks_due(0)) == 520
    assert SMALL.pause_s(520, young, SIZES, acks_due(0)) == 0.0


@given(
    st.lists(
        st.tuples(st.integers(1, 736), st.integers(0, 3), st.floats(0, 0.3)),
        max_size=40,
    )
)
def test_no_window_of_the_wire_exceeds_the_limit_while_the_process_does_not_run(steps):
    """Each segment is lost some times and repeated by the timer; the process charges all of that only afterwards."""
    budget, now_s, wire = UplinkBudget(16_000, 1.0), 0.0, []
    for payload, losses, idle_s in steps:
        pause_s = SMALL.pause_s(payload, IDLE, SIZES, ACKS)
        assert pause_s is not None
        while any(
            (budget.room(now_s, need.until_s) or 0) < 8 * need.size_bytes
            for need in SMALL.needs(IDLE, SIZES, payload, pause_s, ACKS)
        ):
            now_s += 0.01
        waits_s = [pause_s + IDLE.probe_after_s, pause_s + IDLE.repeat_after_s, 2 * IDLE.repeat_after_s]
        times_s = [now_s]
        for wait_s in waits_s[:losses]:
            times_s.append(times_s[-1] + wait_s)
        wire += [(at_s, 8 * (payload + 66)) for at_s in times_s]
        now_s = times_s[-1] + 0.08 + idle_s
        budget.charge_sent(now_s, 8 * (payload + 66) * (losses + 1))
        for start_s, _ in wire:
            assert sum(bits for at_s, bits in wire if start_s <= at_s < start_s + 1.0) <= 16_000
