"""Select stage: orders a frame's units, best first. `Metered` in, `Selected` out."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from sagelink.pipeline.stage_config import SelectConfig
from sagelink.pipeline.types import Metered, Reference, Scored, Selected, Units
from sagelink.stages.reference_tracker import ReferenceTracker
from sagelink.stages.selectors import Selector, coverage, selector_by_name


class Select:
    def __init__(self, config: SelectConfig, reference_trackers: Mapping[str, ReferenceTracker] | None = None) -> None:
        """`reference_trackers`: by camera, for a server with memory. Raises UsageError for an unknown selector."""
        self._selector = selector_by_name(config.selector)
        self._units = config.units
        self._seed = config.seed
        self._reference_trackers = reference_trackers or {}

    async def process(self, metered: Metered) -> Selected:
        began = time.perf_counter()
        scored = metered.scored
        seed = self._seed + scored.frame.seq
        count = self._units or len(scored.importance)
        order = self._selector(scored.importance, scored.embeddings, count, seed=seed)
        reference = new_units = None
        if tracker := self._reference_trackers.get(scored.frame.camera):
            reference = tracker.reference_for(scored.picture, scored.frame.stream_s)
            new_units = order if reference is None else new_units_for(reference, order, self._selector, scored)
        return Selected(metered, order, (time.perf_counter() - began) * 1e3, reference, new_units)


def new_units_for(reference: Reference, order: Units, selector: Selector, scored: Scored) -> Units:
    """The units that `reference` lacks, best first: for `coverage`, those that its units cover least come first; for
    other selectors, as in `order`."""
    if not len(reference.units):
        return order
    if selector is coverage:
        return coverage(scored.importance, scored.embeddings, len(order), covered_by=reference.units)
    return order[~np.isin(order, reference.units)]
