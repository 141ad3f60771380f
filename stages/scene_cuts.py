"""Decides from the edge's views of a camera's frames where a new scene begins. Pure: no clock, no I/O."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import WHOLE, EdgeView


class CutDetector:
    """Of one camera. Call `is_cut` for each frame in order."""

    def __init__(self, min_distance: float, min_difference: float, every_frame: bool = False) -> None:
        """A cut needs a larger cosine distance of the class tokens than `min_distance`, and a larger mean difference of
        grey levels (0..1) between thumbnails than `min_difference`. `every_frame`: each frame is a scene of its own."""
        self._min_distance = min_distance
        self._min_difference = min_difference
        self._every_frame = every_frame
        self.view: EdgeView | None = None  # of the newest frame, its class token of length 1
        self._newest: dict[float, EdgeView] = {}  # by width of the crop: the newest view in this scene
        self._jump = 0.0  # largest difference between two frames since the last view of the whole picture

    def is_cut(self, view: EdgeView) -> bool:
        """Whether the next frame, of which the edge had this view, begins a new scene."""
        view = replace(view, class_token=_unit_length(view.class_token))
        if self.view is not None:
            self._jump = max(self._jump, float(np.abs(view.thumbnail - self.view.thumbnail).mean()))
        cut = self._differs(view)
        if cut:
            self._newest.clear()
        if view.crop == WHOLE:
            self._jump = 0.0
        self.view = self._newest[_width(view)] = view
        return cut

    def distance_to(self, view: EdgeView) -> float:
        """Cosine distance of an earlier view of this scene from the newest view of the same width."""
        return _distance(self._newest[_width(view)], view)

    def _differs(self, view: EdgeView) -> bool:
        """Only views of the whole picture show a cut; `sagelink.stages.zoom` asks for one after a large change."""
        if self.view is None or self._every_frame or len(view.class_token) != len(self.view.class_token):
            return True
        previous = self._newest.get(_width(view))
        if view.crop != WHOLE or previous is None:
            return False
        return _distance(view, previous) > self._min_distance and self._jump > self._min_difference


def _width(view: EdgeView) -> float:
    return round(view.crop[2] - view.crop[0], 6)


def _distance(view: EdgeView, other: EdgeView) -> float:
    """Cosine distance of the class tokens, both of length 1."""
    return 1 - float(view.class_token @ other.class_token)


def _unit_length(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scaled to length 1; zeros stay zeros, so their distance to anything is 1."""
    length = float(np.linalg.norm(vector))
    unit: NDArray[np.float32] = vector / np.float32(length or 1.0)
    return unit
