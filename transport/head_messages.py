"""Encodes and decodes the messages by which a server gets a head that it lacks (docs/wire.md).

The server says whether it wants, holds or refuses a head (`HeadStatus`); the edge sends the head file in parts
(`HeadPart`). Each part names the whole file by its fingerprint, so parts may come in any order, from several edges, or
again after a lost connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from sagelink.transport.wire import MAGIC, VERSION, MalformedMessage, check_version, seal, unseal

FINGERPRINT_BYTES = 16
MAX_HEAD_BYTES = 4_000_000  # of a head file that travels over a link
MAX_PART_BYTES = 1000  # of a head file in one part: one datagram with its framing
# magic, version, kind, fingerprint, state, bytes of the file that the server already has; then the reason
_STATUS = struct.Struct("!2sBB16sBI")
_PART = struct.Struct("!2sBB16sII")  # magic, version, kind, fingerprint, bytes of the file, offset of the part
_KIND_STATUS = 4
_KIND_PART = 5
_KIND_AT = 3


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
    header = _STATUS.pack(MAGIC, VERSION, _KIND_STATUS, status.fingerprint, status.state, status.offset)
    return seal(header + status.reason.encode()[:255])


def decode_status(data: bytes) -> HeadStatus:
    """Raises MalformedMessage."""
    body = open_body(data, _STATUS, _KIND_STATUS)
    *_, fingerprint, state, offset = _STATUS.unpack_from(body)
    if state not in set(HeadState) or len(body) > _STATUS.size + 255:
        raise MalformedMessage(f"state {state} of a head, {len(body)} bytes")
    return HeadStatus(fingerprint, HeadState(state), offset, body[_STATUS.size :].decode(errors="replace"))


def encode_part(part: HeadPart) -> bytes:
    header = _PART.pack(MAGIC, VERSION, _KIND_PART, part.fingerprint, part.total_bytes, part.offset)
    return seal(header + part.data)


def decode_part(data: bytes) -> HeadPart:
    """Raises MalformedMessage."""
    body = open_body(data, _PART, _KIND_PART)
    *_, fingerprint, total_bytes, offset = _PART.unpack_from(body)
    part = HeadPart(fingerprint, total_bytes, offset, body[_PART.size :])
    if not 0 < total_bytes <= MAX_HEAD_BYTES:
        raise MalformedMessage(f"a head of {total_bytes} bytes; accepted: 1 to {MAX_HEAD_BYTES}")
    if not 0 < len(part.data) <= MAX_PART_BYTES or offset + len(part.data) > total_bytes:
        raise MalformedMessage(f"{len(part.data)} bytes at {offset} of a head of {total_bytes} bytes")
    return part


def is_status(data: bytes) -> bool:
    """Checks only the header."""
    return data[:_KIND_AT] == MAGIC + bytes([VERSION]) and data[_KIND_AT : _KIND_AT + 1] == bytes([_KIND_STATUS])


def is_part(data: bytes) -> bool:
    """Checks only the header."""
    return data[:_KIND_AT] == MAGIC + bytes([VERSION]) and data[_KIND_AT : _KIND_AT + 1] == bytes([_KIND_PART])


def part_message_bytes(data_bytes: int) -> int:
    """Bytes of the message with so many bytes of a head file."""
    return len(seal(b"")) + _PART.size + data_bytes


def open_body(data: bytes, layout: struct.Struct, kind: int) -> bytes:
    """The content of a message of this kind. Raises MalformedMessage."""
    body = unseal(data)
    if len(body) < layout.size:
        raise MalformedMessage(f"{len(body)} bytes are less than a header")
    check_version(body)
    if body[_KIND_AT] != kind:
        raise MalformedMessage(f"kind is {body[_KIND_AT]}, not {kind}")
    return body


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
