"""Evidence messages and their claims: round trips, golden messages, and malformed messages."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.envelope import MAX_MESSAGE_BYTES, MalformedMessage, seal
from sagelink.transport.evidence_claim import EvidenceClaim, peek
from sagelink.transport.evidence_message import (
    MAX_PATCH,
    MAX_SIDE,
    EdgeAnswer,
    EvidenceMessage,
    decode_evidence,
    encode_evidence,
)
from sagelink.transport.unit_set_codec import pack_units

GOLDEN = Path(__file__).parent / "golden"

EVIDENCE = {
    "evidence-small": EvidenceMessage(7, 3, 16, 1, np.array([0, 4, 8]), b"payload"),
    "evidence-few": EvidenceMessage(2**32 - 1, 14, 16, 1, np.array([3, 17, 195]), bytes(range(16))),
    "evidence-wide": EvidenceMessage(258, 64, 8, 250, np.array([0, 255, 256, 4095]), b""),
    "evidence-full": EvidenceMessage(0, 14, 16, 4, np.arange(196), b"\x00"),
    "evidence-head": EvidenceMessage(7, 3, 16, 1, np.array([0, 4, 8]), b"payload", b"head", EdgeAnswer(2, 1.0)),
    "evidence-unknown": EvidenceMessage(7, 3, 16, 1, np.array([0, 4, 8]), b"", b"", EdgeAnswer(None, 0.0)),
    "evidence-heads": EvidenceMessage(
        7, 3, 16, 1, np.array([0, 4, 8]), b"payload", b"head", EdgeAnswer(2, 1.0), (b"sky ", b"gate")
    ),
    "evidence-window": EvidenceMessage(9, 14, 16, 4, (np.arange(3, 9)[:, None] * 14 + np.arange(4, 11)).ravel(), b"x"),
}


def same(one: EvidenceMessage, other: EvidenceMessage) -> bool:
    fields = ("seq", "side", "patch_size", "codec", "payload", "head", "edge_answer", "further")
    return one.units.tolist() == other.units.tolist() and all(getattr(one, f) == getattr(other, f) for f in fields)


def evidence_bytes(
    magic: bytes = b"SG",
    version: int = 4,
    kind: int = 1,
    seq: int = 5,
    side: int = 3,
    patch: int = 16,
    codec: int = 1,
    count: int = 3,
    rest: bytes = b"\x3epayload",  # units 0, 4 and 8: C(0, 1) + C(4, 2) + C(8, 3) = 62 of 84
) -> bytes:
    return seal(struct.pack("!2sBBIBBBH", magic, version, kind, seq, side, patch, codec, count) + rest)


def rectangle_bytes(left: int, top: int, width: int, count: int) -> bytes:
    return evidence_bytes(side=14, count=count | 0x8000, rest=bytes([left, top, width]) + b"payload")


@st.composite
def evidence_messages(draw):
    side = draw(st.integers(1, MAX_SIDE))
    total = side**2
    few = st.sets(st.integers(0, total - 1), min_size=1, max_size=12)
    dense = st.integers(0, 2**32 - 1).map(
        lambda seed: {*np.random.default_rng(seed).permutation(total)[: 1 + seed % total].tolist()}
    )
    units = np.array(sorted(draw(few | dense)), np.intp)
    return EvidenceMessage(
        draw(st.integers(0, 2**32 - 1)),
        side,
        draw(st.integers(1, MAX_PATCH)),
        draw(st.integers(0, 255)),
        units,
        draw(st.binary(max_size=60)),
    )


@given(evidence_messages())
def test_evidence_survives_the_round_trip(message):
    data = encode_evidence(message)
    decoded = decode_evidence(data)
    assert same(decoded, message)
    assert decoded.units.dtype == np.intp
    assert encode_evidence(decoded) == data
    assert peek(data) == EvidenceClaim(message.seq, len(message.units))


@pytest.mark.parametrize(
    ("units", "size"),
    [
        (np.arange(196), 0),
        (np.arange(195), 1),  # no rectangle
        (np.arange(14, 154), 3),  # ten rows
        ((np.arange(2, 13)[:, None] * 14 + np.arange(5, 12)).ravel(), 3),  # eleven rows of seven
        (np.array([3, 17, 31, 45]), 3),  # a column: its rank would take four
        (np.array([3, 4]), 2),  # its rank is shorter
        (np.sort(np.random.default_rng(0).permutation(196)[:98]), 24),
    ],
)
def test_the_unit_set_takes_the_shorter_form(units, size):
    message = EvidenceMessage(1, 14, 16, 4, units, b"payload")
    data = encode_evidence(message)
    assert len(data) == 17 + size + len(b"payload")
    assert same(decode_evidence(data), message)
    assert peek(data) == EvidenceClaim(1, len(units))


@pytest.mark.parametrize("side", [1, 2, 3, 8, 14, 16, 17, 40, 64])
def test_every_number_of_units_survives_the_round_trip(side):
    for count in {*range(1, min(side**2, 40) + 1), side**2 // 16, side**2 // 8, side**2 - 1, side**2} - {0}:
        units = np.sort(np.random.default_rng(count).permutation(side**2)[:count])
        message = EvidenceMessage(1, side, 16, 1, units, b"x")
        assert same(decode_evidence(encode_evidence(message)), message)


# These bytes must be read, and written, by every later version that calls itself 4.
@pytest.mark.parametrize("name", EVIDENCE)
def test_golden_evidence(name):
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert same(decode_evidence(data), EVIDENCE[name])
    assert encode_evidence(EVIDENCE[name]) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (evidence_bytes(magic=b"GS"), "not a Sagelink message"),
        (evidence_bytes(version=0), "version 0; accepted: 4"),
        (evidence_bytes(version=3), "version 3; accepted: 4"),
        (evidence_bytes(kind=0x11), "62 further heads; accepted: 1 to 8"),
        (evidence_bytes(kind=0x11, rest=b"\0\x3epayload"), "0 further heads"),
        (evidence_bytes(kind=0x11, rest=b"\2headx"), "cut short"),
        (evidence_bytes(kind=0x11, rest=b""), "cut short"),
        (evidence_bytes(kind=0x51, rest=b"head\1head\x3e"), "a head is named twice"),
        (evidence_bytes(kind=0x81), "carries a MAC, but mqtt.mac_key_file is not set"),
        (evidence_bytes(kind=2), "kind is 2, not evidence"),
        (evidence_bytes(kind=0), "kind is 0"),
        (evidence_bytes(side=0), "side is 0; accepted: 1 to 64"),
        (evidence_bytes(side=65), "side is 65; accepted: 1 to 64"),
        (evidence_bytes(side=255, count=65_535), "side is 255"),
        (rectangle_bytes(0, 0, 0, 28), "no rectangle of 28 units 0 wide"),
        (rectangle_bytes(0, 0, 5, 28), "no rectangle of 28 units 5 wide"),
        (rectangle_bytes(8, 0, 7, 28), "no rectangle of 28 units 7 wide at 8, 0 on a grid of 14x14"),
        (rectangle_bytes(0, 11, 7, 28), "no rectangle of 28 units 7 wide at 0, 11"),
        (rectangle_bytes(0, 0, 14, 196), "196 of 196 units are no rectangle: their rank is shorter"),
        (rectangle_bytes(0, 0, 1, 0), "0 units on a grid of 196"),
        (evidence_bytes(side=14, count=98 | 0x8000, rest=bytes(2)), "cut short"),
        (evidence_bytes(side=14, count=28, rest=pack_units(np.arange(28), 196)), "fill a rectangle, not sent as one"),
        (evidence_bytes(patch=0), "patch size is 0; accepted: 1 to 64"),
        (evidence_bytes(patch=65), "patch size is 65"),
        (evidence_bytes(count=0), "0 units on a grid of 9"),
        (evidence_bytes(count=10), "10 units on a grid of 9"),
        (evidence_bytes(rest=b"\x54payload"), "no set of 3 of 9 units"),
        (evidence_bytes(rest=b""), "cut short"),
        (evidence_bytes(side=14, count=98, rest=bytes(23)), "cut short"),
        (seal(b"SG"), "less than a header"),
        (seal(b""), "less than a header"),
        (b"", "less than a header"),
        (bytes(4), "less than a header"),
        (bytes(17), "checksum"),
    ],
)
def test_malformed_evidence(data, reason):
    with pytest.raises(MalformedMessage, match=reason):
        decode_evidence(data)


def test_the_largest_message_is_read():
    payload = bytes(MAX_MESSAGE_BYTES - 18)  # header, one byte of unit set, checksum
    data = encode_evidence(EvidenceMessage(5, 3, 16, 1, np.array([0, 4, 8]), payload))
    assert len(data) == MAX_MESSAGE_BYTES
    assert decode_evidence(data).payload == payload


@pytest.mark.parametrize(
    ("data", "seq"),
    [
        (evidence_bytes(), 5),
        (evidence_bytes(side=0), 5),  # malformed, but the frame is known
        (evidence_bytes(kind=2), None),
        (evidence_bytes(version=2), None),
        (evidence_bytes()[:-1], None),
        (b"", None),
    ],
)
def test_peek_returns_the_frame_of_a_valid_header(data, seq):
    claim = peek(data)
    assert (claim and claim.seq) == seq


small = st.integers(0, 255) | st.integers(0, 20)


@given(side=small, patch=small, count=st.integers(0, 40), rest=st.binary(max_size=60))
def test_decoding_and_encoding_restores_the_bytes(side, patch, count, rest):
    data = evidence_bytes(side=side, patch=patch, count=count, rest=rest)
    try:
        message = decode_evidence(data)
    except MalformedMessage:
        return
    assert encode_evidence(message) == data
