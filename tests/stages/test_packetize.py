"""Split messages: each part fits a datagram and decodes on its own, and the parts hold every unit once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sagelink.pipeline.types import OperatingPoint, Pixels
from sagelink.server.receive import receive
from sagelink.stages.codec_planner import Plan
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import find_frontier, read_frontier
from sagelink.stages.packetize import Splitter
from sagelink.transport.bundle import decode_bundle, encode_bundle, is_bundle, parts_of
from sagelink.transport.codecs import Canvas, codec_by_name, cut_units
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_claim import EvidenceClaim, peek
from sagelink.transport.evidence_message import decode_evidence, encode_evidence

CANVAS = Canvas(14, 16)
PART_BYTES = 1155
GOLDEN = Path(__file__).parents[1] / "transport" / "golden"


@pytest.fixture
def picture() -> Pixels:
    """Waves of several lengths with some noise: some kilobytes at a medium quality."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224] / 224
    waves = [np.sin(2 * np.pi * (a * x + b * y)) for a, b in rng.uniform(-12, 12, (9, 2))]
    mixed = np.stack([sum(waves[c::3]) for c in range(3)], -1) * 35 + 128 + rng.normal(0, 5, (224, 224, 3))
    return mixed.clip(0, 255).astype(np.uint8)


def parts_at(picture: Pixels, point: OperatingPoint) -> list[bytes] | None:
    encoder = Encoder([], CANVAS)
    units = encoder.units_at(np.random.default_rng(1).permutation(196), point)
    whole = len(encoder.message(3, picture, units, point))
    return Splitter(picture, CANVAS, PART_BYTES).split(units, point, whole, partial(encoder.encode_units, 3, picture))


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint("avif", 196, 224, 45),
        OperatingPoint("avif", 196, 160, 60),
        OperatingPoint("avif", 154, 224, 45),
        OperatingPoint("webp", 196, 160, 40),
        OperatingPoint("raw-zstd", 12, 224, 0),
    ],
    ids=lambda point: f"{point.codec}-{point.units}-{point.side}",
)
def test_each_part_decodes_on_its_own(picture: Pixels, point: OperatingPoint) -> None:
    parts = parts_at(picture, point)
    assert parts is not None
    assert len(parts) > 1
    assert max(map(len, parts)) <= PART_BYTES
    units = np.concatenate([decode_evidence(part).units for part in parts])
    assert len(set(units.tolist())) == len(units) == point.units
    separate = [receive(part, CANVAS) for part in parts]
    whole = receive(encode_bundle(3, parts), CANVAS)
    for received in separate:
        places = np.searchsorted(whole.units, received.units)
        assert (whole.content[places] == received.content).all()


@pytest.mark.parametrize("codec", ["avif", "raw-zstd"])
@pytest.mark.parametrize("error", [0.3, 1.0])
def test_a_part_that_is_too_long_is_split_in_two(picture: Pixels, codec: str, error: float) -> None:
    """Whatever the error of the expected size, each unit is there once, and few messages are coded per part."""
    coded: list[int] = []

    def code(units: np.ndarray, _: OperatingPoint) -> bytes:
        coded.append(len(units))
        return units.astype(np.uint8).tobytes() * 40

    order = np.random.default_rng(1).permutation(196)
    point = OperatingPoint(codec, 196, 224, 0)
    parts = Splitter(picture, CANVAS, PART_BYTES).split(order, point, error * 196 * 40, code)
    assert parts is not None
    assert max(map(len, parts)) <= PART_BYTES
    assert sorted(unit for part in parts for unit in set(part)) == list(range(196))
    assert len(coded) < 2 * len(parts)


def test_a_row_that_is_too_long_cannot_be_split(picture: Pixels) -> None:
    point = OperatingPoint("avif", 14, 224, 90)
    assert Splitter(picture, CANVAS, PART_BYTES).split(np.arange(14), point, 2000, lambda *_: bytes(2000)) is None


class CountingEncoder(Encoder):
    messages = 0

    def encode_units(self, *args: object) -> bytes:
        self.messages += 1
        return super().encode_units(*args)


@pytest.mark.parametrize("max_bytes", [1155, 1156, 1300, 2000, 4000, 8000, 10**6])
def test_a_message_within_a_limit_is_split_and_few_parts_are_coded(picture: Pixels, max_bytes: int) -> None:
    curves = read_frontier(find_frontier("vit_tiny_patch16_224.augreg_in21k_ft_in1k", None), CANVAS)
    encoder = CountingEncoder(curves, CANVAS, part_bytes=PART_BYTES)
    plan = encoder.fit(3, picture, np.random.default_rng(1).permutation(196), max_bytes)
    assert isinstance(plan, Plan)
    assert len(plan.message) <= max_bytes
    assert peek(plan.message) == EvidenceClaim(3, plan.point.units)
    parts = parts_of(plan.message)
    if codec_by_name(plan.point.codec).sends != "whole":
        assert max(map(len, parts)) <= PART_BYTES
    assert encoder.messages <= 2 + 3 * 2 * max(8, len(parts))
    if max_bytes > 4000:
        assert len(parts) > 3


def test_only_the_units_of_a_lost_part_are_missing(picture: Pixels) -> None:
    parts = parts_at(picture, OperatingPoint("avif", 196, 224, 45))
    assert parts is not None
    message = encode_bundle(3, parts[1:])
    received = receive(message, CANVAS)
    assert peek(message) == EvidenceClaim(3, len(received.units))
    assert set(received.units) == set(range(196)) - set(decode_evidence(parts[0]).units)


def test_a_decoded_band_looks_like_the_picture(picture: Pixels) -> None:
    parts = parts_at(picture, OperatingPoint("avif", 196, 224, 55))
    assert parts is not None
    received = receive(encode_bundle(3, parts), CANVAS)
    tiles = picture.reshape(14, 16, 14, 16, 3).swapaxes(1, 2).reshape(196, 16, 16, 3)
    assert np.abs(received.content.astype(int) - tiles).mean() < 12


def test_a_whole_file_cannot_be_split(picture: Pixels) -> None:
    assert parts_at(picture, OperatingPoint("webp-frame", 196, 224, 60)) is None


def test_a_bundle_decodes_to_its_parts() -> None:
    message = encode_bundle(7, [b"one", b"", b"three"])
    assert message.hex(" ") == "53 47 04 03 00 00 00 07 03 00 03 6f 6e 65 00 00 00 05 74 68 72 65 65 fc f4 17 19"
    assert decode_bundle(message) == (7, [b"one", b"", b"three"])
    assert parts_of(message) == [b"one", b"", b"three"]
    assert is_bundle(message)
    assert parts_of(b"anything else") == [b"anything else"]
    for end in range(len(message)):
        with pytest.raises(MalformedMessage):
            decode_bundle(message[:end])


@pytest.mark.parametrize("name", ["avif", "webp"])
def test_golden_bands(name: str) -> None:
    """Every later release of wire version 3 must read these bytes; the codec libraries may write other bytes."""
    golden = (GOLDEN / f"bands-{name}.bin").read_bytes()
    codec, units = codec_by_name(name), [np.array([0, 1, 3, 5, 6]), np.array([8, 11, 13, 14, 15])]
    seq, parts = decode_bundle(golden)
    messages = [decode_evidence(part) for part in parts]
    assert [each.units.tolist() for each in messages] == [each.tolist() for each in units]
    assert [(each.side, each.patch_size, each.codec) for each in messages] == [(4, 16, codec.number)] * 2
    assert encode_bundle(seq, [encode_evidence(each) for each in messages]) == golden
    y, x = np.mgrid[:64, :64]
    drawn = np.stack([4 * x, 4 * y, 255 - 2 * (x + y)], -1).astype(np.uint8)
    for each, message in zip(units, messages, strict=True):
        decoded = codec.decode(message.payload, each, Canvas(4, 16))
        assert np.abs(cut_units(drawn, each, 16).astype(int) - decoded).mean() < 4
        point = OperatingPoint(name, len(each), 48, 70)
        heads = [payload[:1] for payload in (codec.encode(drawn, each, point, Canvas(4, 16)), message.payload)]
        assert heads == [bytes([48 // 8])] * 2
    assert receive(golden, Canvas(4, 16)).units.tolist() == np.concatenate(units).tolist()


def test_parts_that_do_not_belong_together_are_refused(picture: Pixels) -> None:
    parts = parts_at(picture, OperatingPoint("avif", 196, 224, 45))
    assert parts is not None
    with pytest.raises(MalformedMessage, match="overlap or differ in kind"):
        receive(encode_bundle(3, [parts[0], parts[0]]), CANVAS)
    with pytest.raises(MalformedMessage, match="different frames"):
        receive(encode_bundle(4, parts), CANVAS)
