"""The decoder gate: pictures that are too large or too many end the stream, and the end goes first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sagelink.net.decoder_gate import _MAX_WAITING, DecoderGate
from tests.net.coded import encode_h264, encode_vp8

HUGE_VP8 = b"\x10\2\0\x9d\1\x2a\xff\x3f\xff\x3f"  # 16383 x 16383


def coded(data: bytes, codec: str = "VP8") -> tuple[object, object]:
    return SimpleNamespace(name=codec), SimpleNamespace(data=data)


def test_a_picture_that_is_too_large_and_all_later_ones_never_reach_the_decoder() -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    gate.put(coded(encode_vp8(640, 480)[0]))
    gate.put(coded(HUGE_VP8, "H264"))  # as H.264 these bytes set no size
    assert faults == []
    gate.put(coded(HUGE_VP8))
    gate.put(coded(HUGE_VP8))
    gate.put(coded(encode_vp8(640, 480)[0]))
    assert faults == ["pictures of 16383x16383; accepted: up to 307200 pixels"]
    assert gate.qsize() == 2


def test_the_limit_holds_for_h264() -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    for data in encode_h264(640, 480, frames=3):
        gate.put(coded(data, "H264"))
    assert (faults, gate.qsize()) == ([], 3)
    gate.put(coded(encode_h264(656, 480)[0], "H264"))
    assert faults == ["pictures of 656x480; accepted: up to 307200 pixels"]
    assert gate.qsize() == 3


def test_a_codec_whose_size_cannot_be_read_does_not_pass() -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    gate.put(coded(b"x", "AV1"))
    assert faults == ["pictures of codec 'AV1'; accepted: VP8, H264"]
    assert gate.empty()


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_pictures_do_not_pile_up_and_the_end_goes_first(codec: str) -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    for _ in range(2 * _MAX_WAITING):
        gate.put(coded(b"x" * 100, codec))
    assert faults == ["pictures come faster than they can be decoded"]
    assert gate.qsize() == _MAX_WAITING
    gate.put(None)
    assert gate.get() is None
    assert gate.empty()
