"""Evidence codecs: chosen units of a picture to payload bytes and back.

A codec is pure, deterministic and bounded. `encode` takes the picture and ascending unit indices; `decode` gives back
the units' pixels in that order, and raises MalformedMessage rather than allocate more than the units need.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from pipeline.errors import UsageError, suggest
from pipeline.types import Pixels, Units
from transport.wire import MalformedMessage

_SLICE = 64  # bytes


class Codec(Protocol):
    number: int  # stands in the message's header

    def encode(self, picture: Pixels, units: Units, patch_size: int) -> bytes:
        """`picture` (S, S, 3) RGB; `units` (K,) ascending, K >= 1."""
        ...

    def decode(self, payload: bytes, units: Units, side: int, patch_size: int) -> NDArray[np.uint8]:
        """RGB uint8 (K, patch, patch, 3) in the order of `units`. Raises MalformedMessage."""
        ...


class RawZstd:
    """The paper's form: the units' own pixels through zstd. Lossless; zstd gains 5 to 12 % on camera pixels."""

    number = 1

    def __init__(self, level: int = 3) -> None:
        # Magicless and without the content size: the decoder knows both.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0, write_dict_id=0
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def encode(self, picture: Pixels, units: Units, patch_size: int) -> bytes:
        return self._compressor.compress(cut_units(picture, units, patch_size).tobytes())

    def decode(self, payload: bytes, units: Units, side: int, patch_size: int) -> NDArray[np.uint8]:
        size = len(units) * patch_size * patch_size * 3
        frame = zstandard.ZstdDecompressor(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=max(1 << 10, 1 << (size - 1).bit_length())
        ).decompressobj()
        pixels, rest = bytearray(), memoryview(payload)
        try:
            # In small slices: a payload that unpacks to more than the units' pixels is noticed soon after them.
            while rest and not frame.eof and len(pixels) <= size:
                pixels += frame.decompress(rest[:_SLICE])
                rest = rest[_SLICE:]
        except zstandard.ZstdError as error:
            raise MalformedMessage(f"zstd: {error}") from None
        if rest or not frame.eof or frame.unused_data or len(pixels) != size:
            raise MalformedMessage(f"the payload does not hold {len(units)} units of {patch_size}x{patch_size} pixels")
        return np.frombuffer(bytes(pixels), np.uint8).reshape(len(units), patch_size, patch_size, 3)


def cut_units(picture: Pixels, units: Units, patch_size: int) -> NDArray[np.uint8]:
    """The pixels of units, (K, patch, patch, 3)."""
    side = picture.shape[0] // patch_size
    tiles = picture.reshape(side, patch_size, side, patch_size, 3)
    return tiles[units // side, :, units % side]


_CODECS: dict[str, Codec] = {"raw-zstd": RawZstd()}


def register_codec(name: str, codec: Codec) -> None:
    """Makes a codec known to both sides under a name and its number."""
    if any(codec.number == known.number for known in _CODECS.values()):
        raise ValueError(f"codec number {codec.number} is taken")
    _CODECS[name] = codec


def codec_by_name(name: str) -> Codec:
    """Raises UsageError for an unknown name."""
    if name not in _CODECS:
        raise UsageError(
            f"encode.codec: unknown codec {name!r}{suggest(name, [*_CODECS])}; accepted: {', '.join(_CODECS)}"
        )
    return _CODECS[name]


def codec_by_number(number: int) -> Codec:
    """Raises MalformedMessage for an unknown number."""
    for codec in _CODECS.values():
        if codec.number == number:
            return codec
    raise MalformedMessage(f"unknown codec {number}")
