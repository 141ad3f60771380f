"""Encodes and decodes the binary messages between edge and server: evidence, bundles of evidence, and replies.
The messages about heads are in `transport.head_messages`.

docs/wire.md documents the layout. Every field is big-endian. Decoders trust no field: each size is checked before
memory is allocated for it, and a malformed message raises MalformedMessage with the reason.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sagelink.pipeline.config import MAX_FURTHER_HEADS
from sagelink.pipeline.types import HEAD_ID_BYTES, Reply, TopClasses, Units
from sagelink.transport.unit_set_codec import (
    RECTANGLE_BYTES,
    pack_rectangle,
    pack_units,
    set_bytes,
    unpack_rectangle,
    unpack_units,
)

MAGIC = b"SG"
VERSION = 4

# magic, version, kind, seq, grid side, patch size, codec, number of units with the flag _RECTANGLE
_EVIDENCE = struct.Struct("!2sBBIBBBH")
# magic, version, kind, seq, units, time at the server and time in its queue (us), frames in that queue, bytes of the
# refusal, number of classes
_REPLY = struct.Struct("!2sBBIHIIHBB")
# magic, version, kind, seq, number of parts; then the length and the bytes of each part
_BUNDLE = struct.Struct("!2sBBIB")
_LENGTH = struct.Struct("!H")
_CLASS = struct.Struct("!If")  # class id, log-probability
_COUNT = struct.Struct("!B")
_EDGE_ANSWER = struct.Struct("!HH")  # class id or _UNKNOWN_CLASS, probability in units of 1 / _PROBABILITY
_UNKNOWN_CLASS = 0xFFFF
_PROBABILITY = 65_535
_CRC = struct.Struct("!I")
CRC_BYTES = _CRC.size

_RECTANGLE = 0x8000

_KIND_EVIDENCE = 1
_KIND_REPLY = 2
_KIND_BUNDLE = 3
# The upper half of the kind byte. A set flag adds a field; a message without flags has no byte more.
FLAG_MAC = 0x80  # a MAC stands in place of the checksum: transport.message_auth
FLAG_HEAD = 0x40  # evidence: the id of the head whose classes are asked for; without it, the model's own classes
FLAG_EDGE_ANSWER = 0x20  # evidence: the edge's own answer
FLAG_FURTHER = 0x10  # evidence: ids of further heads; reply: their answers
EVIDENCE_FLAGS = FLAG_HEAD | FLAG_EDGE_ANSWER | FLAG_FURTHER
_FLAGS = 0xF0
_KINDS = {_KIND_EVIDENCE: "evidence", _KIND_REPLY: "a reply", _KIND_BUNDLE: "a bundle"}
_START = MAGIC + bytes([VERSION])
_KIND_AT = len(_START)  # offset of the kind byte
_SEQ = slice(_KIND_AT + 1, _KIND_AT + 5)

MAX_SIDE = 64  # units on a side of the grid
MAX_PATCH = 64  # pixels on a side of a unit
MAX_CLASSES = 16
MAX_PARTS = 32
PART_BYTES = 1155  # longest part that travels in one WebRTC datagram
# The parts of a bundle have at least this many bytes on average. The splitter and the WebRTC cost model both rely on
# it through `max_datagrams`: a link is asked for the cost of a message by its size alone, so this bound keeps the
# charge at or above the cost of the real datagrams.
MIN_MEAN_PART_BYTES = 640
MAX_MESSAGE_BYTES = 4_000_000
REFERENCE_NAME_BYTES = 8  # name of the units that a server retains for a camera
DELTA_CODEC = 10  # codec number of evidence that adds to retained units: transport.delta_message


class MalformedMessage(ValueError):
    """The bytes are not a message that this version can read; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class EdgeAnswer:
    """The edge's own answer to a frame, with the classes of the message's head."""

    class_id: int | None  # None: none of the taught classes
    prob: float  # sent with a precision of 1 / 65535


@dataclass(frozen=True, slots=True)
class EvidenceMessage:
    """An evidence message, before its payload is decoded."""

    seq: int  # 0 .. 2**32 - 1
    side: int  # the grid has side x side units
    patch_size: int  # pixels on a side of a unit
    codec: int  # number of a codec in transport.codecs, or DELTA_CODEC
    units: Units  # ascending, at least one
    payload: bytes
    head: bytes = b""  # id (HEAD_ID_BYTES) of the head to answer with; empty: the model's own classes
    edge_answer: EdgeAnswer | None = None
    further: tuple[bytes, ...] = ()  # ids of up to MAX_FURTHER_HEADS heads that answer too


def encode_evidence(message: EvidenceMessage) -> bytes:
    """Header, unit set, payload, CRC-32."""
    rectangle = pack_rectangle(message.units, message.side)
    header = _EVIDENCE.pack(
        MAGIC,
        VERSION,
        _KIND_EVIDENCE | _flags_of(message),
        message.seq,
        message.side,
        message.patch_size,
        message.codec,
        len(message.units) | (_RECTANGLE if rectangle else 0),
    )
    units = rectangle or pack_units(message.units, message.side**2)
    return seal(header + _pack_extension(message) + units + message.payload)


def _flags_of(message: EvidenceMessage) -> int:
    present = (FLAG_HEAD, message.head), (FLAG_EDGE_ANSWER, message.edge_answer), (FLAG_FURTHER, message.further)
    return sum(flag for flag, value in present if value)


def _pack_extension(message: EvidenceMessage) -> bytes:
    """The fields that flags announce: between the header and the unit set."""
    packed, answer = message.head, message.edge_answer
    if answer is not None:
        class_id = _UNKNOWN_CLASS if answer.class_id is None else answer.class_id
        packed += _EDGE_ANSWER.pack(class_id, round(answer.prob * _PROBABILITY))
    if message.further:
        packed += _COUNT.pack(len(message.further)) + b"".join(message.further)
    return packed


@dataclass(frozen=True, slots=True)
class _Extension:
    """The fields of evidence that flags announce."""

    head: bytes
    edge_answer: EdgeAnswer | None
    further: tuple[bytes, ...]
    end: int  # offset of the unit set


def _unpack_extension(flags: int, body: bytes) -> _Extension:
    """Raises MalformedMessage."""
    begin = _EVIDENCE.size
    end = begin + (HEAD_ID_BYTES if flags & FLAG_HEAD else 0)
    head, answer, further = body[begin:end], None, b""
    if flags & FLAG_EDGE_ANSWER:
        if len(body) >= end + _EDGE_ANSWER.size:
            class_id, prob = _EDGE_ANSWER.unpack_from(body, end)
            answer = EdgeAnswer(None if class_id == _UNKNOWN_CLASS else class_id, prob / _PROBABILITY)
        end += _EDGE_ANSWER.size
    if flags & FLAG_FURTHER:
        count = body[end] if end < len(body) else 1
        if not 1 <= count <= MAX_FURTHER_HEADS:
            raise MalformedMessage(f"{count} further heads; accepted: 1 to {MAX_FURTHER_HEADS}")
        begin, end = end + _COUNT.size, end + _COUNT.size + count * HEAD_ID_BYTES
        further = body[begin:end]
    if len(body) < end:
        raise MalformedMessage("the heads or the edge's answer are cut short")
    ids = tuple(further[at : at + HEAD_ID_BYTES] for at in range(0, len(further), HEAD_ID_BYTES))
    if len({head, *ids}) <= len(ids):
        raise MalformedMessage("a head is named twice")
    return _Extension(head, answer, ids, end)


def decode_evidence(data: bytes) -> EvidenceMessage:
    """The reverse of `encode_evidence`. Raises MalformedMessage."""
    body = unseal(data)
    flags, fields = _header(_EVIDENCE, body, _KIND_EVIDENCE, EVIDENCE_FLAGS)
    seq, side, patch_size, codec, count = fields
    if not 1 <= side <= MAX_SIDE:
        raise MalformedMessage(f"grid side is {side}; accepted: 1 to {MAX_SIDE}")
    if not 1 <= patch_size <= MAX_PATCH:
        raise MalformedMessage(f"patch size is {patch_size}; accepted: 1 to {MAX_PATCH}")
    rectangle, count = bool(count & _RECTANGLE), count & ~_RECTANGLE
    total = side**2
    if not 1 <= count <= total:
        raise MalformedMessage(f"{count} units on a grid of {total}")
    extension = _unpack_extension(flags, body)
    end = extension.end + _set_bytes(total, count, rectangle)
    if len(body) < end:
        raise MalformedMessage("the unit set is cut short")
    packed = body[extension.end : end]
    try:
        units = unpack_rectangle(packed, side, count) if rectangle else unpack_units(packed, total, count)
    except ValueError as error:
        raise MalformedMessage(str(error)) from None
    if not rectangle and pack_rectangle(units, side) is not None:
        raise MalformedMessage(f"{count} units that fill a rectangle, not sent as one")
    head, edge_answer, further = extension.head, extension.edge_answer, extension.further
    return EvidenceMessage(seq, side, patch_size, codec, units, body[end:], head, edge_answer, further)


def _set_bytes(total: int, count: int, rectangle: bool) -> int:
    return RECTANGLE_BYTES if rectangle else set_bytes(total, count)


def encode_bundle(seq: int, parts: Sequence[bytes]) -> bytes:
    """Joins evidence messages about one frame, with different units each, into one message."""
    header = _BUNDLE.pack(MAGIC, VERSION, _KIND_BUNDLE, seq, len(parts))
    return seal(header + b"".join(_LENGTH.pack(len(part)) + part for part in parts))


def decode_bundle(data: bytes) -> tuple[int, list[bytes]]:
    """The frame's `seq` and the parts. Raises MalformedMessage."""
    body = unseal(data)
    _, (seq, count) = _header(_BUNDLE, body, _KIND_BUNDLE)
    if not 1 <= count <= MAX_PARTS:
        raise MalformedMessage(f"{count} parts; accepted: 1 to {MAX_PARTS}")
    parts, offset = [], _BUNDLE.size
    for _ in range(count):
        if offset + _LENGTH.size > len(body):
            raise MalformedMessage("the bundle is cut short")
        (length,) = _LENGTH.unpack_from(body, offset)
        offset += _LENGTH.size
        parts.append(body[offset : offset + length])
        offset += length
    if offset != len(body):
        raise MalformedMessage("the bundle's parts do not fill it")
    return seq, parts


def is_bundle(data: bytes) -> bool:
    """Checks only the first bytes."""
    return data[: len(_BUNDLE_START)] == _BUNDLE_START


_BUNDLE_START = _START + bytes([_KIND_BUNDLE])


def parts_of(message: bytes) -> list[bytes]:
    """The parts of a bundle, which a transport may send separately; any other message as the only part."""
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


@dataclass(frozen=True, slots=True)
class EvidenceClaim:
    """What evidence says about itself: enough to queue or to refuse it without decoding it."""

    seq: int
    units: int  # retained ones included
    head: bytes = b""
    edge_answer: EdgeAnswer | None = None
    further: tuple[bytes, ...] = ()


def peek(data: bytes) -> EvidenceClaim | None:
    """Like `read_claim`; None where that raises."""
    try:
        return read_claim(data)
    except MalformedMessage:
        return None


def read_claim(data: bytes) -> EvidenceClaim:
    """The claim of evidence or of a bundle. Raises MalformedMessage if its checksum or header is wrong."""
    if is_bundle(data):
        seq, parts = decode_bundle(data)
        claims = [claim for part in parts if not is_bundle(part) and (claim := peek(part)) is not None]
        first = claims[0] if claims else EvidenceClaim(seq, 0)
        return replace(first, seq=seq, units=sum(claim.units for claim in claims))
    body = unseal(data)
    flags, (seq, side, _, codec, units) = _header(_EVIDENCE, body, _KIND_EVIDENCE, EVIDENCE_FLAGS)
    extension = _unpack_extension(flags, body)
    rectangle, units = bool(units & _RECTANGLE), units & ~_RECTANGLE
    if codec == DELTA_CODEC and 1 <= side <= MAX_SIDE and 1 <= units <= side**2:
        count_at = extension.end + _set_bytes(side**2, units, rectangle) + REFERENCE_NAME_BYTES
        units += int.from_bytes(body[count_at : count_at + 2])  # units retained by the server
    return EvidenceClaim(seq, units, extension.head, extension.edge_answer, extension.further)


def claimed_seq(data: bytes) -> int | None:
    """The `seq` in the header of any message, with its checksum or MAC unchecked; None where there is no header."""
    return int.from_bytes(data[_SEQ]) if data[:_KIND_AT] == _START and len(data) >= _SEQ.stop else None


def encode_reply(reply: Reply) -> bytes:
    """Header, refusal (UTF-8) or classes with log-probabilities, those of further heads, CRC-32."""
    refusal = (reply.refusal or "").encode()[:255]
    header = _REPLY.pack(
        MAGIC,
        VERSION,
        _KIND_REPLY | (FLAG_FURTHER if reply.further else 0),
        reply.seq,
        reply.units,
        min(round(reply.server_ms * 1000), 2**32 - 1),
        min(round(reply.queue_ms * 1000), 2**32 - 1),
        min(reply.waiting, 2**16 - 1),
        len(refusal),
        len(reply.class_ids),
    )
    further = b"".join(_COUNT.pack(len(top[0])) + _pack_classes(top) for top in reply.further)
    if reply.further:
        further = _COUNT.pack(len(reply.further)) + further
    return seal(header + refusal + _pack_classes(reply.top) + further)


def _pack_classes(top: TopClasses) -> bytes:
    return b"".join(_CLASS.pack(class_id, min(p, 0.0)) for class_id, p in zip(*top, strict=True))


def decode_reply(data: bytes) -> Reply:
    """The reverse of `encode_reply`. Raises MalformedMessage."""
    body = unseal(data)
    flags, fields = _header(_REPLY, body, _KIND_REPLY, FLAG_FURTHER)
    seq, units, server_us, queue_us, waiting, refusal_bytes, count = fields
    if count > MAX_CLASSES or (count == 0) != (refusal_bytes > 0):
        raise MalformedMessage(f"{count} classes; accepted: 1 to {MAX_CLASSES}, or a refusal")
    begin = _REPLY.size + refusal_bytes
    refusal = body[_REPLY.size : begin].decode(errors="replace")
    (class_ids, log_probs), end = _unpack_classes(body, begin, count)
    further, end = _unpack_further(body, end) if flags & FLAG_FURTHER else ((), end)
    if len(body) != end:
        raise MalformedMessage(f"{len(body)} bytes do not hold {count} classes")
    server_ms, queue_ms = server_us / 1000, queue_us / 1000
    return Reply(seq, refusal or None, class_ids, log_probs, units, server_ms, queue_ms, waiting, further)


def _unpack_further(body: bytes, begin: int) -> tuple[tuple[TopClasses, ...], int]:
    """The answers of further heads at `begin`, and the offset of their end. Raises MalformedMessage."""
    count, end = body[begin] if begin < len(body) else 0, begin + _COUNT.size
    if not 1 <= count <= MAX_FURTHER_HEADS:
        raise MalformedMessage(f"{count} further heads; accepted: 1 to {MAX_FURTHER_HEADS}")
    answers = []
    for _ in range(count):
        classes = body[end] if end < len(body) else 0
        if classes > MAX_CLASSES:
            raise MalformedMessage(f"{classes} classes of a further head; accepted: up to {MAX_CLASSES}")
        answer, end = _unpack_classes(body, end + _COUNT.size, classes)
        answers.append(answer)
    return tuple(answers), end


def _unpack_classes(body: bytes, begin: int, count: int) -> tuple[TopClasses, int]:
    """So many classes at `begin`, and the offset of their end. Raises MalformedMessage."""
    end = begin + count * _CLASS.size
    if len(body) < end:
        raise MalformedMessage(f"{len(body)} bytes do not hold {count} classes")
    classes = list(_CLASS.iter_unpack(body[begin:end]))
    if any(not log_prob <= 0 or math.isinf(log_prob) for _, log_prob in classes):
        raise MalformedMessage("a log-probability is above 0, infinite or not a number")
    if len({class_id for class_id, _ in classes}) != count:
        raise MalformedMessage("a class occurs twice")
    return (tuple(class_id for class_id, _ in classes), tuple(p for _, p in classes)), end


def _header(layout: struct.Struct, body: bytes, expected: int, accepted: int = 0) -> tuple[int, tuple[int, ...]]:
    """Flags and fields of a message of the kind `expected`. `accepted`: the flags that it may have. Raises
    MalformedMessage."""
    if len(body) < layout.size:
        raise MalformedMessage(f"{len(body)} bytes are less than a header")
    check_version(body)
    _, _, kind, *fields = layout.unpack_from(body)
    kind, flags = kind & ~_FLAGS, kind & _FLAGS
    if kind != expected:
        raise MalformedMessage(f"kind is {kind}, not {_KINDS[expected]}")
    if flags & ~accepted:
        raise MalformedMessage(f"the flags {flags & ~accepted:#04x} are set, which this kind of message does not have")
    return flags, tuple(fields)


def check_version(data: bytes) -> None:
    """Raises MalformedMessage unless the bytes begin like a message of this version."""
    if data[: len(MAGIC)] != MAGIC or len(data) == len(MAGIC):
        raise MalformedMessage("not a Sagelink message")
    if data[len(MAGIC)] != VERSION:
        raise MalformedMessage(f"version {data[len(MAGIC)]}; accepted: {VERSION}")


def seal(body: bytes) -> bytes:
    """Appends the checksum."""
    return body + _CRC.pack(zlib.crc32(body))


def has_mac(data: bytes) -> bool:
    """Checks only the header."""
    return data[:_KIND_AT] == _START and len(data) > _KIND_AT and bool(data[_KIND_AT] & FLAG_MAC)


def set_mac_flag(body: bytes, on: bool) -> bytes:
    """A message without its checksum or MAC, with the flag set or cleared."""
    kind = body[_KIND_AT] | FLAG_MAC if on else body[_KIND_AT] & ~FLAG_MAC
    return body[:_KIND_AT] + bytes([kind]) + body[_KIND_AT + 1 :]


def unseal(data: bytes) -> bytes:
    """The reverse of `seal`. Raises MalformedMessage if the checksum is wrong, or is a MAC."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"{len(data)} bytes; accepted: up to {MAX_MESSAGE_BYTES}")
    if len(data) <= CRC_BYTES:
        raise MalformedMessage(f"{len(data)} bytes are less than a header")
    if has_mac(data):
        raise MalformedMessage("the message carries a MAC, but mqtt.mac_key_file is not set on this side")
    body, crc = data[:-CRC_BYTES], _CRC.unpack(data[-CRC_BYTES:])[0]
    if zlib.crc32(body) != crc:
        raise MalformedMessage("the checksum does not match")
    return body
