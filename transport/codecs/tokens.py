"""The codec `token-zstd`: quantised tokens of the server's patch embedding, computed on the edge.

Payload: digest of the embedding's weights (4 bytes), then one zstd frame of D scales (1 byte each) and K x D levels
(signed bytes), unit by unit. A channel's scale is 2^(byte / 8 - 16), its largest level 2^(bits - 1) - 1 with
`quality` as the bits. Fewer bits use fewer levels, and zstd makes the payload smaller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.codecs.contract import Canvas, Sends, Tokens, cut_units
from sagelink.transport.codecs.zstd import compress, decompress
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.patch_embedding import HASH_BYTES, Embedding

BITS = (4, 6, 8)
_LEVEL = 9
_STEPS, _MIN_EXPONENT = 8, -16  # scales per octave; the smallest scale is 2^-16


class EmbeddingNeeded(MalformedMessage):
    """Tokens cannot be decoded without the patch embedding of the server model."""


class TokenZstd:
    number = 2
    sends: Sends = "units"

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        """`point.quality` is the number of bits, one of BITS. Raises UsageError for another number,
        or without the server's embedding."""
        if point.quality not in BITS:
            raise UsageError(f"token-zstd has no quality {point.quality}; accepted: {', '.join(map(str, BITS))} bits")
        embedding = _embedding(canvas)
        tokens = embedding.tokens(cut_units(picture, units, canvas.patch_size))
        max_level = 2 ** (point.quality - 1) - 1
        wanted = np.maximum(np.abs(tokens).max(0) / max_level, 2.0**_MIN_EXPONENT)
        scales = np.clip(np.ceil((np.log2(wanted) - _MIN_EXPONENT) * _STEPS), 0, 255).astype(np.uint8)
        levels = np.clip(np.rint(tokens / _scale(scales)), -max_level, max_level).astype(np.int8)
        return embedding.digest + compress(scales.tobytes() + levels.tobytes(), _LEVEL)

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Tokens:
        if canvas.embedding is None:
            raise EmbeddingNeeded("this server takes no tokens")
        if payload[:HASH_BYTES] != canvas.embedding.digest:
            raise MalformedMessage("the tokens are of another model's patch embedding")
        width = canvas.embedding.width
        data = decompress(payload[HASH_BYTES:], width * (1 + len(units)))
        levels = np.frombuffer(data, np.int8, offset=width).reshape(len(units), width)
        tokens: Tokens = levels * _scale(np.frombuffer(data, np.uint8, width))
        return tokens


def _embedding(canvas: Canvas) -> Embedding:
    if canvas.embedding is None:
        raise UsageError("encode.codec token-zstd needs the server model's patch embedding on the edge")
    return canvas.embedding


def _scale(scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = np.exp2(scales.astype(np.float32) / _STEPS + _MIN_EXPONENT)
    return wide
