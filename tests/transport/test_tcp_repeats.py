"""What the kernel may send by itself fits the window, even if the process that counts does not run meanwhile."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget import UplinkBudget
from sagelink.transport.tcp_counters import TcpCounters
from sagelink.transport.tcp_repeats import Acks, Need, SegmentSizes, longest_payload, needs, repeat_bytes

IDLE = TcpCounters(0, 0, 0, 0, 0, 0, 0, 0, 1448, 0, 0, round_trip_s=0.08, repeat_after_s=0.3, next_repeat_s=0.3)
SIZES = SegmentSizes(66, 78)
ACKS = Acks()  # as many as ever


def test_a_segment_alone_may_be_repeated_by_the_timer_whose_waits_double():
    assert needs(IDLE, SIZES, 400, 10.0, ACKS) == [
        Need(0.0, 466 + 5 * 78),
        Need(0.08, 466 + 5 * 78),
        Need(0.3, 2 * 466 + 5 * 78),
        Need(0.3 + 0.3, 3 * 466 + 5 * 78),
        Need(0.3 + 3 * 0.3, 4 * 466 + 5 * 78),
    ]


def test_what_left_first_has_left_the_window_before_a_late_repeat():
    assert needs(IDLE, SIZES, 400, 1.0, ACKS)[-1] == Need(0.3 + 3 * 0.3, 3 * 466 + 5 * 78)


def test_an_acknowledgement_of_the_next_segment_may_repeat_the_one_before():
    counters = replace(IDLE, queued_bytes=1000, unacknowledged_segments=1, next_repeat_s=0.2)
    assert repeat_bytes(counters, SIZES) == 1066
    now, first, *_ = needs(counters, SIZES, 400, 1.0, ACKS)
    assert now == Need(0.0, 466 + 5 * 78)
    assert first == Need(0.08, 1066 + 2 * 466 + 5 * 78)


def test_what_was_never_sent_may_leave_and_be_repeated():
    counters = replace(IDLE, queued_bytes=500, unsent_bytes=500)
    now, first, *_ = needs(counters, SIZES, 0, 1.0, ACKS)
    assert (now.size_bytes, first.size_bytes) == (566 + 5 * 78, 2 * 566 + 5 * 78)


def test_the_answers_to_what_leaves_now_cost_nothing_before_they_can_arrive():
    now, answered, *_ = needs(IDLE, SIZES, 400, 1.0, Acks.of((0, 1)))
    assert (now, answered) == (Need(0.0, 466 + 78), Need(0.08, 466 + 3 * 78))
    assert (Acks.of((1, 2)), Acks.of((2, 3)), Acks.of(None)) == (Acks(3, 5), Acks(5, 5), Acks(5, 5))


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 4), st.floats(0, 0.3)),
        max_size=40,
    ),
    st.sampled_from([0.05, 0.2, 0.24, 0.26, 0.3, 0.5, 1.2]),
)
def test_no_window_of_the_wire_exceeds_the_limit_while_the_process_does_not_run(steps, repeat_after_s):
    """Each segment is lost up to three times, and repeated by the timer, with waits that double; the process charges
    all of that only afterwards."""
    budget, now_s, wire = UplinkBudget(16_000, 1.0), 0.0, []
    counters = replace(IDLE, repeat_after_s=repeat_after_s)
    longest = longest_payload(2000, 1.05, counters, SIZES, ACKS)
    for payload, losses, pause_s in steps:
        payload, losses = min(payload, longest), min(losses, 3)
        while any(
            (budget.room(now_s, need.until_s) or 0) < 8 * need.size_bytes
            for need in needs(counters, SIZES, payload, 1.05, ACKS)
        ):
            now_s += 0.01
        sent_s = [now_s + waits * repeat_after_s for waits in (0, 1, 2, 4)[: losses + 1]]
        wire += [(at_s, 8 * (payload + 66)) for at_s in sent_s]
        now_s = sent_s[-1] + 0.08 + pause_s
        budget.charge_sent(now_s, 8 * (payload + 66) * len(sent_s))
        for start_s, _ in wire:
            assert sum(bits for at_s, bits in wire if start_s <= at_s < start_s + 1.0) <= 16_000


@given(st.floats(0.05, 1.5), st.integers(1500, 64_000))
def test_the_longest_segment_fits_an_empty_window_with_its_repeats(repeat_after_s, limit_bytes):
    counters = replace(IDLE, repeat_after_s=repeat_after_s)
    longest = longest_payload(limit_bytes, 1.05, counters, SIZES, ACKS)
    for need in needs(counters, SIZES, max(64, longest), 1.05, ACKS):
        assert need.size_bytes <= limit_bytes
