"""Scales a frame, or a crop of it, to the square picture that a model takes as input."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagelink.pipeline.types import WHOLE, Box

Resize = Literal["squash", "crop"]
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def view_box(width: int, height: int, resize: Resize, crop_pct: float = 1.0, crop: Box = WHOLE) -> Box:
    """The part of a frame (width x height) that the model gets, in pixels.

    The view is the whole frame for `squash`, whatever its aspect ratio, and the model's evaluation crop for `crop`: the
    `crop_pct` fraction of the central square. The result is the part `crop` of this view; `crop` is in fractions.
    """
    if resize == "squash":
        left, top, view_width, view_height = 0.0, 0.0, float(width), float(height)
    else:
        view_width = view_height = min(width, height) * crop_pct
        left, top = (width - view_width) / 2, (height - view_height) / 2
    return (
        left + crop[0] * view_width,
        top + crop[1] * view_height,
        left + crop[2] * view_width,
        top + crop[3] * view_height,
    )


def make_picture(
    pixels: NDArray[np.uint8], size: int, resize: Resize, interpolation: str, crop_pct: float = 1.0, crop: Box = WHOLE
) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) to RGB uint8 (size, size, 3), antialiased, with the interpolation of the model.

    Other arguments as in `view_box`.
    """
    height, width = pixels.shape[:2]
    box = view_box(width, height, resize, crop_pct, crop)
    if box == (0.0, 0.0, size, size) and (height, width) == (size, size):
        return pixels
    scaled = Image.fromarray(pixels).resize((size, size), _FILTERS[interpolation], box=box, reducing_gap=3.0)
    return np.array(scaled)
