"""The datagrams of the two data channels, and the assembly of messages from their parts. Pure: time is an argument.

From edge to server on the `evidence` channel: camera (1 byte), message number (2), index of the part (1), number of
parts (1), then the part: a whole message, or one message of a bundle. In both directions on the
`control` channel: a kind (1 byte), then the announcement, the verdict, a part as above, the reason for refusing the
announcement, or a message about a head. docs/webrtc.md documents the layout.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sagelink.transport.bundle import MAX_PARTS

DATAGRAM = 1160  # bytes of user data that fit one SCTP packet of aiortc: 1161, rounded down to whole words
_PART = struct.Struct("!BHBB")
NUMBERS = 2**16  # message and reply numbers wrap around here

HEARTBEAT, ANNOUNCEMENT, VERDICT, EVIDENCE, REFUSAL, HEAD = b"\0", b"\1", b"\2", b"\3", b"\4", b"\5"
_VERDICT = struct.Struct("!BHH")  # camera, reply number, message number

_MAX_INCOMPLETE = 32  # messages of one peer
_MAX_FINISHED = 256  # finished messages whose late parts are still recognized
_REORDERING_S = 0.02  # wait after the last part: a part that is still missing then was lost, not overtaken


@dataclass(frozen=True, slots=True)
class Part:
    """One datagram of evidence."""

    camera: int
    number: int  # of the message
    index: int  # of the part
    count: int  # parts of the message
    data: bytes


def pack_part(part: Part) -> bytes:
    return _PART.pack(part.camera, part.number, part.index, part.count) + part.data


def unpack_part(datagram: bytes) -> Part | None:
    """None if the datagram is not a part."""
    if len(datagram) < _PART.size:
        return None
    camera, number, index, count = _PART.unpack_from(datagram)
    if not index < count <= MAX_PARTS or (count > 1 and len(datagram) > DATAGRAM):
        return None
    return Part(camera, number, index, count, datagram[_PART.size :])


def pack_verdict(camera: int, reply: int, number: int, data: bytes) -> bytes:
    """The control message of a verdict, its kind included."""
    return VERDICT + _VERDICT.pack(camera, reply, number) + data


def unpack_verdict(data: bytes) -> tuple[int, int, int, bytes] | None:
    """Camera, reply number, message number and reply, from the bytes after the kind; None if they are malformed."""
    if len(data) < _VERDICT.size:
        return None
    return (*_VERDICT.unpack_from(data), data[_VERDICT.size :])


@dataclass(slots=True)
class _Incomplete:
    """A message of which some parts have arrived."""

    count: int
    due_s: float
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssembledMessage:
    """The parts of a message that arrived, in order."""

    camera: int
    number: int
    parts: Sequence[bytes]
    missing: int  # number of parts that did not arrive


class Assembler:
    """Assembles the messages of one peer from their parts.

    A message is finished when it is complete, when a later one of its camera begins, or when no further part arrives
    for some time.
    """

    def __init__(self, wait_s: float) -> None:
        """`wait_s`: longest time between two parts of a message."""
        self._wait_s = wait_s
        self._incomplete: dict[tuple[int, int], _Incomplete] = {}  # by camera and number, in order of arrival
        self._finished: deque[tuple[int, int]] = deque(maxlen=_MAX_FINISHED)

    def add(self, now_s: float, part: Part) -> list[AssembledMessage]:
        """Takes a part. Returns the messages that are finished now."""
        key = (part.camera, part.number)
        if key in self._finished:
            return []
        finished = [self._finish(other) for other in [*self._incomplete] if other[0] == part.camera and other != key]
        message = self._incomplete.setdefault(key, _Incomplete(part.count, 0.0))
        if part.count == message.count:
            message.parts.setdefault(part.index, part.data)
            message.due_s = now_s + (_REORDERING_S if message.count - 1 in message.parts else self._wait_s)
        if len(message.parts) == message.count:
            finished.append(self._finish(key))
        elif len(self._incomplete) > _MAX_INCOMPLETE:
            finished.append(self._finish(next(iter(self._incomplete))))
        return finished

    def due_s(self) -> float | None:
        """The time at which to call `expire`; None while no message is incomplete."""
        return min((message.due_s for message in self._incomplete.values()), default=None)

    def expire(self, now_s: float) -> list[AssembledMessage]:
        """Returns the messages whose wait is over."""
        return [self._finish(key) for key, message in [*self._incomplete.items()] if message.due_s <= now_s]

    def _finish(self, key: tuple[int, int]) -> AssembledMessage:
        message = self._incomplete.pop(key)
        self._finished.append(key)
        parts = [message.parts[index] for index in sorted(message.parts)]
        return AssembledMessage(*key, parts, message.count - len(parts))
