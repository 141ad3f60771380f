"""Batching: waiting time, size with padding, fairness between cameras, deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sagelink.server.batch import Batcher, BatchLimits, Waiting, passes
from sagelink.transport.link import Message

LIMITS = BatchLimits(max_units=100, max_wait_s=0.5, per_camera=3)


def frame(camera: str, seq: int = 0, units: int = 10, arrived_s: float = 0.0, expires_s: float = 100.0) -> Waiting:
    return Waiting(Message(camera, b"", arrived_s), seq, units, expires_s)


def batcher(*frames: Waiting, limits: BatchLimits = LIMITS) -> Batcher:
    batcher = Batcher(limits)
    for waiting in frames:
        batcher.offer(waiting)
    return batcher


def names(frames: list[Waiting]) -> list[tuple[str, int]]:
    return [(waiting.message.sender, waiting.seq) for waiting in frames]


def test_an_empty_queue_is_never_due():
    assert batcher().ready_s() is None
    assert batcher().take(1.0) == ([], [])


def test_the_first_frame_waits_for_others_up_to_the_limit():
    made = batcher(frame("a", arrived_s=7.0))
    assert made.ready_s() == 7.5
    made.offer(frame("b", arrived_s=7.4))
    assert made.ready_s() == 7.5
    batch, _ = made.take(7.5)
    assert names(batch) == [("a", 0), ("b", 0)]
    assert made.ready_s() is None
    assert len(made) == 0


def test_a_full_batch_does_not_wait():
    made = batcher(frame("a", units=60, arrived_s=7.0), frame("b", units=40, arrived_s=7.1))
    assert made.ready_s() == 7.0


def test_frames_left_by_a_batch_are_due_at_once():
    made = batcher(frame("a", units=60), frame("b", units=60))
    assert names(made.take(0.5)[0]) == [("a", 0)]
    assert made.ready_s() <= 0.5
    assert names(made.take(0.5)[0]) == [("b", 0)]


def test_the_size_of_a_batch_includes_padding():
    made = batcher(frame("a", units=10), frame("b", units=10), frame("c", units=40), frame("d", units=10))
    assert names(made.take(1.0)[0]) == [("a", 0), ("b", 0)]  # with c it would be 3 x 40
    assert names(made.take(1.0)[0]) == [("c", 0), ("d", 0)]


def test_a_frame_larger_than_a_batch_goes_alone():
    made = batcher(frame("a", units=196), frame("b"))
    assert names(made.take(1.0)[0]) == [("a", 0)]
    assert names(made.take(1.0)[0]) == [("b", 0)]


def test_a_busy_camera_delays_no_other():
    small = BatchLimits(max_units=30, max_wait_s=0.5, per_camera=3)
    made = batcher(*(frame("greedy", seq) for seq in range(3)), frame("b"), frame("c"), limits=small)
    assert names(made.take(1.0)[0]) == [("greedy", 0), ("b", 0), ("c", 0)]
    assert names(made.take(1.0)[0]) == [("greedy", 1), ("greedy", 2)]


def test_nodes_take_turns_and_then_their_cameras():
    small = BatchLimits(max_units=40, max_wait_s=0.5, per_camera=3)
    invented = [frame(f"big/camera{number}") for number in range(20)]
    made = batcher(*invented, frame("a/door", 0), frame("a/door", 1), frame("b/door"), limits=small)
    first, second = names(made.take(1.0)[0]), names(made.take(1.0)[0])
    assert first == [("big/camera0", 0), ("a/door", 0), ("b/door", 0), ("big/camera1", 0)]
    assert second == [("a/door", 1), ("big/camera2", 0), ("big/camera3", 0), ("big/camera4", 0)]


def sized(sender: str, seq: int, size: int) -> Waiting:
    return Waiting(Message(sender, bytes(size), 0.0), seq, 10, 100.0)


def test_the_bytes_of_a_node_are_bounded_and_it_displaces_only_its_own_frames():
    made = Batcher(BatchLimits(max_units=100, max_wait_s=0.5, per_camera=4, max_bytes=8000))  # 1000 a node
    assert made.offer(sized("a/door", 0, 900)) == []
    displaced = [out for seq in range(100) for out in made.offer(sized(f"big/camera{seq}", seq, 300))]
    assert [each.seq for each in displaced] == [*range(97)]
    assert made.size_bytes == 900 + 3 * 300
    assert names(made.offer(sized("big/huge", 7, 3000))) == [(f"big/camera{seq}", seq) for seq in (97, 98, 99)]
    assert names(made.take(1.0)[0]) == [("a/door", 0), ("big/huge", 7)]  # a node may always have one frame
    assert made.size_bytes == 0


def test_the_bytes_of_all_nodes_are_bounded_and_the_largest_node_yields():
    made = Batcher(BatchLimits(max_units=10_000, max_wait_s=0.5, per_camera=4, max_bytes=8000))
    for node in range(7):
        for seq in range(2):
            assert made.offer(sized(f"n{node}/door", seq, 500)) == []
    assert made.offer(sized("huge/door", 0, 1000)) == []
    assert names(made.offer(sized("late/door", 0, 200))) == [("n0/door", 0)]
    assert made.size_bytes <= 8000


def test_a_full_camera_queue_drops_its_oldest_frame():
    made = batcher(*(frame("greedy", seq) for seq in range(3)), frame("b"))
    assert names(made.offer(frame("greedy", 3))) == [("greedy", 0)]
    assert len(made) == 4
    assert names(made.take(1.0)[0]) == [("greedy", 1), ("b", 0), ("greedy", 2), ("greedy", 3)]


def test_expired_frames_are_not_classified():
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
def test_every_frame_leaves_once_and_no_batch_is_too_large(steps):
    made, now_s, out, offered = Batcher(LIMITS), 0.0, [], 0
    for camera, units, wait_s, take in steps:
        now_s += wait_s
        displaced = made.offer(frame(camera, offered, units, now_s, now_s + 5.0))
        offered += 1
        out += displaced
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
    assert passes([10, 96, 11, 90, 50], max_padding=0.1) == [[1, 3], [4], [2, 0]]
    assert passes([10, 96, 11, 90, 50], max_padding=float("inf")) == [[1, 3, 4, 2, 0]]
    assert passes([7, 9, 7], max_padding=0) == [[1], [0, 2]]
    assert passes([], max_padding=0.1) == []


@given(st.lists(st.integers(1, 196), max_size=40), st.sampled_from([0, 0.1, 0.5]))
def test_each_frame_is_in_one_pass_and_padding_stays_within_its_limit(lengths, max_padding):
    found = passes(lengths, max_padding)
    assert sorted(index for group in found for index in group) == list(range(len(lengths)))
    for group in found:
        units = [lengths[index] for index in group]
        assert len(units) * max(units) <= (1 + max_padding) * sum(units)
