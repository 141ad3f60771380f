"""Decodes the picture of an event, and cuts it to the object where the whole camera picture came instead."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import UnidentifiedImageError

from sagelink.pipeline.types import Box, Pixels
from sagelink.stages.sources.image_file import read_image

_MIN_SIDE = 300  # px; Frigate's crop is a square of at least this side
_MARGIN = 1.1  # side of the crop / longer side of the box
_MUCH_LARGER = 1.5


def decode_picture(data: bytes) -> Pixels:
    """RGB uint8 (H, W, 3). Raises OSError for a picture that cannot be read."""
    try:
        return read_image(BytesIO(data))
    except UnidentifiedImageError:
        raise OSError("not a picture") from None


def cut_to_object(pixels: Pixels, box: Box | None) -> Pixels:
    """The part around `box` of a picture that is much larger than this part. A picture that has been cropped already,
    or without a box inside it, is returned unchanged.

    `box`: pixels of the whole picture, or fractions of it where none is above 1.
    """
    height, width = pixels.shape[:2]
    if box is None:
        return pixels
    if max(box) <= 1:
        box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    left, top, right, bottom = box
    side = max(_MIN_SIDE, _MARGIN * max(right - left, bottom - top))
    inside = 0 <= left < right <= width + 1 and 0 <= top < bottom <= height + 1
    if not inside or max(width, height) <= _MUCH_LARGER * side:
        return pixels
    columns, rows = _span((left + right) / 2, side, width), _span((top + bottom) / 2, side, height)
    return np.ascontiguousarray(pixels[rows, columns])


def _span(centre: float, side: float, length: int) -> slice:
    """`side` pixels around `centre`, moved inside 0..length."""
    size = min(round(side), length)
    first = min(max(0, round(centre - size / 2)), length - size)
    return slice(first, first + size)
