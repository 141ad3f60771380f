"""The envelope: any damage to a valid message makes it malformed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.envelope import MAX_MESSAGE_BYTES, MalformedMessage
from sagelink.transport.evidence_claim import peek
from sagelink.transport.evidence_message import decode_evidence
from sagelink.transport.reply_message import decode_reply

GOLDEN = Path(__file__).parent / "golden"
VALID = [
    pytest.param(path.read_bytes(), decode, id=path.stem)
    for kind, decode in (("evidence", decode_evidence), ("reply", decode_reply))
    for path in sorted(GOLDEN.glob(f"{kind}-*.bin"))
]


def test_the_messages_that_are_damaged_are_valid():
    assert len(VALID) == 11
    for message in VALID:
        data, decode = message.values
        decode(data)


@pytest.mark.parametrize(("data", "decode"), VALID)
def test_every_truncation_is_malformed(data, decode):
    for length in range(len(data)):
        with pytest.raises(MalformedMessage):
            decode(data[:length])


@pytest.mark.parametrize(("data", "decode"), VALID)
def test_every_extension_is_malformed(data, decode):
    for more in (b"\0", b"\xff", b"\0\0\0\0", data):
        with pytest.raises(MalformedMessage):
            decode(data + more)


@pytest.mark.parametrize(("data", "decode"), VALID)
def test_every_changed_byte_is_malformed(data, decode):
    for position in range(len(data)):
        for flip in range(1, 256):
            changed = bytearray(data)
            changed[position] ^= flip
            with pytest.raises(MalformedMessage):
                decode(bytes(changed))


def test_each_side_refuses_the_messages_of_the_other_kind():
    with pytest.raises(MalformedMessage, match="kind is 1, not reply"):
        decode_reply((GOLDEN / "evidence-few.bin").read_bytes())
    with pytest.raises(MalformedMessage, match="kind is 2, not evidence"):
        decode_evidence((GOLDEN / "reply-classes.bin").read_bytes())


@pytest.mark.parametrize("decode", [decode_evidence, decode_reply])
def test_a_message_beyond_the_limit_is_refused(decode):
    with pytest.raises(MalformedMessage, match=f"{MAX_MESSAGE_BYTES + 1} bytes; accepted: up to {MAX_MESSAGE_BYTES}"):
        decode(bytes(MAX_MESSAGE_BYTES + 1))


@given(st.binary(max_size=80))
def test_random_bytes_are_malformed(data):
    for decode in (decode_evidence, decode_reply):
        with pytest.raises(MalformedMessage):
            decode(data)
    assert peek(data) is None
