"""Encodes and decodes evidence messages: selected units of a frame, from edge to server (docs/wire.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sagelink.pipeline.answers import HEAD_ID_BYTES
from sagelink.pipeline.config.schema import MAX_FURTHER_HEADS
from sagelink.pipeline.types import Units
from sagelink.transport.envelope import (
    FLAG_EDGE_ANSWER,
    FLAG_FURTHER,
    FLAG_HEAD,
    MalformedMessage,
    MessageKind,
    open_message,
    seal_message,
)
from sagelink.transport.unit_set_codec import (
    RECTANGLE_BYTES,
    pack_rectangle,
    pack_units,
    set_bytes,
    unpack_rectangle,
    unpack_units,
)

MAX_SIDE = 64  # units on a side of the grid
MAX_PATCH = 64  # pixels on a side of a unit
_HEADER = struct.Struct("!IBBBH")  # seq, grid side, patch size, codec, number of units with the flag _RECTANGLE
_RECTANGLE = 0x8000
_EDGE_ANSWER = struct.Struct("!HH")  # class id or _UNKNOWN_CLASS, probability in units of 1 / _PROBABILITY
_UNKNOWN_CLASS = 0xFFFF
_PROBABILITY = 65_535


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
    codec: int  # number of a codec in transport.codecs
    units: Units  # ascending, at least one
    payload: bytes
    head: bytes = b""  # id (HEAD_ID_BYTES) of the head to answer with; empty: the model's own classes
    edge_answer: EdgeAnswer | None = None
    further: tuple[bytes, ...] = ()  # ids of up to MAX_FURTHER_HEADS heads that answer too


@dataclass(frozen=True, slots=True)
class EvidenceHeader:
    """The fields of an evidence message before its unit set. The grid and the number of units are not checked yet."""

    seq: int
    side: int
    patch_size: int
    codec: int
    count: int  # of units
    rectangle: bool  # the unit set is a rectangle
    head: bytes
    edge_answer: EdgeAnswer | None
    further: tuple[bytes, ...]
    rest: bytes  # unit set and payload

    def has_units(self) -> bool:
        """Whether the number of units is possible on the grid."""
        return 1 <= self.side <= MAX_SIDE and 1 <= self.count <= self.side**2

    def set_bytes(self) -> int:
        """Size of the unit set."""
        return RECTANGLE_BYTES if self.rectangle else set_bytes(self.side**2, self.count)


def encode_evidence(message: EvidenceMessage) -> bytes:
    """The message, at most MAX_MESSAGE_BYTES if the payload is small enough."""
    rectangle = pack_rectangle(message.units, message.side)
    count = len(message.units) | (_RECTANGLE if rectangle else 0)
    header = _HEADER.pack(message.seq, message.side, message.patch_size, message.codec, count)
    units = rectangle or pack_units(message.units, message.side**2)
    content = header + _pack_extension(message) + units + message.payload
    return seal_message(MessageKind.EVIDENCE, content, _flags_of(message))


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
        packed += bytes([len(message.further)]) + b"".join(message.further)
    return packed


def decode_header(data: bytes) -> EvidenceHeader:
    """The header of an evidence message whose checksum is right. Raises MalformedMessage."""
    opened = open_message(data, MessageKind.EVIDENCE, _HEADER, FLAG_HEAD | FLAG_EDGE_ANSWER | FLAG_FURTHER)
    seq, side, patch_size, codec, count = opened.fields
    flags, rest = opened.flags, opened.rest
    end = HEAD_ID_BYTES if flags & FLAG_HEAD else 0
    head, answer, further = rest[:end], None, b""
    if flags & FLAG_EDGE_ANSWER:
        if len(rest) >= end + _EDGE_ANSWER.size:
            class_id, prob = _EDGE_ANSWER.unpack_from(rest, end)
            answer = EdgeAnswer(None if class_id == _UNKNOWN_CLASS else class_id, prob / _PROBABILITY)
        end += _EDGE_ANSWER.size
    if flags & FLAG_FURTHER:
        heads = rest[end] if end < len(rest) else 1
        if not 1 <= heads <= MAX_FURTHER_HEADS:
            raise MalformedMessage(f"{heads} further heads; accepted: 1 to {MAX_FURTHER_HEADS}")
        begin, end = end + 1, end + 1 + heads * HEAD_ID_BYTES
        further = rest[begin:end]
    if len(rest) < end:
        raise MalformedMessage("the heads or the edge's answer are cut short")
    ids = tuple(further[at : at + HEAD_ID_BYTES] for at in range(0, len(further), HEAD_ID_BYTES))
    if len({head, *ids}) <= len(ids):
        raise MalformedMessage("a head is named twice")
    rectangle, count = bool(count & _RECTANGLE), count & ~_RECTANGLE
    return EvidenceHeader(seq, side, patch_size, codec, count, rectangle, head, answer, ids, rest[end:])


def decode_evidence(data: bytes) -> EvidenceMessage:
    """The reverse of `encode_evidence`. Raises MalformedMessage."""
    header = decode_header(data)
    side, count = header.side, header.count
    if not 1 <= side <= MAX_SIDE:
        raise MalformedMessage(f"grid side is {side}; accepted: 1 to {MAX_SIDE}")
    if not 1 <= header.patch_size <= MAX_PATCH:
        raise MalformedMessage(f"patch size is {header.patch_size}; accepted: 1 to {MAX_PATCH}")
    total = side**2
    if not header.has_units():
        raise MalformedMessage(f"{count} units on a grid of {total}")
    end = header.set_bytes()
    if len(header.rest) < end:
        raise MalformedMessage("the unit set is cut short")
    packed, payload = header.rest[:end], header.rest[end:]
    try:
        units = unpack_rectangle(packed, side, count) if header.rectangle else unpack_units(packed, total, count)
    except ValueError as error:
        raise MalformedMessage(str(error)) from None
    if not header.rectangle and pack_rectangle(units, side) is not None:
        raise MalformedMessage(f"{count} units that fill a rectangle, not sent as one")
    return EvidenceMessage(
        header.seq,
        side,
        header.patch_size,
        header.codec,
        units,
        payload,
        header.head,
        header.edge_answer,
        header.further,
    )
