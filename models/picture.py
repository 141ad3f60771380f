"""From a camera's frame to the square picture that a model sees."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resize = Literal["squash", "crop"]
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def view_box(width: int, height: int, resize: Resize, crop_pct: float = 1.0) -> tuple[float, float, float, float]:
    """The part of a frame that the model sees: left, top, right, bottom in pixels.

    `squash` is the whole frame, whatever its aspect; `crop` is the model's own evaluation crop, the `crop_pct` share of
    the central square.
    """
    if resize == "squash":
        return (0.0, 0.0, float(width), float(height))
    side = min(width, height) * crop_pct
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)


def make_picture(
    pixels: NDArray[np.uint8], size: int, resize: Resize, interpolation: str, crop_pct: float = 1.0
) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) to RGB uint8 (size, size, 3), antialiased, with the model's own interpolation."""
    height, width = pixels.shape[:2]
    box = view_box(width, height, resize, crop_pct)
    if box == (0.0, 0.0, size, size) and (height, width) == (size, size):
        return pixels
    scaled = Image.fromarray(pixels).resize((size, size), _FILTERS[interpolation], box=box, reducing_gap=3.0)
    return np.array(scaled)
