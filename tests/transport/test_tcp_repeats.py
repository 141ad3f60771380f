"""What the kernel may send by itself fits the window, even if the process that counts does not run meanwhile."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.transport.tcp_counters import TcpCounters
from sagelink.transport.tcp_repeats import Need, SegmentSizes, longest_payload, needs, repeat_bytes

IDLE = TcpCounters(0, 0, 0, 0, 0, 0, 0, 0, 1448, 0, 0, round_trip_s=0.08, repeat_after_s=0.28, next_repeat_s=0.28)
SIZES = SegmentSizes(66, 78)


def test_a_segment_alone_may_be_repeated_by_the_timer():
    assert needs(IDLE, SIZES, 400) == [
        Need(0.0, 466 + 5 * 78),
        Need(0.28, 2 * 466 + 5 * 78),
        Need(0.28 + 0.28, 3 * 466 + 5 * 78),
        Need(0.28 + 2 * 0.28, 4 * 466 + 5 * 78),
    ]


def test_an_acknowledgement_of_the_next_segment_may_repeat_the_one_before():
    counters = replace(IDLE, queued_bytes=1000, unacknowledged_segments=1, next_repeat_s=0.2)
    assert repeat_bytes(counters, SIZES) == 1066
    now, first, *_ = needs(counters, SIZES, 400)
    assert now == Need(0.0, 466 + 5 * 78)
    assert first == Need(0.08, 1066 + 2 * 466 + 5 * 78)


def test_what_was_never_sent_may_leave_and_be_repeated():
    counters = replace(IDLE, queued_bytes=500, unsent_bytes=500)
    now, first, *_ = needs(counters, SIZES, 0)
    assert (now.size_bytes, first.size_bytes) == (566 + 5 * 78, 2 * 566 + 5 * 78)


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 3), st.floats(0, 0.3)),
        max_size=40,
    )
)
def test_no_window_of_the_wire_exceeds_the_limit_while_the_process_does_not_run(steps):
    """Each segment is lost some times and repeated by the timer; the process charges all of that only afterwards."""
    budget, now_s, wire = UplinkBudget(16_000, 1.0), 0.0, []
    assert longest_payload(2000, IDLE, SIZES) == 336
    for payload, losses, pause_s in steps:
        payload = min(payload, 336)
        while any(
            (budget.room(now_s, need.until_s) or 0) < 8 * need.size_bytes for need in needs(IDLE, SIZES, payload)
        ):
            now_s += 0.01
        wire += [(now_s + again * IDLE.repeat_after_s, 8 * (payload + 66)) for again in range(losses + 1)]
        now_s += losses * IDLE.repeat_after_s + 0.08 + pause_s
        budget.charge_sent(now_s, 8 * (payload + 66) * (losses + 1))
        for start_s, _ in wire:
            assert sum(bits for at_s, bits in wire if start_s <= at_s < start_s + 1.0) <= 16_000
