"""Scales a frame, or a crop of it, to the square picture that a model takes as input."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagelink.models.scaling import scale
from sagelink.pipeline.types import WHOLE, Box

Resize = Literal["squash", "crop"]
_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}


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
    left, top, right, bottom = _whole_pixels(view_box(width, height, resize, crop_pct, crop), width, height)
    part = pixels[top:bottom, left:right]
    if part.shape[:2] == (size, size):
        return pixels if part.shape == pixels.shape else part.copy()
    if interpolation != "bicubic" and interpolation != "bilinear":
        return np.array(Image.fromarray(part).resize((size, size), _FILTERS[interpolation], reducing_gap=3.0))
    if not _has_torch():
        return scale(part, size, interpolation)
    if not pixels.flags.writeable or min(part.strides) < 0:  # PyTorch takes neither
        part = part.copy()
    import torch

    images = torch.from_numpy(part).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(images, (size, size), mode=interpolation, antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


@cache
def _has_torch() -> bool:
    """PyTorch gives the same pixels as `models.scaling` in a fifth of the time."""
    return find_spec("torch") is not None


def _whole_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box with its borders between pixels; it has at least one pixel."""
    left, top = min(round(box[0]), width - 1), min(round(box[1]), height - 1)
    return left, top, max(round(box[2]), left + 1), max(round(box[3]), top + 1)
