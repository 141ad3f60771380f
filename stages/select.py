"""Select: which units of a frame are worth sending, best first."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from sagelink.pipeline.config import SelectConfig
from sagelink.pipeline.types import Metered, Reference, Scored, Selected, Units
from sagelink.stages.reference_tracker import ReferenceTracker
from sagelink.stages.selectors import Selector, coverage, selector_by_name


class Select:
    def __init__(self, config: SelectConfig, reference_trackers: Mapping[str, ReferenceTracker] | None = None) -> None:
        """`reference_trackers`: by camera, where the server remembers. Raises UsageError for an unknown selector."""
        self._selector = selector_by_name(config.selector)
        self._units = config.units
        self._seed = config.seed
        self._reference_trackers = reference_trackers or {}

    async def process(self, metered: Metered) -> Selected:
        began = time.perf_counter()
        scored = metered.scored
        seed = self._seed + scored.frame.seq
        most = self._units or len(scored.importance)
        order = self._selector(scored.importance, scored.embeddings, most, seed=seed)
        base = rest = None
        if memory := self._reference_trackers.get(scored.frame.camera):
            base = memory.reference_for(scored.picture, scored.frame.stream_s)
            rest = order if base is None else completing(base, order, self._selector, scored)
        return Selected(metered, order, (time.perf_counter() - began) * 1e3, base, rest)


def completing(base: Reference, order: Units, selector: Selector, scored: Scored) -> Units:
    """The units that a base has not: by `coverage` those that it does not stand for first, else in the selector's own
    order."""
    if not len(base.units):
        return order
    if selector is coverage:
        return coverage(scored.importance, scored.embeddings, len(order), have=base.units)
    return order[~np.isin(order, base.units)]
