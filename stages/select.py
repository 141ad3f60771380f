"""Select stage: orders a frame's units, best first. `Metered` in, `Selected` out."""

from __future__ import annotations

import time

from sagelink.pipeline.config.stages import SelectConfig
from sagelink.pipeline.types import Metered, Selected
from sagelink.stages.selectors import selector_by_name


class Select:
    def __init__(self, config: SelectConfig) -> None:
        """Raises UsageError for an unknown selector."""
        self._selector = selector_by_name(config.selector)
        self._units = config.units
        self._seed = config.seed

    async def process(self, metered: Metered) -> Selected:
        began = time.perf_counter()
        scored = metered.scored
        seed = self._seed + scored.frame.seq
        count = self._units or len(scored.importance)
        order = self._selector(scored.importance, scored.embeddings, count, seed=seed)
        return Selected(metered, order, (time.perf_counter() - began) * 1e3)
