"""Messages about heads: round trips, hostile parts, and the assembly of a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.head_messages import (
    MAX_HEAD_BYTES,
    HeadAssembly,
    HeadPart,
    HeadState,
    HeadStatus,
    decode_part,
    decode_status,
    encode_part,
    encode_status,
    is_part,
    is_status,
    part_message_bytes,
)
from sagelink.transport.operator_commands import (
    Action,
    CommandOutcome,
    CommandReceiver,
    OperatorCommand,
    decode_command,
    decode_outcome,
    encode_command,
    encode_outcome,
    push_commands,
)

PRINT = bytes(range(16))
FILE = bytes(range(256)) * 9


@pytest.mark.parametrize(
    "status", [HeadStatus(PRINT, HeadState.WANTED, 700), HeadStatus(PRINT, HeadState.REFUSED, reason="no room")]
)
def test_a_status_survives_the_round_trip(status: HeadStatus) -> None:
    data = encode_status(status)
    assert decode_status(data) == status
    assert (is_status(data), is_part(data)) == (True, False)


def test_a_part_survives_the_round_trip() -> None:
    part = HeadPart(PRINT, len(FILE), 1000, FILE[1000:1700])
    data = encode_part(part)
    assert decode_part(data) == part
    assert len(data) == part_message_bytes(700)
    assert data.hex(" ", 4).startswith("53470405 00010203 04050607 08090a0b 0c0d0e0f 00000900 000003e8")
    assert (is_status(data), is_part(data)) == (False, True)


def part_bytes(total: int, offset: int, size: int) -> bytes:
    body = struct.pack("!2sBB16sII", b"SG", 4, 5, PRINT, total, offset) + bytes(size)
    return body + struct.pack("!I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (part_bytes(0, 0, 1), "a head of 0 bytes"),
        (part_bytes(MAX_HEAD_BYTES + 1, 0, 1), "accepted: 1 to 4000000"),
        (part_bytes(100, 0, 0), "0 bytes at 0"),
        (part_bytes(100, 99, 2), "2 bytes at 99"),
        (part_bytes(100, 2**32 - 1, 1), "1 bytes at 4294967295"),
        (part_bytes(5000, 0, 1001), "1001 bytes at 0"),
        (encode_status(HeadStatus(PRINT, HeadState.HELD)), "kind is 4, not 5|less than a header"),
        (part_bytes(100, 0, 9)[:-1], "checksum"),
        (b"", "less than a header"),
    ],
)
def test_malformed_parts(data: bytes, message: str) -> None:
    with pytest.raises(MalformedMessage, match=message):
        decode_part(data)


@given(st.binary(max_size=80))
def test_random_bytes_are_malformed(data: bytes) -> None:
    for decode in (decode_part, decode_status, decode_command, decode_outcome):
        with pytest.raises(MalformedMessage):
            decode(data)


@given(st.permutations(range(0, len(FILE), 300)), st.lists(st.integers(0, 7), max_size=5))
def test_parts_in_any_order_and_again_give_the_file(offsets: list[int], again: list[int]) -> None:
    assembly, content = HeadAssembly(PRINT, len(FILE)), None
    parts = [HeadPart(PRINT, len(FILE), offset, FILE[offset : offset + 300]) for offset in offsets]
    for part in [parts[0], *[parts[place % len(parts)] for place in again], *parts]:
        assert content is None or content == FILE
        content = assembly.add(part) or content
    assert content == FILE


def test_parts_of_two_sizes_give_the_file_and_overlaps_are_bounded() -> None:
    assembly = HeadAssembly(PRINT, 1000)
    for offset, size in ((0, 300), (250, 500), (300, 300), (600, 400)):
        content = assembly.add(HeadPart(PRINT, 1000, offset, bytes(size)))
    assert content == bytes(1000)
    assembly = HeadAssembly(PRINT, 1000)
    for offset in range(1, 22):
        assert assembly.add(HeadPart(PRINT, 1000, offset, bytes(99))) is None
    with pytest.raises(MalformedMessage, match="overlap"):
        assembly.add(HeadPart(PRINT, 1000, 30, bytes(99)))
    with pytest.raises(MalformedMessage, match="a head of 999 bytes, not 1000"):
        HeadAssembly(PRINT, 1000).add(HeadPart(PRINT, 999, 0, b"x"))


def receiver(done: list[tuple[Action, bytes, str]]) -> Callable[[OperatorCommand], CommandOutcome | None]:
    def carry_out(action: Action, content: bytes, head: str) -> str:
        if content == b"bad":
            raise ValueError("damaged")
        done.append((action, content, head))
        return "held"

    taken = CommandReceiver(carry_out)
    return lambda command: taken.take(decode_command(encode_command(command)))


def test_commands_are_carried_out_once_and_in_order() -> None:
    done: list[tuple[Action, bytes, str]] = []
    take = receiver(done)
    push = [*push_commands(5, PRINT, FILE * 4)]
    assert len(push) == 3
    outcomes = [take(command) for command in (push[0], push[2], push[0], push[1])]
    assert outcomes == [None, None, None, CommandOutcome(5, True, "held")]
    assert [take(command) for command in push] == [None] * 3  # repeated
    assert take(OperatorCommand(5, Action.RESTORE)) is None
    assert take(OperatorCommand(6, Action.RESTORE, head="light")) == CommandOutcome(6, True, "held")
    assert take(next(push_commands(7, PRINT, b"bad"))) == CommandOutcome(7, False, "damaged")
    assert done == [(Action.PUSH, FILE * 4, ""), (Action.RESTORE, b"", "light")]


def test_a_newer_push_replaces_an_unfinished_one() -> None:
    done: list[tuple[Action, bytes, str]] = []
    take, old, new = receiver(done), [*push_commands(5, PRINT, FILE * 4)], [*push_commands(6, PRINT, FILE * 2, "light")]
    assert [take(command) for command in (old[0], new[0], old[1], new[1], old[2])] == [
        None,
        None,
        None,
        CommandOutcome(6, True, "held"),
        None,
    ]
    assert done == [(Action.PUSH, FILE * 2, "light")]


def test_an_outcome_survives_the_round_trip() -> None:
    outcome = CommandOutcome(2**63, False, "no room: ä")
    assert decode_outcome(encode_outcome(outcome)) == outcome
