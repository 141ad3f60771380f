"""Encodes and decodes the messages by which a server gets a head that it lacks (docs/wire.md).

The server says whether it wants, holds or refuses a head (`HeadStatus`); the edge sends the head file in parts
(`HeadPart`). Each part names the whole file by its fingerprint, so parts may come in any order, from several edges, or
again after a lost connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from sagelink.transport.envelope import (
    ENVELOPE_BYTES,
    MalformedMessage,
    MessageKind,
    has_kind,
    open_message,
    seal_message,
)

FINGERPRINT_BYTES = 16
MAX_HEAD_BYTES = 4_000_000  # of a head file that travels over a link
MAX_PART_BYTES = 1000  # of a head file in one part: one datagram with its framing
_MAX_REASON_BYTES = 255
_STATUS = struct.Struct("!16sBI")  # fingerprint, state, bytes of the file that the server already has; then the reason
_PART = struct.Struct("!16sII")  # fingerprint, bytes of the file, offset of the part; then the part


class HeadState(IntEnum):
    """What a server says about a head."""

    WANTED = 1  # the edge is to send it
    HELD = 2
    REFUSED = 3
    COMING = 4  # it is on its way: from another edge, or from the broker


@dataclass(frozen=True, slots=True)
class HeadStatus:
    """From server to edge."""

    fingerprint: bytes
    state: HeadState
    offset: int = 0  # wanted from this byte on
    reason: str = ""  # of a refusal


@dataclass(frozen=True, slots=True)
class HeadPart:
    """From edge to server."""

    fingerprint: bytes
    total_bytes: int  # of the file
    offset: int
    data: bytes


def encode_status(status: HeadStatus) -> bytes:
    header = _STATUS.pack(status.fingerprint, status.state, status.offset)
    return seal_message(MessageKind.HEAD_STATUS, header + status.reason.encode()[:_MAX_REASON_BYTES])


def decode_status(data: bytes) -> HeadStatus:
    """Raises MalformedMessage."""
    opened = open_message(data, MessageKind.HEAD_STATUS, _STATUS)
    fingerprint, state, offset = opened.fields
    if state not in set(HeadState) or len(opened.rest) > _MAX_REASON_BYTES:
        raise MalformedMessage(f"state {state} of a head, and a reason of {len(opened.rest)} bytes")
    return HeadStatus(fingerprint, HeadState(state), offset, opened.rest.decode(errors="replace"))


def encode_part(part: HeadPart) -> bytes:
    return seal_message(MessageKind.HEAD_PART, _PART.pack(part.fingerprint, part.total_bytes, part.offset) + part.data)


def decode_part(data: bytes) -> HeadPart:
    """Raises MalformedMessage."""
    opened = open_message(data, MessageKind.HEAD_PART, _PART)
    fingerprint, total_bytes, offset = opened.fields
    part = HeadPart(fingerprint, total_bytes, offset, opened.rest)
    if not 0 < total_bytes <= MAX_HEAD_BYTES:
        raise MalformedMessage(f"a head of {total_bytes} bytes; accepted: 1 to {MAX_HEAD_BYTES}")
    if not 0 < len(part.data) <= MAX_PART_BYTES or offset + len(part.data) > total_bytes:
        raise MalformedMessage(f"{len(part.data)} bytes at {offset} of a head of {total_bytes} bytes")
    return part


def is_status(data: bytes) -> bool:
    """Checks only the first bytes."""
    return has_kind(data, MessageKind.HEAD_STATUS)


def is_part(data: bytes) -> bool:
    """Checks only the first bytes."""
    return has_kind(data, MessageKind.HEAD_PART)


def part_message_bytes(data_bytes: int) -> int:
    """Bytes of the message with so many bytes of a head file."""
    return ENVELOPE_BYTES + _PART.size + data_bytes


class HeadAssembly:
    """A head file that arrives in parts. Its memory grows only with what has arrived."""

    def __init__(self, fingerprint: bytes, total_bytes: int) -> None:
        self.fingerprint = fingerprint
        self.total_bytes = total_bytes
        self._parts: dict[int, bytes] = {}
        self.received_bytes = 0

    def add(self, part: HeadPart) -> bytes | None:
        """Takes a part. Returns the file's content once it is complete. Raises MalformedMessage for a part that does
        not fit the earlier ones."""
        if part.total_bytes != self.total_bytes:
            raise MalformedMessage(f"a part of a head of {part.total_bytes} bytes, not {self.total_bytes}")
        if self.received_bytes > 2 * self.total_bytes:
            raise MalformedMessage("parts that overlap")
        known = self._parts.get(part.offset, b"")
        if len(part.data) > len(known):
            self.received_bytes += len(part.data) - len(known)
            self._parts[part.offset] = part.data
        if self.received_bytes < self.total_bytes:
            return None
        content = self._prefix()
        return bytes(content) if len(content) == self.total_bytes else None  # parts of two sizes may overlap

    def prefix_bytes(self) -> int:
        """Bytes that have arrived from the start without a gap."""
        return len(self._prefix())

    def _prefix(self) -> bytearray:
        content = bytearray()
        for offset in sorted(self._parts):
            if offset > len(content):
                break
            content += self._parts[offset][len(content) - offset :]
        return content
