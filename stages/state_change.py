"""Detects from many unclear answers that a scene shows another state: log-odds in, the time of the change out. Pure.

A clear answer of another class begins a new scene at once (`sagelink.stages.scene_fusion`). An unclear one may be
noise; if such answers go on, their evidence adds up: cumulative sums after Page, "Continuous inspection schemes",
Biometrika 41 (1954). How sure the answers to the old state were does not delay the detection, as it delays an average.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_ODDS = 3.0  # of another class, over all answers since it began to gain


class StateChange:
    """Of one scene; a new scene has a new one."""

    def __init__(self, classes: int) -> None:
        self._sums = np.zeros(classes)  # of each class against the class of the scene
        self._since_s = np.zeros(classes)  # when the sum began to grow

    def add(self, log_odds: NDArray[np.float32], share: float, now_s: float) -> float | None:
        """Adds an answer. Returns since when another class has gained so much that the scene has changed, or None.

        `log_odds`: (C,) of each class against the class of the scene. `share`: how much the answer counts, 0 to 1.
        """
        self._since_s[self._sums <= 0] = now_s
        self._sums = np.maximum(0.0, self._sums + share * log_odds)
        best = int(self._sums.argmax())
        return float(self._since_s[best]) if self._sums[best] > math.log(_ODDS) else None
