"""Bundles: several evidence messages about one frame in one message, which a transport may send separately."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from sagelink.transport.envelope import MalformedMessage, MessageKind, has_kind, open_message, seal_message

MAX_PARTS = 32
PART_BYTES = 1155  # longest part that travels in one WebRTC datagram
# The parts of a bundle have at least this many bytes on average. The splitter and the WebRTC cost model both rely on
# it through `max_datagrams`: a link is asked for the cost of a message by its size alone, so this bound keeps the
# charge at or above the cost of the real datagrams.
MIN_MEAN_PART_BYTES = 640
_HEADER = struct.Struct("!IB")  # seq, number of parts; then the length and the bytes of each part
_LENGTH = struct.Struct("!H")


def encode_bundle(seq: int, parts: Sequence[bytes]) -> bytes:
    """Joins evidence messages about one frame, with different units each, into one message."""
    content = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return seal_message(MessageKind.BUNDLE, _HEADER.pack(seq, len(parts)) + content)


def decode_bundle(data: bytes) -> tuple[int, list[bytes]]:
    """The frame's `seq` and the parts. Raises MalformedMessage."""
    opened = open_message(data, MessageKind.BUNDLE, _HEADER)
    seq, count = opened.fields
    if not 1 <= count <= MAX_PARTS:
        raise MalformedMessage(f"{count} parts; accepted: 1 to {MAX_PARTS}")
    parts, offset = [], 0
    for _ in range(count):
        if offset + _LENGTH.size > len(opened.rest):
            raise MalformedMessage("the bundle is cut short")
        (length,) = _LENGTH.unpack_from(opened.rest, offset)
        offset += _LENGTH.size
        parts.append(opened.rest[offset : offset + length])
        offset += length
    if offset != len(opened.rest):
        raise MalformedMessage("the bundle's parts do not fill it")
    return seq, parts


def is_bundle(data: bytes) -> bool:
    """Checks only the first bytes."""
    return has_kind(data, MessageKind.BUNDLE)


def parts_of(message: bytes) -> list[bytes]:
    """The parts of a bundle; any other message as the only part."""
    if not is_bundle(message):
        return [message]
    try:
        return decode_bundle(message)[1]
    except MalformedMessage:
        return [message]


def max_datagrams(message_bytes: int) -> int:
    """The largest number of datagrams in which a message of this size may travel; at least 1, never decreases with the
    size. Longer messages are bundles, see MIN_MEAN_PART_BYTES."""
    return 1 if message_bytes <= PART_BYTES else math.ceil(message_bytes / MIN_MEAN_PART_BYTES)
