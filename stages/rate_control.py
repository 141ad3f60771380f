"""Decides whether the expected gain of a message justifies its bits now, and how many bytes the message may have.

The expected gain of a message is the weight that it adds to the verdict, compared with the weight of all that is known
about the scene, times the doubt that is left. With `budget.pace: adaptive`, bits have a price: the gain that they would
have later (`sagelink.pipeline.budget.pacing`). `RateControl` is pure; `ValueGate` is the stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.config.stages import VideoConfig
from sagelink.pipeline.types import Drop, EdgeOnly, Metered
from sagelink.stages.budget_meter import affordable_bytes
from sagelink.stages.evidence_encoder import canvas_of
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.frontier_filter import usable_curves
from sagelink.transport.envelope import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from sagelink.models.model_contract import ServerModel

_MAX_CURVES = 32  # sets of classes whose utility curves are stored
_STEPS = 64  # sizes at which the utility curve is computed
_HEADROOM = 1.6  # sizes of the curve are those of the median frame; a frame with more detail needs more bytes
_TINY = 1e-9  # a weight, so that a sum of weights is above 0
_NEW_PART = 0.25  # of the weight of a further answer about a scene is new
LEAST_GAIN = 0.02  # expected, as a share of right answers: a message that adds less is not sent


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


def least_gain(video: VideoConfig) -> float:
    """The least gain of a message with this configuration."""
    return LEAST_GAIN if video.value_gate else 0.0


class RateControl:
    """Chooses the size of a message by its expected gain and the price of a bit. Pure."""

    def __init__(self, utility: UtilityCurve, least_gain: float = LEAST_GAIN) -> None:
        self._utility = utility
        self._least_gain = least_gain

    def max_bytes(
        self, doubt: float, held_weight: float, allowed: float, bit_price: float = 0.0, edge_weight: float = 1.0
    ) -> int | None:
        """Bytes of the longest message that this frame may have; None when it is to send nothing.

        `doubt`: 1 minus the probability of the answer without a further server answer. `held_weight`: of the server
        answers in it, and `edge_weight`: of the edge's. `allowed`: bytes of a message that the budget pays for now;
        infinite when unlimited. `bit_price`: gain that a bit must bring. With 0 the message may take all that is
        allowed. Else the size with the largest gain above its price limits it, with some headroom; its gain is then
        what it adds to the held answers: the errors of answers about one scene are alike, so a further one adds only a
        part of its weight.
        """
        utility = self._utility
        affordable = min(allowed, float(utility.sizes[-1]))
        sizes, weights = np.array([affordable]), np.array([utility.weight(affordable)])
        if bit_price > 0:
            fitting = int(np.searchsorted(utility.sizes, affordable, side="right"))
            sizes = np.append(utility.sizes[:fitting], sizes)
            weights = np.append(utility.weights[:fitting], weights)
            joint = np.maximum(weights, held_weight) + _NEW_PART * np.minimum(weights, held_weight)
            gains = doubt * (joint / (edge_weight + joint + _TINY) - held_weight / (edge_weight + held_weight + _TINY))
        else:
            gains = doubt * weights / (edge_weight + held_weight + weights + _TINY)
        profits = gains - 8 * bit_price * sizes
        best = int(profits.argmax())
        if not (profits[best] > 0 and gains[best] > self._least_gain):
            return None
        return int(min(_HEADROOM * sizes[best], affordable))


def check_curves(config: Config, server: ServerModel) -> None:
    """Raises UsageError when the configuration leaves no curve by which messages could be weighed."""
    _utility(config, server, None)


def _utility(config: Config, server: ServerModel, taught: TaughtClasses | None) -> UtilityCurve:
    return UtilityCurve.from_curves(usable_curves(config, server.name, canvas_of(server), taught))


class ValueGate:
    """Stage: a frame of a tracked scene, or any frame where bits have a price, goes on with the limit of its message,
    or leaves as `EdgeOnly`."""

    def __init__(
        self,
        config: Config,
        utility: Callable[[TaughtClasses | None], UtilityCurve],
        wire_bits: Callable[[str, int], int],
        link_limit: Callable[[str], int] = lambda camera: MAX_MESSAGE_BYTES,
    ) -> None:
        """`utility`: by the classes of a frame. `wire_bits`: bits on the wire of a message, by camera and message
        bytes. `link_limit`: bytes of the longest message that the link carries now, by camera."""
        self._least_gain = least_gain(config.video)
        self._utility = lru_cache(_MAX_CURVES)(utility)
        self._wire_bits = wire_bits
        self._max_message = config.encode.max_message
        self._link_limit = link_limit

    @classmethod
    def from_config(
        cls,
        config: Config,
        server: ServerModel,
        wire_bits: Callable[[str, int], int],
        link_limit: Callable[[str], int],
    ) -> ValueGate:
        """See `check_curves` for what the configuration must have."""
        return cls(config, partial(_utility, config, server), wire_bits, link_limit)

    async def process(self, metered: Metered) -> Metered | EdgeOnly:
        if metered.requested or (metered.provisional is None and not metered.bit_price):
            return metered
        camera, utility = metered.frame.camera, self._utility(metered.scored.taught)
        allowed, limit = (self._bytes(camera, bits) for bits in (metered.allowance_bits, metered.budget_bits))
        if utility.weight(limit) == 0:
            return metered  # no message fits even an empty window: the encode stage warns about it
        held_weight, edge_weight = 0.0, 1.0
        if metered.provisional is not None:
            estimate = metered.provisional.estimate
            held_weight, edge_weight = estimate.server_weight, estimate.edge_weight
            if estimate.waits:
                return EdgeOnly(metered, Drop.WORTH)
        control = RateControl(utility, self._least_gain)
        max_bytes = control.max_bytes(metered.doubt, held_weight, allowed, metered.bit_price, edge_weight)
        if max_bytes is None:
            return EdgeOnly(metered, Drop.WORTH if utility.weight(allowed) > 0 else Drop.BUDGET)
        return replace(metered, max_bytes=max_bytes)

    def _bytes(self, camera: str, bits: int | None) -> float:
        """Bytes of the longest message that `bits` pay for; infinite for None."""
        if bits is None:
            return math.inf
        longest = min(self._max_message, self._link_limit(camera))
        return affordable_bytes(partial(self._wire_bits, camera), bits, longest)
