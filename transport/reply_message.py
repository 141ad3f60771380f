"""Encodes and decodes replies: the server's classes for one evidence message, or the reason of a refusal
(docs/wire.md)."""

from __future__ import annotations

import math
import struct

from sagelink.pipeline.config.schema import MAX_FURTHER_HEADS
from sagelink.pipeline.types import Reply, TopClasses
from sagelink.transport.envelope import FLAG_FURTHER, MalformedMessage, MessageKind, open_message, seal_message

MAX_CLASSES = 16
# seq, units, time at the server and time in its queue (us), frames in that queue, bytes of the refusal, number of
# classes
_HEADER = struct.Struct("!IHIIHBB")
_CLASS = struct.Struct("!If")  # class id, log-probability
_MAX_TIME_US = 2**32 - 1
_MAX_WAITING = 2**16 - 1
_MAX_REFUSAL_BYTES = 255


def encode_reply(reply: Reply) -> bytes:
    """The message. Times and lengths beyond their field are cut to its maximum."""
    refusal = (reply.refusal or "").encode()[:_MAX_REFUSAL_BYTES]
    header = _HEADER.pack(
        reply.seq,
        reply.units,
        min(round(reply.server_ms * 1000), _MAX_TIME_US),
        min(round(reply.queue_ms * 1000), _MAX_TIME_US),
        min(reply.waiting, _MAX_WAITING),
        len(refusal),
        len(reply.class_ids),
    )
    further = b"".join(bytes([len(top[0])]) + _pack_classes(top) for top in reply.further)
    if reply.further:
        further = bytes([len(reply.further)]) + further
    content = header + refusal + _pack_classes(reply.top) + further
    return seal_message(MessageKind.REPLY, content, FLAG_FURTHER if reply.further else 0)


def _pack_classes(top: TopClasses) -> bytes:
    return b"".join(_CLASS.pack(class_id, min(p, 0.0)) for class_id, p in zip(*top, strict=True))


def decode_reply(data: bytes) -> Reply:
    """The reverse of `encode_reply`. Raises MalformedMessage."""
    opened = open_message(data, MessageKind.REPLY, _HEADER, FLAG_FURTHER)
    rest = opened.rest
    seq, units, server_us, queue_us, waiting, refusal_bytes, count = opened.fields
    if count > MAX_CLASSES or (count == 0) != (refusal_bytes > 0):
        raise MalformedMessage(f"{count} classes; accepted: 1 to {MAX_CLASSES}, or a refusal")
    refusal = rest[:refusal_bytes].decode(errors="replace")
    (class_ids, log_probs), end = _unpack_classes(rest, refusal_bytes, count)
    further, end = _unpack_further(rest, end) if opened.flags & FLAG_FURTHER else ((), end)
    if len(rest) != end:
        raise MalformedMessage(f"{len(rest)} bytes do not hold {count} classes")
    server_ms, queue_ms = server_us / 1000, queue_us / 1000
    return Reply(seq, refusal or None, class_ids, log_probs, units, server_ms, queue_ms, waiting, further)


def _unpack_further(content: bytes, begin: int) -> tuple[tuple[TopClasses, ...], int]:
    """The answers of further heads at `begin`, and the offset of their end. Raises MalformedMessage."""
    count, end = content[begin] if begin < len(content) else 0, begin + 1
    if not 1 <= count <= MAX_FURTHER_HEADS:
        raise MalformedMessage(f"{count} further heads; accepted: 1 to {MAX_FURTHER_HEADS}")
    answers = []
    for _ in range(count):
        classes = content[end] if end < len(content) else 0
        if classes > MAX_CLASSES:
            raise MalformedMessage(f"{classes} classes of a further head; accepted: up to {MAX_CLASSES}")
        answer, end = _unpack_classes(content, end + 1, classes)
        answers.append(answer)
    return tuple(answers), end


def _unpack_classes(content: bytes, begin: int, count: int) -> tuple[TopClasses, int]:
    """So many classes at `begin`, and the offset of their end. Raises MalformedMessage."""
    end = begin + count * _CLASS.size
    if len(content) < end:
        raise MalformedMessage(f"{len(content)} bytes do not hold {count} classes")
    classes = list(_CLASS.iter_unpack(content[begin:end]))
    if any(not log_prob <= 0 or math.isinf(log_prob) for _, log_prob in classes):
        raise MalformedMessage("a log-probability is above 0, infinite or not a number")
    if len({class_id for class_id, _ in classes}) != count:
        raise MalformedMessage("a class occurs twice")
    return (tuple(class_id for class_id, _ in classes), tuple(p for _, p in classes)), end
