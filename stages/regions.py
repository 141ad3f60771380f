"""Cuts a camera's picture to its region of interest and hides masked polygons. No later stage gets the rest."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sagelink.pipeline.types import Box, Pixels

Polygon = Sequence[tuple[float, float]]  # (x, y) as shares of width and height

_HIDDEN = 114  # grey level near the mean of photographs: it attracts no attention and costs almost no bits


class Regions:
    """The region of interest and the masked polygons of one camera, in shares of width and height."""

    def __init__(self, roi: Box | None = None, mask: Sequence[Polygon] = ()) -> None:
        """`roi`: left, top, right, bottom. `mask`: polygons to hide."""
        self._roi = roi
        self._polygons = [np.array(polygon, np.float64) for polygon in mask]

    def __call__(self, pixels: Pixels) -> Pixels:
        """RGB (H, W, 3) to the region of interest (H', W', 3), at least one pixel; the input may be modified."""
        height, width = pixels.shape[:2]
        if self._polygons:
            corners = [np.round(polygon * (width, height)).astype(np.int32) for polygon in self._polygons]
            pixels = cv2.fillPoly(np.require(pixels, requirements=["C", "W"]), corners, (_HIDDEN,) * 3)
        if self._roi is None:
            return pixels
        left, top, right, bottom = self._roi
        columns, rows = _span(left, right, width), _span(top, bottom, height)
        return np.ascontiguousarray(pixels[rows, columns])


def _span(begin: float, end: float, length: int) -> slice:
    """The pixels from `begin` to `end`, shares of a side of `length` pixels; at least one pixel."""
    first = min(int(begin * length), length - 1)
    return slice(first, max(first + 1, round(end * length)))
