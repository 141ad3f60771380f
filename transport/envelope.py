"""The first and last bytes of every binary message between two sides: magic, version, kind and flags; then a checksum.

The modules `evidence_message`, `bundle`, `reply_message`, `head_messages`, `operator_commands` and `picture_parts`
encode and decode the content. docs/wire.md documents the layout; every field is big-endian. Decoders trust no field:
they check each size before they allocate memory for it, and raise MalformedMessage with the reason.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAX_MESSAGE_BYTES = 4_000_000
_START = struct.Struct("!2sBB")  # magic, version, kind with the flags in its upper half
_CRC = struct.Struct("!I")
CRC_BYTES = _CRC.size
ENVELOPE_BYTES = _START.size + CRC_BYTES

_MAGIC = b"SG"
_VERSION = 4
_KIND_AT = 3  # offset of the byte with kind and flags
_SEQ = slice(_START.size, _START.size + 4)  # evidence, bundles and replies begin their content with it
_FLAGS = 0xF0
# A set flag adds or replaces a field; a message without flags has no byte more.
FLAG_MAC = 0x80  # a MAC stands in place of the checksum: `message_auth`
FLAG_HEAD = 0x40  # evidence: the id of the head whose classes are asked for; without it, the model's own classes
FLAG_EDGE_ANSWER = 0x20  # evidence: the edge's own answer
FLAG_FURTHER = 0x10  # evidence: ids of further heads; reply: their answers


class MessageKind(IntEnum):
    EVIDENCE = 1
    REPLY = 2
    BUNDLE = 3
    HEAD_STATUS = 4
    HEAD_PART = 5
    COMMAND = 6
    OUTCOME = 7  # of a command
    PICTURE_PART = 8


class MalformedMessage(ValueError):
    """The bytes are not a message that this version can read; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class OpenedMessage:
    """A message whose envelope and header are right."""

    flags: int
    fields: tuple[Any, ...]  # of the header
    rest: bytes  # behind the header, without the checksum


def seal_message(kind: MessageKind, content: bytes, flags: int = 0) -> bytes:
    """The message of this kind."""
    return seal(_START.pack(_MAGIC, _VERSION, kind | flags) + content)


def open_message(data: bytes, kind: MessageKind, header: struct.Struct, flags: int = 0) -> OpenedMessage:
    """Checks the envelope and unpacks the header, the first fields of the content. `flags`: those that the message may
    have. Raises MalformedMessage."""
    body = unseal(data)
    begin = _START.size
    if len(body) < begin + header.size:
        raise MalformedMessage(f"{len(body)} bytes are less than a header")
    check_version(body)
    found, found_flags = body[_KIND_AT] & ~_FLAGS, body[_KIND_AT] & _FLAGS
    if found != kind:
        raise MalformedMessage(f"kind is {found}, not {kind.name.lower().replace('_', ' ')}")
    if found_flags & ~flags:
        raise MalformedMessage(
            f"the flags {found_flags & ~flags:#04x} are set, which this kind of message does not have"
        )
    return OpenedMessage(found_flags, header.unpack_from(body, begin), body[begin + header.size :])


def has_kind(data: bytes, kind: MessageKind) -> bool:
    """Whether the bytes begin like a message of this kind without flags. Checks nothing else."""
    return data[: _START.size] == _START.pack(_MAGIC, _VERSION, kind)


def claimed_seq(data: bytes) -> int | None:
    """The `seq` in the header of evidence, a bundle or a reply, with checksum and MAC unchecked; None where there is no
    header."""
    return int.from_bytes(data[_SEQ]) if _has_version(data) and len(data) >= _SEQ.stop else None


def check_version(data: bytes) -> None:
    """Raises MalformedMessage unless the bytes begin like a message of this version."""
    if data[: len(_MAGIC)] != _MAGIC or len(data) == len(_MAGIC):
        raise MalformedMessage("not a Sagelink message")
    if not _has_version(data):
        raise MalformedMessage(f"version {data[len(_MAGIC)]}; accepted: {_VERSION}")


def _has_version(data: bytes) -> bool:
    return data[:_KIND_AT] == _MAGIC + bytes([_VERSION])


def seal(body: bytes) -> bytes:
    """Appends the checksum."""
    return body + _CRC.pack(zlib.crc32(body))


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


def has_mac(data: bytes) -> bool:
    """Checks only the first bytes."""
    return _has_version(data) and len(data) > _KIND_AT and bool(data[_KIND_AT] & FLAG_MAC)


def set_mac_flag(body: bytes, on: bool) -> bytes:
    """A message without its checksum or MAC, with the flag set or cleared."""
    kind = body[_KIND_AT] | FLAG_MAC if on else body[_KIND_AT] & ~FLAG_MAC
    return body[:_KIND_AT] + bytes([kind]) + body[_KIND_AT + 1 :]
