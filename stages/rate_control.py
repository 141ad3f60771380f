"""Spend: whether a frame's evidence is worth its bits now, and how many of them.

A message is worth what it adds to the verdict: weight, in the frontier's sense, against the weight of all that is known
of the scene, as far as that leaves doubt. Its price is what its bits would buy later in the same window: the first
message of a scene that begins then, to which this one's bits are lost. Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.pipeline.types import SceneEstimate
from sagelink.stages.frontier import RateQualityCurve

_STEPS = 64  # sizes at which the worth of a message is known
_USEFUL = 0.7  # of the weight of a full window: a first message waits for bits until it has that


@dataclass(frozen=True, slots=True)
class RateControlConfig:
    """When a message is worth its bits."""

    save: bool = False  # wait for bits, stop at the knee, and keep some for scenes to come
    least_gain: float = 0.02  # expected, as a share of right answers


@dataclass(frozen=True, slots=True)
class UtilityCurve:
    """What messages weigh by their size: the upper envelope of the frontier's lines."""

    sizes: np.ndarray  # (P,) bytes, growing
    weights: np.ndarray  # (P,) never falling

    @classmethod
    def from_curves(cls, lines: Sequence[RateQualityCurve]) -> UtilityCurve:
        lines = [line for line in lines if line.point.view == 1]  # of a scene, what the edge looked at is sent
        low, high = min(line.sizes[0] for line in lines), max(line.sizes[-1] for line in lines)
        sizes = np.unique(np.concatenate([np.geomspace(low, high, _STEPS), *(line.sizes for line in lines)]))
        best = np.zeros(len(sizes))
        for line in lines:
            here = np.interp(np.log(sizes), np.log(line.sizes), line.weights, left=0.0)
            best = np.maximum(best, here)
        return cls(sizes, np.maximum.accumulate(best))

    def weight(self, size: float) -> float:
        """Of the best message of so many bytes; 0 where none is so short."""
        return 0.0 if size < self.sizes[0] else float(np.interp(size, self.sizes, self.weights))

    def knee(self, most: float) -> float:
        """The size, up to `most`, that buys most weight a byte."""
        sizes = np.append(self.sizes[self.sizes <= most], most)
        weights = np.array([self.weight(size) for size in sizes])
        return float(sizes[int((weights / sizes).argmax())])


class RateControl:
    def __init__(self, config: RateControlConfig, worth: UtilityCurve) -> None:
        self._config = config
        self._worth = worth

    def max_bytes(
        self, doubt: float, estimate: SceneEstimate, allowed: float, limit: float, window_s: float
    ) -> int | None:
        """How long a message this frame may have; None when the bits are kept.

        `doubt`: 1 less the probability of what would be said without the server; `allowed`, `limit`: bytes of a message
        that the budget grants now, and at most. Unlimited is infinite.
        """
        config, worth = self._config, self._worth
        top = float(worth.sizes[-1])
        limit, now = min(limit, top), min(allowed, top)
        fullest = worth.weight(limit)
        if estimate.server_weight < 0.5 * fullest or not config.save:  # a new scene, or an old answer
            if config.save and worth.weight(now) < _USEFUL * fullest:
                return None
            size = now
        else:
            size = worth.knee(limit)
            if size > now:
                return None
        weight = worth.weight(size)
        gain = doubt * weight / (1 + estimate.server_weight + weight)
        price = 0.0
        if config.save and math.isfinite(allowed) and estimate.server_weight >= 0.5 * fullest:
            # A scene that begins while these bits are in the window goes without them.
            soon = 1 - math.exp(-window_s / max(estimate.mean_scene_s, 1e-3))
            price = soon * 0.5 * fullest / (1 + fullest) * size / limit
        return int(size) if gain > max(price, config.least_gain) else None
