"""Encodes and decodes the parts in which the picture of an event travels to a console (docs/wire.md).

The parts of a picture are sent in order, each as often as it takes until the broker has it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sagelink.transport.envelope import ENVELOPE_BYTES, MalformedMessage, MessageKind, open_message, seal_message

MAX_PICTURE_BYTES = 200_000
MAX_PART_BYTES = 1000  # of a picture in one part: one datagram with its framing
MIN_PART_BYTES = 120  # but of the last one: shorter ones are mostly framing
MAX_EVENT_BYTES = 200  # of the id of an event
# bytes of the picture, offset of the part, bytes of the id; then the id of the event and the part
_PART = struct.Struct("!IIB")


@dataclass(frozen=True, slots=True)
class PicturePart:
    """From edge to console."""

    event: str  # id of the event that the picture shows
    total_bytes: int  # of the picture, an AVIF file
    offset: int
    data: bytes


def encode_picture_part(part: PicturePart) -> bytes:
    event = part.event.encode()
    header = _PART.pack(part.total_bytes, part.offset, len(event))
    return seal_message(MessageKind.PICTURE_PART, header + event + part.data)


def decode_picture_part(data: bytes) -> PicturePart:
    """Raises MalformedMessage."""
    opened = open_message(data, MessageKind.PICTURE_PART, _PART)
    total_bytes, offset, event_bytes = opened.fields
    event, content = opened.rest[:event_bytes], opened.rest[event_bytes:]
    if not 0 < total_bytes <= MAX_PICTURE_BYTES:
        raise MalformedMessage(f"a picture of {total_bytes} bytes; accepted: 1 to {MAX_PICTURE_BYTES}")
    if not 0 < len(content) <= MAX_PART_BYTES or offset + len(content) > total_bytes:
        raise MalformedMessage(f"{len(content)} bytes at {offset} of a picture of {total_bytes} bytes")
    if len(content) < MIN_PART_BYTES and offset + len(content) < total_bytes:
        raise MalformedMessage(f"{len(content)} bytes in a part; accepted: at least {MIN_PART_BYTES}")
    if not 0 < len(event) <= MAX_EVENT_BYTES:
        raise MalformedMessage(f"{len(event)} bytes of an event's id; accepted: 1 to {MAX_EVENT_BYTES}")
    return PicturePart(event.decode(errors="replace"), total_bytes, offset, content)


def picture_message_bytes(event: str, data_bytes: int) -> int:
    """Bytes of the message with so many bytes of the picture of an event."""
    return ENVELOPE_BYTES + _PART.size + len(event.encode()) + data_bytes
