"""Evidence codecs based on image formats: `webp` and `avif`, and whole image files for comparison.

`webp` and `avif` encode the rectangle around the selected units, at any resolution, with the other units in it blanked
out, and send the frame without its container: one byte with the side, then the result of the format's `strip`.
`webp-frame`, `avif-frame` and `jpeg-frame` send the whole picture as a file that any other program can read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.codecs.contract import Canvas, Patches, Sends, cut_units
from sagelink.transport.codecs.masking import masked, restored, scaled_down
from sagelink.transport.envelope import MalformedMessage

SIDE_STEP = 8  # pixels: sides are multiples of this, or the picture's own
_MIN_SIDE = 2  # pixels on a side of an encoded picture


class ImageFormat(Protocol):
    """A module for one image format. Image decoders only get files that `rebuild` has written."""

    def encode(self, image: Image.Image, quality: int) -> bytes: ...

    def strip(self, file: bytes) -> tuple[int, int, bytes]:
        """Width and height of the picture, and the bytes that `rebuild` needs beside them. Raises MalformedMessage."""
        ...

    def rebuild(self, width: int, height: int, core: bytes) -> bytes: ...


class Stripped:
    """The selected units in a picture of any resolution, without the container."""

    sends: Sends = "part"

    def __init__(self, number: int, image_format: ImageFormat) -> None:
        self.number = number
        self._format = image_format

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        span, patch = _Span.of(units, canvas), canvas.patch_size
        selected = np.zeros((canvas.side, canvas.side), bool)
        selected.flat[units] = True
        part = picture[span.top * patch : span.bottom * patch, span.left * patch : span.right * patch]
        part = masked(part, selected[span.top : span.bottom, span.left : span.right], patch)
        image = scaled_down(part, *span.size(point.side, canvas))
        _, _, core = self._format.strip(self._format.encode(image, point.quality))
        return bytes([0 if point.side == canvas.pixels else point.side // SIDE_STEP]) + core

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        if not payload:
            raise MalformedMessage("the payload is empty")
        side = payload[0] * SIDE_STEP or canvas.pixels
        _check_size(side, side, canvas)
        span = _Span.of(units, canvas)
        part = _decode(self._format, *span.size(side, canvas), payload[1:], span.size(canvas.pixels, canvas))
        rows, columns = span.bottom - span.top, span.right - span.left
        tiles = part.reshape(rows, canvas.patch_size, columns, canvas.patch_size, 3)
        return tiles[units // canvas.side - span.top, :, units % canvas.side - span.left]


@dataclass(frozen=True, slots=True)
class _Span:
    """The smallest rectangle of the grid that contains given units."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, units: Units, canvas: Canvas) -> _Span:
        y, x = np.divmod(units, canvas.side)
        return cls(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)

    def size(self, side: int, canvas: Canvas) -> tuple[int, int]:
        """Width and height in pixels of this rectangle, if the whole picture is `side` x `side` pixels."""
        across, down = self.right - self.left, self.bottom - self.top
        return max(_MIN_SIDE, round(side * across / canvas.side)), max(_MIN_SIDE, round(side * down / canvas.side))


class WholeFile:
    """The whole picture at any resolution, as an image file."""

    sends: Sends = "whole"

    def __init__(self, number: int, image_format: ImageFormat) -> None:
        self.number = number
        self._format = image_format

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        assert len(units) == canvas.units, "a whole frame has all units"
        return self._format.encode(scaled_down(picture, point.side, point.side), point.quality)

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        if len(units) != canvas.units:
            raise MalformedMessage(f"a whole frame with {len(units)} of {canvas.units} units")
        width, height, core = self._format.strip(payload)
        _check_size(width, height, canvas)
        if width != height:
            raise MalformedMessage(f"a picture of {width}x{height} pixels is not square")
        picture = _decode(self._format, width, height, core, (canvas.pixels, canvas.pixels))
        return cut_units(picture, units, canvas.patch_size)


def _check_size(width: int, height: int, canvas: Canvas) -> None:
    if not 1 < max(width, height) <= canvas.pixels:
        raise MalformedMessage(f"a picture of {width}x{height} pixels; accepted: up to {canvas.pixels}x{canvas.pixels}")


def _decode(image_format: ImageFormat, width: int, height: int, core: bytes, size: tuple[int, int]) -> Pixels:
    """The picture, scaled to `size`. `width` and `height` are not larger, which bounds the memory of the decoder.
    Raises MalformedMessage."""
    if len(core) > 3 * size[0] * size[1] + 4096:
        raise MalformedMessage(f"{len(core)} bytes are more than the picture's own pixels")
    try:
        file = io.BytesIO(image_format.rebuild(width, height, core))
        with Image.open(file, formats=("WEBP", "AVIF", "JPEG")) as image:
            if image.size != (width, height):
                raise MalformedMessage("the coded picture has another size than it says")
            return restored(image.convert("RGB"), *size)
    # The errors that Pillow and its libraries raise for malformed data.
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError) as error:
        if isinstance(error, MalformedMessage):
            raise
        raise MalformedMessage(f"no picture: {error}") from None
