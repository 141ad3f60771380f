"""The binary messages between edge and server. The layout is documented in docs/wire.md.

Every field is big-endian. A decoder believes nothing: each size is bounded before anything is allocated for it, and a
malformed message ends in a MalformedMessage that says what is wrong.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.types import Reply, Units

MAGIC = b"SG"
VERSION = 1

# magic, version, kind, seq, grid side, patch size, codec, flags, number of units
_EVIDENCE = struct.Struct("!2sBBIBBBBH")
# magic, version, kind, seq, units, server time in us, length of the refusal, number of classes
_REPLY = struct.Struct("!2sBBIHIBB")
_CLASS = struct.Struct("!If")  # class id, log-probability
_CRC = struct.Struct("!I")

_KIND_EVIDENCE = 1
_KIND_REPLY = 2
_FLAG_LIST = 1  # the unit set is a list of indices, not a bitmap

MAX_SIDE = 64  # units on a side of the grid
MAX_PATCH = 64  # pixels on a side of a unit
MAX_CLASSES = 16
MAX_MESSAGE_BYTES = 4_000_000


class MalformedMessage(ValueError):
    """The bytes are not a message that this version can read; the text says why."""


@dataclass(frozen=True, slots=True)
class EvidenceMessage:
    """An evidence message, before its payload is decoded."""

    seq: int  # 0 .. 2**32 - 1
    side: int  # the grid has side x side units
    patch_size: int  # pixels on a side of a unit
    codec: int  # see transport.codecs
    units: Units  # ascending, at least one
    payload: bytes


def encode_evidence(message: EvidenceMessage) -> bytes:
    """Header, unit set (the smaller of bitmap and list), payload, CRC-32."""
    total = message.side**2
    bitmap_bytes, list_bytes = _set_sizes(total, len(message.units))
    if list_bytes < bitmap_bytes:
        flags = _FLAG_LIST
        unit_set = message.units.astype(">u2" if total > 256 else "u1").tobytes()
    else:
        flags = 0
        bits = np.zeros(total, np.uint8)
        bits[message.units] = 1
        unit_set = np.packbits(bits).tobytes()
    header = _EVIDENCE.pack(
        MAGIC,
        VERSION,
        _KIND_EVIDENCE,
        message.seq,
        message.side,
        message.patch_size,
        message.codec,
        flags,
        len(message.units),
    )
    return _seal(header + unit_set + message.payload)


def overhead_bytes(side: int, units: int) -> int:
    """Bytes of an evidence message beside its payload."""
    return _EVIDENCE.size + min(_set_sizes(side**2, units)) + _CRC.size


def decode_evidence(data: bytes) -> EvidenceMessage:
    """The reverse of `encode_evidence`. Raises MalformedMessage."""
    body = _unseal(data)
    kind, fields = _header(_EVIDENCE, body)
    seq, side, patch_size, codec, flags, count = fields
    if kind != _KIND_EVIDENCE:
        raise MalformedMessage(f"kind is {kind}, not evidence")
    if not 1 <= side <= MAX_SIDE:
        raise MalformedMessage(f"grid side is {side}; accepted: 1 to {MAX_SIDE}")
    if not 1 <= patch_size <= MAX_PATCH:
        raise MalformedMessage(f"patch size is {patch_size}; accepted: 1 to {MAX_PATCH}")
    total = side**2
    if not 1 <= count <= total:
        raise MalformedMessage(f"{count} units on a grid of {total}")
    if flags & ~_FLAG_LIST:
        raise MalformedMessage(f"unknown flags {flags:#x}")
    bitmap_bytes, list_bytes = _set_sizes(total, count)
    if bool(flags & _FLAG_LIST) != (list_bytes < bitmap_bytes):
        raise MalformedMessage("the unit set is not in its smaller form")
    set_bytes = min(bitmap_bytes, list_bytes)
    unit_set, payload = body[_EVIDENCE.size : _EVIDENCE.size + set_bytes], body[_EVIDENCE.size + set_bytes :]
    if len(unit_set) < set_bytes:
        raise MalformedMessage("the unit set is cut short")
    return EvidenceMessage(seq, side, patch_size, codec, _read_set(unit_set, flags, total, count), payload)


def peek_seq(data: bytes) -> int | None:
    """The frame that a message is about, where its checksum and header are sound; for a refusal."""
    try:
        kind, (seq, *_) = _header(_EVIDENCE, _unseal(data))
    except MalformedMessage:
        return None
    return seq if kind == _KIND_EVIDENCE else None


def encode_reply(reply: Reply) -> bytes:
    """Header, refusal (UTF-8) or classes with log-probabilities, CRC-32."""
    refusal = (reply.refusal or "").encode()[:255]
    header = _REPLY.pack(
        MAGIC,
        VERSION,
        _KIND_REPLY,
        reply.seq,
        reply.units,
        min(round(reply.server_ms * 1000), 2**32 - 1),
        len(refusal),
        len(reply.class_ids),
    )
    pairs = zip(reply.class_ids, reply.log_probs, strict=True)
    return _seal(header + refusal + b"".join(_CLASS.pack(class_id, min(p, 0.0)) for class_id, p in pairs))


def decode_reply(data: bytes) -> Reply:
    """The reverse of `encode_reply`. Raises MalformedMessage."""
    body = _unseal(data)
    kind, (seq, units, server_us, refusal_bytes, count) = _header(_REPLY, body)
    if kind != _KIND_REPLY:
        raise MalformedMessage(f"kind is {kind}, not a reply")
    if count > MAX_CLASSES or (count == 0) != (refusal_bytes > 0):
        raise MalformedMessage(f"{count} classes; accepted: 1 to {MAX_CLASSES}, or a refusal")
    if len(body) != _REPLY.size + refusal_bytes + count * _CLASS.size:
        raise MalformedMessage(f"{len(body)} bytes do not hold {count} classes")
    refusal = body[_REPLY.size : _REPLY.size + refusal_bytes].decode(errors="replace")
    classes = list(_CLASS.iter_unpack(body[_REPLY.size + refusal_bytes :]))
    if any(not log_prob <= 0 or math.isinf(log_prob) for _, log_prob in classes):
        raise MalformedMessage("a log-probability is above 0, infinite or not a number")
    if len({class_id for class_id, _ in classes}) != count:
        raise MalformedMessage("a class stands twice")
    class_ids = tuple(class_id for class_id, _ in classes)
    return Reply(seq, refusal or None, class_ids, tuple(p for _, p in classes), units, server_us / 1000)


def _set_sizes(total: int, count: int) -> tuple[int, int]:
    """Bytes of a unit set as (bitmap, list)."""
    return (total + 7) // 8, count * (2 if total > 256 else 1)


def _read_set(data: bytes, flags: int, total: int, count: int) -> Units:
    if flags & _FLAG_LIST:
        units = np.frombuffer(data, ">u2" if total > 256 else "u1").astype(np.intp)
        if units[-1] >= total or (np.diff(units) <= 0).any():
            raise MalformedMessage("the list of units is not ascending within the grid")
        return units
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[total:].any():
        raise MalformedMessage("the bitmap has units outside the grid")
    units = np.flatnonzero(bits)
    if len(units) != count:
        raise MalformedMessage(f"the bitmap holds {len(units)} units, the header says {count}")
    return units


def _header(layout: struct.Struct, body: bytes) -> tuple[int, tuple[int, ...]]:
    if len(body) < layout.size:
        raise MalformedMessage(f"{len(body)} bytes are less than a header")
    magic, version, kind, *fields = layout.unpack_from(body)
    if magic != MAGIC:
        raise MalformedMessage("not a Sagelink message")
    if version != VERSION:
        raise MalformedMessage(f"version {version}; accepted: {VERSION}")
    return kind, tuple(fields)


def _seal(body: bytes) -> bytes:
    return body + _CRC.pack(zlib.crc32(body))


def _unseal(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"{len(data)} bytes; accepted: up to {MAX_MESSAGE_BYTES}")
    if len(data) <= _CRC.size:
        raise MalformedMessage(f"{len(data)} bytes are less than a header")
    body, crc = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
    if zlib.crc32(body) != crc:
        raise MalformedMessage("the checksum does not match")
    return body
