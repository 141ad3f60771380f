"""Scores a camera's frame only if its picture has changed: frames in, new or repeated scores out.

A frame is still if no part of its picture differs from the last scored frame by more than the noise of the sensor. It
takes the scores of that frame; a change is scored at once. Several frames are scored after a change, so that a zoom
schedule sees its views. Pure but for the scorer: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.types import Frame, Pixels, Scored
from sagelink.stages.zoom import TURNS

# A part has changed if its grey level (0..1) differs by this much, and by this multiple of the noise over all parts. If
# the level of the median part differs by `_MAX_SHIFT`, the light has changed.
_MIN_CHANGE, _NOISE_FACTOR, _MAX_SHIFT = 0.03, 8.0, 0.02
_SAMPLED = 224  # rows and columns that are looked at, at most twice as many
_PART = 4  # rows and columns of a part, of those
_SETTLED = len(TURNS)  # frames to score after a change
_TO_SIGMA = 1.4826  # from the median of absolute deviations to a standard deviation


class StillDetector:
    """The still frames of one camera."""

    def __init__(self, interval_s: float) -> None:
        """A frame is scored at least every `interval_s` seconds of the stream."""
        self._interval_s = interval_s
        self._levels: NDArray[np.float32] | None = None  # of the last scored frame
        self._scored_s = 0.0
        self._since_change = 0  # scored frames

    def is_still(self, frame: Frame) -> bool:
        """Whether the frame may take the scores of the last frame for which this was False."""
        levels = levels_of(frame.pixels)
        changed = self._levels is None or has_changed(levels, self._levels)
        due = not 0 <= frame.stream_s - self._scored_s < self._interval_s
        if not changed and not due and self._since_change >= _SETTLED:
            return True
        self._since_change = 1 if changed else self._since_change + 1
        self._levels, self._scored_s = levels, frame.stream_s
        return False


class ScoreChanges:
    """A scorer that runs the edge model only on frames that have changed. Blocking: runs in a thread."""

    def __init__(
        self,
        score: Callable[[Sequence[Frame]], list[Scored]],
        detectors: Mapping[str, StillDetector],
        classes_of: Callable[[Frame], TaughtClasses | None],
    ) -> None:
        """`detectors`: by camera, where still frames need no scores of their own. `classes_of`: the classes that a
        frame gets now; scores with other classes are not repeated."""
        self._score = score
        self._detectors = detectors
        self._classes_of = classes_of
        self._newest: dict[str, Scored] = {}  # by camera

    def __call__(self, frames: Sequence[Frame]) -> list[Scored]:
        """As the scorer; `repeated` is set where a frame takes the scores of an earlier one."""
        due = [frame for frame in frames if not self._is_still(frame)]
        for frame in due:  # where scoring fails, the scores of an older picture must not be repeated
            self._newest.pop(frame.camera, None)
        scored = {id(frame): one for frame, one in zip(due, self._score(due) if due else [], strict=True)}
        results = []
        for frame in frames:
            new = scored.get(id(frame))
            if new is None:
                new = replace(self._newest[frame.camera], frame=frame, score_ms=0.0, repeated=True)
            elif frame.camera in self._detectors:
                self._newest[frame.camera] = new
            results.append(new)
        return results

    def _is_still(self, frame: Frame) -> bool:
        detector = self._detectors.get(frame.camera)
        if detector is None or not detector.is_still(frame):
            return False
        newest = self._newest.get(frame.camera)
        return newest is not None and newest.taught == self._classes_of(frame)


def levels_of(pixels: Pixels) -> NDArray[np.float32]:
    """Mean green level (0..1) of each part of a frame (H, W, 3), in a grid of up to 112 x 112 parts."""
    height, width = pixels.shape[:2]
    green = pixels[:: max(1, height // _SAMPLED), :: max(1, width // _SAMPLED), 1]
    part = _PART if min(green.shape) >= _PART else 1
    rows, columns = green.shape[0] // part, green.shape[1] // part
    tiles = green[: rows * part, : columns * part].reshape(rows, part, columns, part)
    sums = np.add.reduce(np.add.reduce(tiles, 1, np.uint16), 2, np.uint16)
    levels: NDArray[np.float32] = sums / np.float32(255 * part * part)
    return levels


def has_changed(levels: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two frames of a camera differ by more than noise: somewhere, or everywhere."""
    if levels.shape != other.shape:
        return True
    difference = np.abs(levels - other)
    middle = float(np.median(difference))
    return middle > _MAX_SHIFT or float(difference.max()) > max(_MIN_CHANGE, _NOISE_FACTOR * _TO_SIGMA * middle)
