"""Parts on their way, and how a frame comes together from those that arrive."""

from __future__ import annotations

from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.webrtc.datagrams import (
    DATAGRAM,
    Assembler,
    Part,
    pack_part,
    pack_verdict,
    unpack_part,
    unpack_verdict,
)
from sagelink.transport.wire import PART_BYTES


def part(index: int, count: int = 3, number: int = 1, camera: int = 0) -> Part:
    return Part(camera, number, index, count, bytes([index]))


def test_the_longest_part_fills_a_datagram() -> None:
    assert len(pack_part(Part(0, 1, 0, 1, bytes(PART_BYTES)))) == DATAGRAM
    assert DATAGRAM == USERDATA_MAX_LENGTH  # a byte more would be two packets, and lost with either


def test_golden_bytes() -> None:
    assert pack_part(Part(2, 0x1234, 1, 3, b"abc")).hex(" ") == "02 12 34 01 03 61 62 63"
    assert pack_verdict(2, 5, 0x1234, b"abc").hex(" ") == "02 02 00 05 12 34 61 62 63"
    assert unpack_verdict(pack_verdict(2, 5, 0x1234, b"abc")[1:]) == (2, 5, 0x1234, b"abc")


@given(st.binary(max_size=40))
def test_rubbish_is_no_part(data: bytes) -> None:
    found = unpack_part(data)
    assert found is None or pack_part(found) == data
    assert found is None or found.index < found.count <= 32


def test_a_whole_message_is_done_at_once_in_any_order() -> None:
    assembler = Assembler(0.1)
    assert assembler.offer(0.0, part(2)) == []
    assert assembler.offer(0.0, part(0)) == []
    (done,) = assembler.offer(0.0, part(1))
    assert (done.parts, done.missing) == ([b"\0", b"\1", b"\2"], 0)
    assert assembler.due_s() is None
    assert assembler.offer(0.0, part(1)) == []  # a part that comes twice begins nothing


def test_what_does_not_come_is_waited_for_only_so_long() -> None:
    assembler = Assembler(0.1)
    assembler.offer(1.0, part(0))
    assert assembler.expire(1.05) == []
    assembler.offer(1.05, part(1))
    assert assembler.due_s() == 1.05 + 0.1
    (done,) = assembler.expire(1.2)
    assert (done.parts, done.missing) == ([b"\0", b"\1"], 1)


def test_after_the_last_part_there_is_little_to_wait_for() -> None:
    assembler = Assembler(10.0)
    assembler.offer(1.0, part(0))
    assembler.offer(1.0, part(2))
    assert assembler.due_s() < 1.1


def test_a_later_frame_of_the_same_camera_ends_the_wait() -> None:
    assembler = Assembler(0.1)
    assembler.offer(0.0, part(0, number=1))
    assembler.offer(0.0, part(0, number=1, camera=5))
    (done,) = assembler.offer(0.0, part(0, number=2))
    assert (done.camera, done.number, done.missing) == (0, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 5), st.integers(1, 6)), max_size=200))
def test_each_message_comes_out_once_and_memory_is_bounded(steps: list[tuple[int, int, int, int]]) -> None:
    assembler, seen = Assembler(0.1), []
    for at, (camera, number, index, count) in enumerate(steps):
        if index < count:
            seen += assembler.offer(at * 0.01, Part(camera, number, index, count, b""))
    seen += assembler.expire(1e9)
    keys = [(each.camera, each.number) for each in seen]
    assert len(keys) == len(set(keys))
    assert assembler.due_s() is None
