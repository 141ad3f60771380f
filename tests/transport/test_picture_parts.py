"""Parts of pictures of events: what is encoded is decoded, and everything else is malformed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.picture_parts import (
    PicturePart,
    decode_picture_part,
    encode_picture_part,
    picture_message_bytes,
)

PART = PicturePart("gate-r-19a-3-0123abcd", 2000, 500, bytes(range(200)))


def test_a_part_is_decoded_as_it_was_encoded():
    data = encode_picture_part(PART)
    assert decode_picture_part(data) == PART
    assert len(data) == picture_message_bytes(PART.event, len(PART.data))
    assert data[:4].hex() == "53470408"


@pytest.mark.parametrize(
    "change",
    [
        {"total_bytes": 0},
        {"total_bytes": 200_001},
        {"offset": 1900},
        {"data": b""},
        {"data": bytes(1001)},
        {"data": bytes(119)},
        {"event": ""},
        {"event": "x" * 201},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_part_beyond_the_limits_is_malformed(change):
    with pytest.raises(MalformedMessage):
        decode_picture_part(encode_picture_part(replace(PART, **change)))


def test_damaged_and_short_messages_are_malformed():
    data = encode_picture_part(PART)
    for wrong in (b"", data[:10], data[:-1], bytes([*data[:20], data[20] ^ 1, *data[21:]])):
        with pytest.raises(MalformedMessage):
            decode_picture_part(wrong)


def test_the_last_part_may_be_short():
    last = PicturePart("e", 130, 129, b"x")
    assert decode_picture_part(encode_picture_part(last)) == last
