"""Picture sizes are read as the encoders wrote them, also from hostile data."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.net.picture_size import h264_size, vp8_size
from tests.net.coded import encode_h264, encode_vp8


@pytest.mark.parametrize("size", [(16, 16), (640, 480), (1920, 1088), (16, 4000)])
def test_vp8_size_is_the_encoders(size: tuple[int, int]) -> None:
    first, *others = encode_vp8(*size, frames=3)
    assert vp8_size(first) == size
    assert others
    assert {vp8_size(other) for other in others} == {(0, 0)}


@pytest.mark.parametrize("data", [b"", b"\0" * 9, b"\0" * 20, b"\x10\2\0\x9d\1\x2a\xff\x3f\xff"])
def test_data_without_a_vp8_key_frame_sets_no_size(data: bytes) -> None:
    assert vp8_size(data) == (0, 0)


def test_the_scale_bits_above_a_vp8_size_are_not_part_of_it() -> None:
    assert vp8_size(b"\x10\2\0\x9d\1\x2a\xff\xff\x01\x40") == (16383, 1)


@pytest.mark.parametrize("options", ["", "profile=baseline", "cqm=jvt", "interlaced=1", "444"])
@pytest.mark.parametrize("size", [(64, 64), (640, 480), (1920, 1080), (64, 2000)])
def test_h264_size_is_the_encoders_in_whole_macroblocks(size: tuple[int, int], options: str) -> None:
    first, *others = encode_h264(*size, frames=3, options=options)
    unit = 32 if options == "interlaced=1" else 16
    assert h264_size(first) == (-(-size[0] // 16) * 16, -(-size[1] // unit) * unit)
    assert others
    assert {h264_size(other) for other in others} == {(0, 0)}


def test_h264_size_survives_packets_and_depacketising() -> None:
    from aiortc.codecs import depayload
    from aiortc.codecs.h264 import H264Encoder
    from aiortc.rtcrtpparameters import RTCRtpCodecParameters

    codec = RTCRtpCodecParameters("video/H264", 90000, payloadType=96)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # a key frame of many packets
    packet = av.Packet(encode_h264(640, 480, pixels=noise)[0])
    packet.pts, packet.time_base = 0, Fraction(1, 90_000)
    payloads, _ = H264Encoder().pack(packet)
    assert len(payloads) > 2
    assert h264_size(b"".join(depayload(codec, payload) for payload in payloads)) == (640, 480)


def sps(fields: str) -> bytes:
    """A start code and an SPS of these bits after profile 66, no constraints, level 31."""
    bits = fields.replace(" ", "") + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\0\1\x67\x42\0\x1f" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def ue(value: int) -> str:
    """An Exp-Golomb code."""
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


def test_an_sps_with_a_picture_order_cycle() -> None:
    cycle = ue(1) + "0" + ue(7) + ue(300) + ue(2) + ue(40) + ue(41)
    assert h264_size(sps(ue(0) + ue(0) + cycle + ue(1) + "0" + ue(99) + ue(49) + "1")) == (1600, 800)


def test_the_largest_of_several_sps_counts() -> None:
    def plain(width: int, height: int) -> bytes:
        return sps(ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(width // 16 - 1) + ue(height // 16 - 1) + "1")

    assert h264_size(plain(64, 64) + plain(16_000, 16_000) + plain(32, 32)) == (16_000, 16_000)


def test_both_readings_of_emulation_bytes_count() -> None:
    """FFmpeg reads an SPS with its emulation bytes if it cannot read it without."""
    head = b"\0\0\1\x67\x42\0\0\3"  # the level is 0, or 3 without removal
    tail = sps(ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(999) + ue(999) + "1")[8:]
    assert h264_size(head + tail) == (16_000, 16_000)


@pytest.mark.parametrize("data", [b"", b"\0\0\1", b"\0\0\1\x67", b"\0\0\1\x67\x42\0\x1f", b"\0\0\1\x67" + bytes(99)])
def test_data_without_a_readable_sps_sets_no_size(data: bytes) -> None:
    assert h264_size(data) == (0, 0)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_size(data: bytes) -> None:
    for read_size in (vp8_size, h264_size):
        for start in (b"", b"\0\0\1\x67\x42\0\x1f", b"\0\0\1\x67\x64\0\x1f"):
            width, height = read_size(start + data)
            assert width >= 0
            assert height >= 0
