"""Reads width and height from a coded picture (VP8 or H.264), before a decoder allocates memory for it.

Input is one coded picture as aiortc passes it to its decoder: a VP8 frame, or H.264 NAL units after start codes (Annex
B; aiortc has undone STAP-A and FU-A). Output is (width, height) in pixels; (0, 0) if the picture sets no size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VP8_START = b"\x9d\x01\x2a"  # of a key frame (RFC 6386, section 9.1), before its width and height
_START_CODE = b"\0\0\1"
_SPS = 7  # type of the NAL unit that holds a sequence parameter set (ITU-T H.264, table 7-1)
_SIZE_LIMIT = 4096  # bytes of an SPS that are read; real ones have less than 100
# Profiles whose SPS has chroma and scaling fields (7.3.2.1.1); 144 is an old number that FFmpeg still accepts.
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 138, 144, 244}


def vp8_size(data: bytes) -> tuple[int, int]:
    """Width and height of a key frame; (0, 0) for a frame that keeps the size of the previous one."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != _VP8_START:
        return 0, 0
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


def h264_size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest sequence parameter set in the data, before cropping; (0, 0) without one.

    FFmpeg reads an SPS without removing emulation bytes if the regular reading fails, so both readings count here. An
    SPS whose size cannot be read counts as none: FFmpeg cannot read it either.
    """
    sizes = [(0, 0)]
    for unit in _units(data):
        if unit and unit[0] & 0x1F == _SPS:
            body = unit[1:_SIZE_LIMIT]
            sizes += [_sps_size(body.replace(b"\0\0\3", b"\0\0")), _sps_size(body)]
    return max(sizes, key=lambda size: size[0] * size[1])


def _units(data: bytes) -> Iterator[bytes]:
    """The NAL units after the start codes."""
    start = data.find(_START_CODE)
    while start >= 0:
        start += len(_START_CODE)
        end = data.find(_START_CODE, start)
        yield data[start : end if end >= 0 else len(data)]
        start = end


def _sps_size(body: bytes) -> tuple[int, int]:
    """Width and height from the bytes after the NAL header; (0, 0) if they end too early or are invalid."""
    try:
        return _read_sps(_Bits(body))
    except ValueError:
        return 0, 0


def _read_sps(bits: _Bits) -> tuple[int, int]:
    """ITU-T H.264, 7.3.2.1.1, up to the size. Raises ValueError."""
    profile = bits.take(8)
    bits.take(16)  # constraint flags, level
    bits.unsigned()  # id
    if profile in _HIGH_PROFILES:
        _skip_high_profile(bits)
    bits.unsigned()  # log2_max_frame_num
    order = bits.unsigned()  # pic_order_cnt_type
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.unsigned(), bits.unsigned()  # signed in the standard; the length of the code is the same
        for _ in range(_at_most(bits.unsigned(), 255)):
            bits.unsigned()
    bits.unsigned()  # max_num_ref_frames
    bits.take(1)
    width, height = bits.unsigned() + 1, bits.unsigned() + 1
    return 16 * width, 16 * height * (2 - bits.take(1))  # without frame_mbs_only, a row of units is half of a frame's


def _skip_high_profile(bits: _Bits) -> None:
    chroma = _at_most(bits.unsigned(), 3)
    if chroma == 3:
        bits.take(1)
    bits.unsigned(), bits.unsigned()  # bit depths
    bits.take(1)
    if bits.take(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.take(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) & 0xFF
            last = following or last


def _at_most(value: int, limit: int) -> int:
    if value > limit:
        raise ValueError(f"{value} is above {limit}")
    return value


class _Bits:
    """Reads bits of a byte string, the most significant first. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("no more bits")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def unsigned(self) -> int:
        """An Exp-Golomb code (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros = _at_most(zeros + 1, 32)
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)
