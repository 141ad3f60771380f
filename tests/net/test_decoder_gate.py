"""What passes to a decoder: sizes as VP8 writes them, a queue that ends."""

from __future__ import annotations

from types import SimpleNamespace

import av
import numpy as np
import pytest

from sagelink.net.decoder_gate import _MOST_WAITING, DecoderGate, vp8_size


def vp8(width: int, height: int, frames: int = 1) -> list[bytes]:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    picture = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
    packets = [packet for _ in range(frames) for packet in encoder.encode(picture)] + encoder.encode(None)
    return [bytes(packet) for packet in packets]


def coded(data: bytes, codec: str = "VP8") -> tuple[object, object]:
    return SimpleNamespace(name=codec), SimpleNamespace(data=data)


@pytest.mark.parametrize("size", [(16, 16), (640, 480), (1920, 1088), (16, 4000)])
def test_the_size_is_the_encoders(size: tuple[int, int]) -> None:
    first, *others = vp8(*size, frames=3)
    assert vp8_size(first) == size
    assert others
    assert {vp8_size(other) for other in others} == {(0, 0)}


@pytest.mark.parametrize("data", [b"", b"\0" * 9, b"\0" * 20, b"\x10\2\0\x9d\1\x2a\xff\x3f\xff"])
def test_what_is_no_key_frame_sets_no_size(data: bytes) -> None:
    assert vp8_size(data) == (0, 0)


def test_the_scale_above_a_size_is_no_part_of_it() -> None:
    assert vp8_size(b"\x10\2\0\x9d\1\x2a\xff\xff\x01\x40") == (16383, 1)


def test_a_picture_that_is_too_large_and_what_follows_never_get_to_the_decoder() -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    gate.put(coded(vp8(640, 480)[0]))
    claims = b"\x10\2\0\x9d\1\x2a\xff\x3f\xff\x3f"
    gate.put(coded(claims, "H264"))  # it says its size elsewhere
    assert faults == []
    gate.put(coded(claims))
    gate.put(coded(claims))
    gate.put(coded(vp8(640, 480)[0]))
    assert faults == ["pictures of 16383x16383; accepted: up to 307200 pixels"]
    assert gate.qsize() == 2


def test_pictures_do_not_pile_up_and_the_end_goes_first() -> None:
    faults: list[str] = []
    gate = DecoderGate(640 * 480, faults.append)
    for _ in range(2 * _MOST_WAITING):
        gate.put(coded(b"x" * 100))
    assert faults == ["pictures come faster than they can be decoded"]
    assert gate.qsize() == _MOST_WAITING
    gate.put(None)
    assert gate.get() is None
    assert gate.empty()
