"""Which frames share a batch: waiting, size by padded units, fairness, deadlines. A table of times in, batches out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sagelink.server.batch import Batcher, BatchLimits, Waiting, passes
from sagelink.transport.link import Message

LIMITS = BatchLimits(max_units=100, max_wait_s=0.5, per_camera=3)


def frame(camera: str, seq: int = 0, units: int = 10, arrived_s: float = 0.0, expires_s: float = 100.0) -> Waiting:
    return Waiting(Message(camera, b"", arrived_s), seq, units, expires_s)


def batcher(*frames: Waiting, limits: BatchLimits = LIMITS) -> Batcher:
    made = Batcher(limits)
    for each in frames:
        made.offer(each)
    return made


def names(frames: list[Waiting]) -> list[tuple[str, int]]:
    return [(each.message.sender, each.seq) for each in frames]


def test_nothing_waits():
    assert batcher().ready_s() is None
    assert batcher().take(1.0) == ([], [])


def test_the_first_frame_waits_for_others_but_not_longer_than_it_may():
    made = batcher(frame("a", arrived_s=7.0))
    assert made.ready_s() == 7.5
    made.offer(frame("b", arrived_s=7.4))
    assert made.ready_s() == 7.5
    batch, _ = made.take(7.5)
    assert names(batch) == [("a", 0), ("b", 0)]
    assert made.ready_s() is None
    assert len(made) == 0


def test_a_full_batch_waits_for_nobody():
    made = batcher(frame("a", units=60, arrived_s=7.0), frame("b", units=40, arrived_s=7.1))
    assert made.ready_s() == 7.0


def test_what_a_batch_left_over_is_due_at_once():
    made = batcher(frame("a", units=60), frame("b", units=60))
    assert names(made.take(0.5)[0]) == [("a", 0)]
    assert made.ready_s() <= 0.5
    assert names(made.take(0.5)[0]) == [("b", 0)]


def test_size_counts_the_padding():
    made = batcher(frame("a", units=10), frame("b", units=10), frame("c", units=40), frame("d", units=10))
    assert names(made.take(1.0)[0]) == [("a", 0), ("b", 0)]  # with c it would be 3 x 40
    assert names(made.take(1.0)[0]) == [("c", 0), ("d", 0)]


def test_a_frame_larger_than_a_batch_goes_alone():
    made = batcher(frame("a", units=196), frame("b"))
    assert names(made.take(1.0)[0]) == [("a", 0)]
    assert names(made.take(1.0)[0]) == [("b", 0)]


def test_a_greedy_camera_starves_nobody():
    small = BatchLimits(max_units=30, max_wait_s=0.5, per_camera=3)
    made = batcher(*(frame("greedy", seq) for seq in range(3)), frame("b"), frame("c"), limits=small)
    assert names(made.take(1.0)[0]) == [("greedy", 0), ("b", 0), ("c", 0)]
    assert names(made.take(1.0)[0]) == [("greedy", 1), ("greedy", 2)]


def test_a_camera_with_too_many_frames_loses_its_oldest():
    made = batcher(*(frame("greedy", seq) for seq in range(3)), frame("b"))
    assert names([made.offer(frame("greedy", 3))]) == [("greedy", 0)]
    assert len(made) == 4
    assert names(made.take(1.0)[0]) == [("greedy", 1), ("b", 0), ("greedy", 2), ("greedy", 3)]


def test_what_is_past_its_deadline_costs_no_compute():
    made = batcher(frame("a", 0, expires_s=2.0), frame("a", 1, expires_s=9.0), frame("b", 0, expires_s=3.0))
    batch, expired = made.take(3.0)
    assert names(batch) == [("a", 1)]
    assert names(expired) == [("a", 0), ("b", 0)]
    assert len(made) == 0
    assert made.ready_s() is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 196), st.floats(0, 10), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_every_frame_comes_out_once_and_no_batch_is_too_large(steps):
    made, now_s, out, offered = Batcher(LIMITS), 0.0, [], 0
    for camera, units, wait_s, take in steps:
        now_s += wait_s
        displaced = made.offer(frame(camera, offered, units, now_s, now_s + 5.0))
        offered += 1
        out += [displaced] if displaced else []
        if take:
            batch, expired = made.take(now_s)
            assert len(batch) == 1 or len(batch) * max((each.units for each in batch), default=0) <= LIMITS.max_units
            assert all(each.expires_s > now_s for each in batch)
            assert all(each.expires_s <= now_s for each in expired)
            out += batch + expired
        assert len(made) == offered - len(out)
    while len(made):
        batch, expired = made.take(now_s)
        assert batch or expired
        out += batch + expired
    assert sorted(each.seq for each in out) == list(range(offered))


def test_frames_of_similar_length_share_a_pass():
    assert passes([10, 96, 11, 90, 50], most_padding=0.1) == [[1, 3], [4], [2, 0]]
    assert passes([10, 96, 11, 90, 50], most_padding=float("inf")) == [[1, 3, 4, 2, 0]]
    assert passes([7, 9, 7], most_padding=0) == [[1], [0, 2]]
    assert passes([], most_padding=0.1) == []


@given(st.lists(st.integers(1, 196), max_size=40), st.sampled_from([0, 0.1, 0.5]))
def test_each_frame_is_in_one_pass_and_padding_stays_within_its_limit(lengths, most_padding):
    found = passes(lengths, most_padding)
    assert sorted(index for group in found for index in group) == list(range(len(lengths)))
    for group in found:
        units = [lengths[index] for index in group]
        assert len(units) * max(units) <= (1 + most_padding) * sum(units)
