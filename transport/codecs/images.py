"""Codecs that are a well-kept image codec: the working ones, and the plain files that a user would send instead.

`webp` and `avif` code a picture with the units not chosen blanked out, at any resolution, and send the frame without
its container: one byte of side, then what the format's `strip` left. `webp-frame`, `avif-frame` and `jpeg-frame` send
the whole picture as the file that any other program would write.
"""

from __future__ import annotations

import io
from typing import Protocol

from PIL import Image

from pipeline.types import OperatingPoint, Pixels, Units
from transport.codecs.contract import Canvas, Patches, cut_units
from transport.codecs.masking import masked, restored, shrunk
from transport.wire import MalformedMessage

SIDE_STEP = 8  # pixels: coded sides are multiples of this, or the picture's own


class ImageFormat(Protocol):
    """A module that knows one image format. Decoders only ever see a file that `rebuild` has written."""

    def encode(self, image: Image.Image, quality: int) -> bytes: ...

    def strip(self, file: bytes) -> tuple[int, int, bytes]:
        """Width and height of the picture, and what cannot be written without seeing it. Raises MalformedMessage."""
        ...

    def rebuild(self, width: int, height: int, core: bytes) -> bytes: ...


class Stripped:
    """Chosen units, or all, in a picture of any resolution, without the container."""

    whole = False

    def __init__(self, number: int, image_format: ImageFormat) -> None:
        self.number = number
        self._format = image_format

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        image = shrunk(masked(picture, units, canvas), point.side)
        side, _, core = self._format.strip(self._format.encode(image, point.quality))
        return bytes([0 if side == canvas.pixels else side // SIDE_STEP]) + core

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        if not payload:
            raise MalformedMessage("the payload is empty")
        side = payload[0] * SIDE_STEP or canvas.pixels
        return cut_units(_decode(self._format, side, side, payload[1:], canvas), units, canvas.patch_size)


class Band:
    """The rows of the grid from the first to the last that has one of the units, as a picture of its own without the
    container: what a message in parts is made of. Its payload is that of `Stripped`."""

    whole = False

    def __init__(self, number: int, image_format: ImageFormat) -> None:
        self.number = number
        self._format = image_format

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        rows = _rows(units, canvas)
        band = picture[rows.start * canvas.patch_size : rows.stop * canvas.patch_size]
        image = Image.fromarray(masked(band, units - rows.start * canvas.side, canvas))
        size = (point.side, _height(point.side, rows, canvas))
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        _, _, core = self._format.strip(self._format.encode(image, point.quality))
        return bytes([0 if point.side == canvas.pixels else point.side // SIDE_STEP]) + core

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        if not payload:
            raise MalformedMessage("the payload is empty")
        rows = _rows(units, canvas)
        side = payload[0] * SIDE_STEP or canvas.pixels
        band = _decode(self._format, side, _height(side, rows, canvas), payload[1:], canvas, len(rows))
        patch = canvas.patch_size
        tiles = band.reshape(len(rows), patch, canvas.side, patch, 3)
        return tiles[units // canvas.side - rows.start, :, units % canvas.side]


def _rows(units: Units, canvas: Canvas) -> range:
    """The grid's rows that a band of these units covers; they are ascending."""
    return range(int(units[0]) // canvas.side, int(units[-1]) // canvas.side + 1)


def _height(side: int, rows: range, canvas: Canvas) -> int:
    """Pixels of a band's height, of a picture coded at `side` pixels."""
    return max(2, round(side * len(rows) / canvas.side))


class WholeFile:
    """The whole picture at any resolution, as a file."""

    whole = True

    def __init__(self, number: int, image_format: ImageFormat) -> None:
        self.number = number
        self._format = image_format

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        assert len(units) == canvas.units, "a whole frame has all units"
        return self._format.encode(shrunk(picture, point.side), point.quality)

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches:
        if len(units) != canvas.units:
            raise MalformedMessage(f"a whole frame with {len(units)} of {canvas.units} units")
        return cut_units(_decode(self._format, *self._format.strip(payload), canvas), units, canvas.patch_size)


def _decode(
    image_format: ImageFormat, width: int, height: int, core: bytes, canvas: Canvas, rows: int | None = None
) -> Pixels:
    """The picture at the canvas's size, or at that of so many rows of its grid. Raises MalformedMessage before a
    decoder could allocate more than that."""
    if not 1 < max(width, height) <= canvas.pixels:
        raise MalformedMessage(f"a picture of {width}x{height} pixels; accepted: up to {canvas.pixels}x{canvas.pixels}")
    if rows is None and width != height:
        raise MalformedMessage(f"a picture of {width}x{height} pixels is not square")
    if len(core) > 3 * canvas.pixels**2 + 4096:
        raise MalformedMessage(f"{len(core)} bytes are more than the picture's own pixels")
    try:
        file = io.BytesIO(image_format.rebuild(width, height, core))
        with Image.open(file, formats=("WEBP", "AVIF", "JPEG")) as image:
            if image.size != (width, height):
                raise MalformedMessage("the coded picture has another size than it says")
            return restored(image.convert("RGB"), canvas.pixels, (rows or canvas.side) * canvas.patch_size)
    # What Pillow and the libraries below it raise for data that is no picture.
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError) as error:
        if isinstance(error, MalformedMessage):
            raise
        raise MalformedMessage(f"no picture: {error}") from None
