"""Replies: round trips, golden messages, and malformed messages."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sagelink.pipeline.types import Reply
from sagelink.transport.envelope import MalformedMessage, seal
from sagelink.transport.reply_message import MAX_CLASSES, decode_reply, encode_reply

GOLDEN = Path(__file__).parent / "golden"

REPLIES = {
    "reply-classes": Reply(7, None, (3, 0, 99_999), (-0.5, -1.25, -20.0), 196, 12.345, 3.21, 17),
    "reply-heads": Reply(7, None, (3, 0), (-0.5, -1.25), 196, 12.345, 3.21, 17, (((1, 0), (-0.25, -2.0)), ((), ()))),
    "reply-refusal": Reply(8, "kein Gitter für mich", (), (), 0, 0.0),
}


def reply_bytes(
    classes: list[tuple[int, float]],
    refusal: bytes = b"",
    magic: bytes = b"SG",
    version: int = 4,
    kind: int = 2,
    count: int | None = None,
    refusal_bytes: int | None = None,
    rest: bytes = b"",
) -> bytes:
    count = len(classes) if count is None else count
    refusal_bytes = len(refusal) if refusal_bytes is None else refusal_bytes
    header = struct.pack("!2sBBIHIIHBB", magic, version, kind, 5, 9, 1000, 400, 3, refusal_bytes, count)
    return seal(header + refusal + b"".join(struct.pack("!If", *pair) for pair in classes) + rest)


log_probs = st.floats(-(2.0**100), 0, width=32)


@st.composite
def replies(draw):
    seq, units = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**16 - 1))
    server_ms = draw(st.integers(0, 2**32 - 1)) / 1000
    if draw(st.booleans()):
        refusal = draw(st.text("abc äöü\N{SNOWMAN}", min_size=1, max_size=80))
        return Reply(seq, refusal, (), (), units, server_ms, server_ms, seq % 65_536)
    classes = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=MAX_CLASSES, unique=True))
    values = draw(st.lists(log_probs, min_size=len(classes), max_size=len(classes)))
    return Reply(seq, None, tuple(classes), tuple(values), units, server_ms)


@given(replies())
@example(Reply(0, None, (0,), (-0.0,), 0, 0.0))
def test_replies_survive_the_round_trip(reply):
    assert decode_reply(encode_reply(reply)) == reply


def test_a_long_refusal_is_cut():
    decoded = decode_reply(encode_reply(Reply(1, "é" * 300, (), (), 0, 0.0)))
    assert decoded.refusal is not None
    assert decoded.refusal.startswith("é" * 127)
    assert len(decoded.refusal) <= 128


def test_a_server_time_beyond_the_field_is_capped():
    assert decode_reply(encode_reply(Reply(1, "no", (), (), 0, 1e12))).server_ms == (2**32 - 1) / 1000


# These bytes must be read, and written, by every later version that calls itself 4.
@pytest.mark.parametrize("name", REPLIES)
def test_golden_replies(name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert decode_reply(data) == REPLIES[name]
    assert encode_reply(REPLIES[name]) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (reply_bytes([(1, -1.0)], magic=b"XX"), "not a Sagelink message"),
        (reply_bytes([(1, -1.0)], version=9), "version 9"),
        (reply_bytes([(1, -1.0)], kind=1), "kind is 1, not reply"),
        (reply_bytes([]), "0 classes"),
        (reply_bytes([(1, -1.0)], b"no"), "1 classes"),
        (reply_bytes([(i, -1.0) for i in range(MAX_CLASSES + 1)]), "17 classes; accepted: 1 to 16"),
        (reply_bytes([(1, -1.0)], count=2), "do not hold 2 classes"),
        (reply_bytes([(1, -1.0), (2, -2.0)], count=1), "do not hold 1 classes"),
        (reply_bytes([(1, -1.0)], rest=b"\0"), "do not hold"),
        (reply_bytes([], b"no", refusal_bytes=200), "do not hold"),
        (reply_bytes([], b"no", refusal_bytes=1), "do not hold"),
        (reply_bytes([(1, math.nan)]), "log-probability"),
        (reply_bytes([(1, math.inf)]), "log-probability"),
        (reply_bytes([(1, -math.inf)]), "log-probability"),
        (reply_bytes([(1, 0.01)]), "log-probability"),
        (reply_bytes([(1, -1.0), (2, math.nan)]), "log-probability"),
        (reply_bytes([(1, -1.0), (1, -2.0)]), "a class occurs twice"),
        (reply_bytes([(1, -1.0)], kind=0x12), "0 further heads; accepted: 1 to 8"),
        (reply_bytes([(1, -1.0)], kind=0x12, rest=b"\x09"), "9 further heads"),
        (reply_bytes([(1, -1.0)], kind=0x12, rest=b"\1\x11"), "17 classes of a further head; accepted: up to 16"),
        (reply_bytes([(1, -1.0)], kind=0x12, rest=b"\1\1"), "do not hold 1 classes"),
        (reply_bytes([(1, -1.0)], kind=0x12, rest=b"\1\0\0"), "do not hold"),
        (reply_bytes([(1, -1.0)], kind=0x12, rest=b"\1\1" + struct.pack("!If", 1, 0.5)), "log-probability"),
        (reply_bytes([(1, -1.0)], kind=0x22), "the flags 0x20 are set"),
        (seal(b"SG\x04\x02"), "less than a header"),
    ],
)
def test_malformed_replies(data, reason):
    with pytest.raises(MalformedMessage, match=reason):
        decode_reply(data)


@given(refusal_bytes=st.integers(0, 12), count=st.integers(0, 4), rest=st.binary(max_size=40))
def test_a_decoded_reply_is_consistent(refusal_bytes, count, rest):
    data = reply_bytes([], count=count, refusal_bytes=refusal_bytes, rest=rest)
    try:
        reply = decode_reply(data)
    except MalformedMessage:
        return
    assert (reply.refusal is None) == bool(reply.class_ids)
    assert len(reply.class_ids) == len(reply.log_probs) == count
    assert all(math.isfinite(value) and value <= 0 for value in reply.log_probs)
