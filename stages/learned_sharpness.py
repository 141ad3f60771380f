"""Learns from a camera's replies how sure its answers are: replies in, a factor on log-scores out. Pure: no clock.

The server's answer to a sent frame is compared with the answer that the scene had before it. No labels are needed. The
log-scores of the scene are multiplied by the learned factor, so that the probability of an answer becomes the share of
replies that agree with such answers. The class never changes. The log loss is convex in the factor, so gradient steps
that shrink with the sum of squared gradients have a regret that grows as the square root of the number of replies
(Zinkevich 2003; Duchi et al. 2011). Without replies nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEP = 0.5  # divided by the root of the sum of squared gradients
_MAX_GRADIENT = 5.0
_RANGE = (0.25, 4.0)  # of the factor


@dataclass(frozen=True, slots=True)
class LearnedSharpness:
    """What the replies to a camera have taught; the initial values hold without any."""

    factor: float = 1.0
    squared_gradients: float = 1.0
    replies: int = 0
    agreed: int = 0  # of the replies

    def after(self, scores: NDArray[np.float32], server_class: int, weight: float) -> LearnedSharpness:
        """After one more reply. `scores`: (C,) log-scores of the scene before it, without the factor. `weight`: of the
        server's answer; one of weak evidence teaches less."""
        scaled = self.factor * (scores - scores.max()).astype(np.float64)
        probs = np.exp(scaled)
        probs /= probs.sum()
        gradient = min(max(weight, 0.0), 1.0) * float(probs @ scores - scores[server_class])
        gradient = max(-_MAX_GRADIENT, min(_MAX_GRADIENT, gradient))
        squared = self.squared_gradients + gradient**2
        factor = min(max(self.factor - _STEP * gradient / math.sqrt(squared), _RANGE[0]), _RANGE[1])
        agrees = int(scores.argmax()) == server_class
        return LearnedSharpness(factor, squared, self.replies + 1, self.agreed + agrees)
