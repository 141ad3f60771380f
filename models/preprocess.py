"""From a camera's frame to the square picture that a model sees."""

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


def view_box(width: int, height: int, resize: Resize, crop_pct: float = 1.0, part: Box = WHOLE) -> Box:
    """The part of a frame that the model sees, in pixels.

    `squash` is the whole frame, whatever its aspect; `crop` is the model's own evaluation crop, the `crop_pct` share of
    the central square. Of either, `part` in shares.
    """
    if resize == "squash":
        left, top, across, down = 0.0, 0.0, float(width), float(height)
    else:
        across = down = min(width, height) * crop_pct
        left, top = (width - across) / 2, (height - down) / 2
    return (left + part[0] * across, top + part[1] * down, left + part[2] * across, top + part[3] * down)


def make_picture(
    pixels: NDArray[np.uint8], size: int, resize: Resize, interpolation: str, crop_pct: float = 1.0, part: Box = WHOLE
) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) to RGB uint8 (size, size, 3), antialiased, with the model's own interpolation."""
    height, width = pixels.shape[:2]
    box = view_box(width, height, resize, crop_pct, part)
    if box == (0.0, 0.0, size, size) and (height, width) == (size, size):
        return pixels
    scaled = Image.fromarray(pixels).resize((size, size), _FILTERS[interpolation], box=box, reducing_gap=3.0)
    return np.array(scaled)
