"""The codec `raw-zstd`, as in the paper: zstd of the units' pixels. Lossless; zstd saves 5 to 12 % on camera pixels."""

from __future__ import annotations

import numpy as np

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.codecs.contract import Canvas, Patches, Sends, cut_units
from sagelink.transport.codecs.zstd import compress, decompress


class RawZstd:
    number = 1
    sends: Sends = "units"

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        return compress(cut_units(picture, units, canvas.patch_size).tobytes())

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        shape = (len(units), canvas.patch_size, canvas.patch_size, 3)
        return np.frombuffer(decompress(payload, len(units) * canvas.patch_size**2 * 3), np.uint8).reshape(shape)
