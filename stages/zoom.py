"""Looks: which part of a camera's frame the edge looks at, and sends where it sends.

In turn the whole view and the window of it that matters most, by the importance at the last look at the whole. In a
window a small thing is large, and answers to several views of a scene err less alike than answers to one view. A look
costs what any other costs, and the server need not know. A picture that changed more than pictures lately did is looked
at whole: what mattered in the last one says nothing of it. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import WHOLE, Box, Pixels
from sagelink.stages.unit_rectangle import best_place, sums_of

TURNS = (1.0, 0.7, 0.7)  # of frames: the side of what is looked at, as a share of the view's
_STANDS_OUT, _LEAST = 2.0, 0.02  # a change of so many times the usual, and of so many grey levels (1: all): a new scene
_NEWS = 0.3  # what the last change counts for in the usual one
_THUMB = 16  # pixels on a side of the picture that frames are compared by
_FEW = 224  # pixels on a side that are enough for it


class ZoomSchedule:
    """Of one camera: ask for the `part` of each frame, and `learn` from the look at it."""

    def __init__(self) -> None:
        self._thumb: NDArray[np.float32] | None = None
        self._importance: NDArray[np.float32] | None = None
        self._usual = 0.0  # change from frame to frame
        self._turn = 0

    def next_crop(self, thumb: NDArray[np.float32]) -> Box:
        """Of the view, in shares: what to look at in the next frame."""
        if self._thumb is not None:
            change, most = float(np.abs(thumb - self._thumb).mean()), max(_STANDS_OUT * self._usual, _LEAST)
            if change > most:
                self._turn = 0
            self._usual += _NEWS * (min(change, most) - self._usual)
        self._thumb = thumb
        share = TURNS[self._turn % len(TURNS)]
        self._turn += 1
        return WHOLE if share == 1 or self._importance is None else window(self._importance, share)

    def update(self, part: Box, importance: NDArray[np.float32]) -> None:
        """Importance (N,) of the units of what was looked at."""
        if part == WHOLE:
            self._importance = importance


class ZoomCrop:
    """Closer looks at what the edge looked at, at the window of it that matters most: what may be sent instead."""

    def __init__(self, part: Box, importance: NDArray[np.float32], draw: Callable[[Box], Pixels]) -> None:
        """`part`: what was looked at, in shares of the view; `importance` (N,) of its units; `draw`: the picture of a
        part of the view."""
        self._part = part
        self._importance = importance
        self._draw = draw
        self._drawn: dict[float, Pixels] = {}

    def crop(self, share: float) -> Box:
        """The window whose side is a share of what was looked at, in shares of the view."""
        left, top, right, bottom = self._part
        inner = window(self._importance, share)
        across, down = right - left, bottom - top
        return left + inner[0] * across, top + inner[1] * down, left + inner[2] * across, top + inner[3] * down

    def __call__(self, share: float) -> Pixels:
        if share not in self._drawn:
            self._drawn[share] = self._draw(self.crop(share))
        return self._drawn[share]


def window(importance: NDArray[np.float32], share: float) -> Box:
    """The square of whole units, its side a share of the grid's, that has most of the importance (N,) in it; the
    first of equals."""
    side = round(len(importance) ** 0.5)
    length = max(1, round(share * side))
    _, top, left = best_place(sums_of(importance.reshape(side, side)), length, length)
    return left / side, top / side, (left + length) / side, (top + length) / side


def thumbnail_of(pixels: Pixels) -> NDArray[np.float32]:
    """(16, 16) grey levels from -1 to 1 about their mean, so that light that changes for all changes nothing."""
    height, width = pixels.shape[:2]
    few = pixels[:: max(1, height // _FEW), :: max(1, width // _FEW)]
    rows, columns = (np.linspace(0, side, _THUMB + 1).astype(int)[:-1] for side in few.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(few.mean(2, dtype=np.float32), rows, 0), columns, 1)
    tall, wide = (np.maximum(np.diff(at, append=side), 1) for at, side in zip((rows, columns), few.shape, strict=False))
    small = sums / np.outer(tall, wide)
    thumb: NDArray[np.float32] = ((small - small.mean()) / 255).astype(np.float32)
    return thumb
