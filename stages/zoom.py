"""Chooses which part of a camera's frame the edge scores and sends: frame thumbnails and importance in, crops out.

`ZoomSchedule` alternates between the whole view and the window with the most importance at the last whole view. In a
window a small object is large, and the errors of answers to several views of a scene are less alike than those to one
view. A window costs as many bytes as any other picture, and the server need not know about it. After a change that is
larger than the usual one, the whole view comes next: the importance of the old picture says nothing about the new one.
`ZoomCrop` draws a window that may be sent in place of the scored picture. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import WHOLE, Box, Pixels
from sagelink.stages.unit_rectangle import best_place, corner_sums

TURNS = (1.0, 0.7, 0.7)  # side of the crop, as a share of the view's side, for one frame after the other
# A change is large when it exceeds this multiple of the usual change, and this mean difference of grey levels (0..1).
_LARGE_CHANGE, _MIN_CHANGE = 2.0, 0.02
_CHANGE_UPDATE = 0.3  # share of the newest change in the usual one
_THUMBNAIL = 16  # pixels per side of the picture by which frames are compared
_SAMPLED = 224  # pixels per side that are enough to compute it


class ZoomSchedule:
    """The crops of one camera: ask for the next one, then report the importance that was found in it."""

    def __init__(self) -> None:
        self._thumbnail: NDArray[np.float32] | None = None
        self._importance: NDArray[np.float32] | None = None  # at the last whole view
        self._usual_change = 0.0  # from frame to frame
        self._turn = 0

    def next_crop(self, thumbnail: NDArray[np.float32]) -> Box:
        """The part of the next frame's view to score, in shares of the view. `thumbnail`: see `thumbnail_of`."""
        if self._thumbnail is not None:
            change = float(np.abs(thumbnail - self._thumbnail).mean())
            max_change = max(_LARGE_CHANGE * self._usual_change, _MIN_CHANGE)
            if change > max_change:
                self._turn = 0
            self._usual_change += _CHANGE_UPDATE * (min(change, max_change) - self._usual_change)
        self._thumbnail = thumbnail
        share = TURNS[self._turn % len(TURNS)]
        self._turn += 1
        return WHOLE if share == 1 or self._importance is None else window(self._importance, share)

    def update(self, crop: Box, importance: NDArray[np.float32]) -> None:
        """`importance` (N,) of the units of a scored crop."""
        if crop == WHOLE:
            self._importance = importance


class ZoomCrop:
    """Draws the most important window of a scored picture: the crop that may be sent in its place."""

    def __init__(self, scored_crop: Box, importance: NDArray[np.float32], draw: Callable[[Box], Pixels]) -> None:
        """`scored_crop`: the scored part, in shares of the view. `importance`: (N,) of its units. `draw`: the picture
        (S, S, 3) of a part of the view."""
        self._scored_crop = scored_crop
        self._importance = importance
        self._draw = draw
        self._drawn: dict[float, Pixels] = {}

    def crop(self, share: float) -> Box:
        """The window whose side is `share` of the scored part's, in shares of the view."""
        left, top, right, bottom = self._scored_crop
        inner = window(self._importance, share)
        width, height = right - left, bottom - top
        return left + inner[0] * width, top + inner[1] * height, left + inner[2] * width, top + inner[3] * height

    def __call__(self, share: float) -> Pixels:
        """The picture of `crop(share)`; drawn once."""
        if share not in self._drawn:
            self._drawn[share] = self._draw(self.crop(share))
        return self._drawn[share]


def window(importance: NDArray[np.float32], share: float) -> Box:
    """The square of whole units with the largest sum of importance (N,); of equal sums, the first.

    `share`: side of the square as a share of the grid's side. The result is in shares of the grid.
    """
    side = round(len(importance) ** 0.5)
    length = max(1, round(share * side))
    _, top, left = best_place(corner_sums(importance.reshape(side, side)), length, length)
    return left / side, top / side, (left + length) / side, (top + length) / side


def thumbnail_of(pixels: Pixels) -> NDArray[np.float32]:
    """(16, 16) grey levels from -1 to 1, minus their mean: a change of overall brightness has no effect."""
    height, width = pixels.shape[:2]
    sampled = pixels[:: max(1, height // _SAMPLED), :: max(1, width // _SAMPLED)]
    rows, columns = (np.linspace(0, side, _THUMBNAIL + 1).astype(int)[:-1] for side in sampled.shape[:2])
    red, green, blue = (sampled[..., channel] for channel in range(3))
    grey = (red.astype(np.float32) + green + blue) / 3  # much faster than a mean over the last axis
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    heights, widths = (
        np.maximum(np.diff(starts, append=side), 1)
        for starts, side in zip((rows, columns), sampled.shape, strict=False)
    )
    means = sums / np.outer(heights, widths)
    thumbnail: NDArray[np.float32] = ((means - means.mean()) / 255).astype(np.float32)
    return thumbnail
