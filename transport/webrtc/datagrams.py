"""What the two data channels carry, and how a frame comes together from its parts. Pure: time comes in as an argument.

Edge to server, `evidence` channel: camera (1 byte), number of the message (2), part (1), parts (1), then the part: a
whole message of transport.wire, or one of the messages that a bundle holds. Either side, `control` channel: a kind
(1 byte), then the announcement, the verdict, or a part as above. The layout is documented in docs/webrtc.md.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sagelink.transport.wire import MAX_PARTS

DATAGRAM = 1160  # bytes of user data that fit one SCTP packet of aiortc: 1161, rounded down to whole words
_PART = struct.Struct("!BHBB")
NUMBERS = 2**16

HEARTBEAT, ANNOUNCEMENT, VERDICT, EVIDENCE = b"\0", b"\1", b"\2", b"\3"
_VERDICT = struct.Struct("!BHH")  # camera, number of the reply, number of the message

_OPEN = 32  # frames of a peer that may be incomplete
_REMEMBERED = 256  # finished messages whose late parts are known as such
_REORDERED_S = 0.02  # after the last part: what is still missing then was lost, not overtaken


@dataclass(frozen=True, slots=True)
class Part:
    """A datagram of evidence."""

    camera: int
    number: int
    index: int
    count: int
    data: bytes


def pack_part(part: Part) -> bytes:
    return _PART.pack(part.camera, part.number, part.index, part.count) + part.data


def unpack_part(datagram: bytes) -> Part | None:
    """None for what is none."""
    if len(datagram) < _PART.size:
        return None
    camera, number, index, count = _PART.unpack_from(datagram)
    return Part(camera, number, index, count, datagram[_PART.size :]) if index < count <= MAX_PARTS else None


def pack_verdict(camera: int, reply: int, number: int, data: bytes) -> bytes:
    """With its kind."""
    return VERDICT + _VERDICT.pack(camera, reply, number) + data


def unpack_verdict(data: bytes) -> tuple[int, int, int, bytes] | None:
    """Camera, numbers of the reply and of the message, and the reply, from what follows the kind."""
    if len(data) < _VERDICT.size:
        return None
    return (*_VERDICT.unpack_from(data), data[_VERDICT.size :])


@dataclass(slots=True)
class _Frame:
    """A message of which parts have arrived."""

    count: int
    due_s: float
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What arrived of a message, in order."""

    camera: int
    number: int
    parts: Sequence[bytes]
    missing: int


class Assembler:
    """Gathers the parts of one peer's messages. A message is done when it is whole, when a later one of its camera
    begins, or when no further part comes for a while."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._frames: dict[tuple[int, int], _Frame] = {}  # by camera and number, in order of arrival
        self._done: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    def offer(self, now_s: float, part: Part) -> list[Gathered]:
        """Takes a part; returns what is done now."""
        key = (part.camera, part.number)
        if key in self._done:
            return []
        done = [self._finish(other) for other in [*self._frames] if other[0] == part.camera and other != key]
        frame = self._frames.setdefault(key, _Frame(part.count, 0.0))
        if part.count == frame.count:
            frame.parts.setdefault(part.index, part.data)
            frame.due_s = now_s + (_REORDERED_S if frame.count - 1 in frame.parts else self._wait_s)
        if len(frame.parts) == frame.count:
            done.append(self._finish(key))
        elif len(self._frames) > _OPEN:
            done.append(self._finish(next(iter(self._frames))))
        return done

    def due_s(self) -> float | None:
        """When `expire` is to be called; None while nothing is incomplete."""
        return min((frame.due_s for frame in self._frames.values()), default=None)

    def expire(self, now_s: float) -> list[Gathered]:
        """What has waited long enough."""
        return [self._finish(key) for key, frame in [*self._frames.items()] if frame.due_s <= now_s]

    def _finish(self, key: tuple[int, int]) -> Gathered:
        frame = self._frames.pop(key)
        self._done.append(key)
        parts = [frame.parts[index] for index in sorted(frame.parts)]
        return Gathered(*key, parts, frame.count - len(parts))
