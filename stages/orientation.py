"""Turns and mirrors pictures: the eight orientations of EXIF, and the display matrices of FFmpeg. Pixels in and out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sagelink.pipeline.types import Pixels

UPRIGHT = 1
EXIF_TAG = 0x0112

# How a stored picture is displayed, by EXIF orientation: swap rows and columns, then mirror left-right, then up-down.
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def _matrix(orientation: int) -> tuple[int, int, int, int]:
    """(a, b, c, d): a stored pixel (x, y) is displayed at (a x + c y, b x + d y), with y downwards."""
    swap, mirror, flip = _STEPS[orientation]
    x, y = -1 if mirror else 1, -1 if flip else 1
    return (0, y, x, 0) if swap else (x, 0, 0, y)


def orientation_of(matrix: Sequence[int]) -> int:
    """EXIF orientation of an FFmpeg display matrix (9 numbers, row by row): the nearest in quarter turns, mirrored
    where its determinant is negative. A matrix of zeros is upright."""
    linear = (matrix[0], matrix[1], matrix[3], matrix[4])
    return max(_STEPS, key=lambda number: sum(a * b for a, b in zip(_matrix(number), linear, strict=True)))


def displayed(pixels: Pixels, orientation: int) -> Pixels:
    """The stored picture (H, W, C) as it is displayed; an unknown orientation counts as upright, as in EXIF readers."""
    swap, mirror, flip = _STEPS.get(orientation, _STEPS[UPRIGHT])
    if swap:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if flip else 1, :: -1 if mirror else 1])
