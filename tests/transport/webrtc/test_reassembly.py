"""Datagrams of evidence, and the assembly of messages from the parts that arrive."""

from __future__ import annotations

from aiortc.rtcsctptransport import USERDATA_MAX_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.bundle import PART_BYTES
from sagelink.transport.webrtc.reassembly import (
    DATAGRAM,
    Assembler,
    Part,
    pack_part,
    pack_verdict,
    unpack_part,
    unpack_verdict,
)


def part(index: int, count: int = 3, number: int = 1, camera: int = 0) -> Part:
    return Part(camera, number, index, count, bytes([index]))


def test_the_longest_part_fills_a_datagram() -> None:
    assert len(pack_part(Part(0, 1, 0, 1, bytes(PART_BYTES)))) == DATAGRAM
    assert DATAGRAM == USERDATA_MAX_LENGTH  # one byte more needs two packets, and the loss of either loses both


def test_golden_bytes() -> None:
    assert pack_part(Part(2, 0x1234, 1, 3, b"abc")).hex(" ") == "02 12 34 01 03 61 62 63"
    assert pack_verdict(2, 5, 0x1234, b"abc").hex(" ") == "02 02 00 05 12 34 61 62 63"
    assert unpack_verdict(pack_verdict(2, 5, 0x1234, b"abc")[1:]) == (2, 5, 0x1234, b"abc")


@given(st.binary(max_size=40))
def test_random_bytes_are_no_part_or_a_valid_one(data: bytes) -> None:
    found = unpack_part(data)
    assert found is None or pack_part(found) == data
    assert found is None or found.index < found.count <= 32


def test_a_complete_message_is_finished_at_once_in_any_order() -> None:
    assembler = Assembler(0.1)
    assert assembler.add(0.0, part(2)) == []
    assert assembler.add(0.0, part(0)) == []
    (finished,) = assembler.add(0.0, part(1))
    assert (finished.parts, finished.missing) == ([b"\0", b"\1", b"\2"], 0)
    assert assembler.due_s() is None
    assert assembler.add(0.0, part(1)) == []  # a duplicate part starts no message


def test_a_missing_part_is_waited_for_a_limited_time() -> None:
    assembler = Assembler(0.1)
    assembler.add(1.0, part(0))
    assert assembler.expire(1.05) == []
    assembler.add(1.05, part(1))
    assert assembler.due_s() == 1.05 + 0.1
    (finished,) = assembler.expire(1.2)
    assert (finished.parts, finished.missing) == ([b"\0", b"\1"], 1)


def test_after_the_last_part_the_wait_is_short() -> None:
    assembler = Assembler(10.0)
    assembler.add(1.0, part(0))
    assembler.add(1.0, part(2))
    assert assembler.due_s() < 1.1


def test_a_later_message_of_the_same_camera_ends_the_wait() -> None:
    assembler = Assembler(0.1)
    assembler.add(0.0, part(0, number=1))
    assembler.add(0.0, part(0, number=1, camera=5))
    (finished,) = assembler.add(0.0, part(0, number=2))
    assert (finished.camera, finished.number, finished.missing) == (0, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 5), st.integers(1, 6)), max_size=200))
def test_each_message_is_finished_once_and_memory_is_bounded(steps: list[tuple[int, int, int, int]]) -> None:
    assembler, finished = Assembler(0.1), []
    for step, (camera, number, index, count) in enumerate(steps):
        if index < count:
            finished += assembler.add(step * 0.01, Part(camera, number, index, count, b""))
    finished += assembler.expire(1e9)
    keys = [(message.camera, message.number) for message in finished]
    assert len(keys) == len(set(keys))
    assert assembler.due_s() is None
