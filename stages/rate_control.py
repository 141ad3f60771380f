"""Decides whether the expected gain of a message justifies its bits now, and how many bytes the message may have.

The expected gain of a message is the weight that it adds to the verdict, compared with the weight of all that is known
about the scene, times the doubt that is left. Its price is the gain that its bits would have later in the same window:
for the first message of a new scene, which would then lack them. `RateControl` is pure; `ValueGate` is the stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from sagelink.pipeline.camera_accounts import CameraAccount
from sagelink.pipeline.config import Config, VideoConfig
from sagelink.pipeline.types import Drop, EdgeOnly, Metered, SceneEstimate, TaughtClasses
from sagelink.stages.budget_meter import affordable_bytes
from sagelink.stages.evidence_encoder import canvas_of
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.frontier_filter import usable_curves
from sagelink.transport.wire import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from sagelink.models.loading import Model

_MAX_CURVES = 32  # sets of classes whose utility curves are stored
_STEPS = 64  # sizes at which the utility curve is computed
_USEFUL = 0.7  # of the weight of a full window: the first message of a scene waits until the allowance buys this much


@dataclass(frozen=True, slots=True)
class RateControlConfig:
    """When the expected gain of a message justifies its bits."""

    save: bool = False  # wait for bits, stop at the knee of the utility curve, and reserve bits for new scenes
    least_gain: float = 0.02  # expected, as a share of right answers


def rate_control_config(video: VideoConfig) -> RateControlConfig:
    config = RateControlConfig(save=video.saving)
    return config if video.value_gate else replace(config, least_gain=0.0)


@dataclass(frozen=True, slots=True)
class UtilityCurve:
    """The weight of the best message of each size: the upper envelope of the frontier's curves."""

    sizes: np.ndarray  # (P,) bytes, increasing
    weights: np.ndarray  # (P,) never falling

    @classmethod
    def from_curves(cls, curves: Sequence[RateQualityCurve]) -> UtilityCurve:
        curves = [curve for curve in curves if curve.point.view == 1]  # frames of a tracked scene are sent without zoom
        low, high = min(curve.sizes[0] for curve in curves), max(curve.sizes[-1] for curve in curves)
        sizes = np.unique(np.concatenate([np.geomspace(low, high, _STEPS), *(curve.sizes for curve in curves)]))
        best = np.zeros(len(sizes))
        for curve in curves:
            best = np.maximum(best, np.interp(np.log(sizes), np.log(curve.sizes), curve.weights, left=0.0))
        return cls(sizes, np.maximum.accumulate(best))

    def weight(self, size: float) -> float:
        """Weight of the best message of at most `size` bytes; 0 where no message is so short."""
        return 0.0 if size < self.sizes[0] else float(np.interp(size, self.sizes, self.weights))

    def knee(self, max_size: float) -> float:
        """The size, of at most `max_size` bytes, with the most weight per byte."""
        sizes = np.append(self.sizes[self.sizes <= max_size], max_size)
        weights = np.array([self.weight(size) for size in sizes])
        return float(sizes[int((weights / sizes).argmax())])


class RateControl:
    def __init__(self, config: RateControlConfig, utility: UtilityCurve) -> None:
        self._config = config
        self._utility = utility

    def max_bytes(
        self, doubt: float, estimate: SceneEstimate, allowed: float, limit: float, window_s: float
    ) -> int | None:
        """Bytes of the longest message that this frame may have; None when it is to send nothing.

        `doubt`: 1 minus the probability of the answer without a further server answer. `allowed`: bytes of a message
        that the budget pays for now; `limit`: bytes that it pays for in an empty window; both infinite when unlimited.
        """
        config, utility = self._config, self._utility
        longest = float(utility.sizes[-1])
        limit, affordable = min(limit, longest), min(allowed, longest)
        full_weight = utility.weight(limit)
        is_known = estimate.server_weight >= 0.5 * full_weight  # by a recent answer of the server to this scene
        if config.save and is_known:
            size = utility.knee(limit)
            if size > affordable:
                return None
        else:
            if config.save and utility.weight(affordable) < _USEFUL * full_weight:
                return None
            size = affordable
        weight = utility.weight(size)
        gain = doubt * weight / (1 + estimate.server_weight + weight)
        price = 0.0
        if config.save and is_known and math.isfinite(allowed):
            # A scene that begins while these bits are in the window has to do without them.
            new_scene = 1 - math.exp(-window_s / max(estimate.mean_scene_s, 1e-3))
            price = new_scene * 0.5 * full_weight / (1 + full_weight) * size / limit
        return int(size) if gain > max(price, config.least_gain) else None


class ValueGate:
    """Stage: a frame of a tracked scene goes on with the limit of its message, or leaves as `EdgeOnly`."""

    def __init__(
        self,
        config: Config,
        utility: Callable[[TaughtClasses | None], UtilityCurve],
        accounts: Mapping[str, CameraAccount],
        wire_bits: Callable[[str, int], int],
        link_limit: Callable[[str], int] = lambda camera: MAX_MESSAGE_BYTES,
    ) -> None:
        """`utility`: by the classes of a frame. `accounts`: by camera. `wire_bits`: bits on the wire of a message, by
        camera and message bytes. `link_limit`: bytes of the longest message that the link carries now, by camera."""
        self._config = rate_control_config(config.video)
        self._utility = lru_cache(_MAX_CURVES)(utility)
        self._accounts = accounts
        self._wire_bits = wire_bits
        self._max_message = config.encode.max_message
        self._link_limit = link_limit

    @classmethod
    def from_config(
        cls,
        config: Config,
        server: Model,
        accounts: Mapping[str, CameraAccount],
        wire_bits: Callable[[str, int], int],
        link_limit: Callable[[str], int],
    ) -> ValueGate:
        """Raises UsageError when the configuration leaves no usable curve."""
        canvas = canvas_of(server)

        def utility(taught: TaughtClasses | None) -> UtilityCurve:
            return UtilityCurve.from_curves(usable_curves(config, server.name, canvas, taught))

        gate = cls(config, utility, accounts, wire_bits, link_limit)
        gate._utility(None)  # raises now what it would raise at a frame
        return gate

    async def process(self, metered: Metered) -> Metered | EdgeOnly:
        if metered.provisional is None or metered.requested:
            return metered
        camera, utility = metered.frame.camera, self._utility(metered.scored.taught)
        allowed, limit = (self._bytes(camera, bits) for bits in (metered.allowance_bits, metered.budget_bits))
        if utility.weight(limit) == 0:
            return metered  # no message fits even an empty window: the encode stage warns about it
        doubt, window_s = metered.doubt, self._accounts[camera].own.window_s
        control = RateControl(self._config, utility)
        max_bytes = control.max_bytes(doubt, metered.provisional.estimate, allowed, limit, window_s)
        if max_bytes is None:
            return EdgeOnly(metered, Drop.WORTH if utility.weight(allowed) > 0 else Drop.BUDGET)
        return replace(metered, max_bytes=max_bytes)

    def _bytes(self, camera: str, bits: int | None) -> float:
        """Bytes of the longest message that `bits` pay for; infinite for None."""
        if bits is None:
            return math.inf
        longest = min(self._max_message, self._link_limit(camera))
        return affordable_bytes(partial(self._wire_bits, camera), bits, longest)
