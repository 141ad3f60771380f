"""Select: which units of a frame are worth sending, best first."""

from __future__ import annotations

import time

from pipeline.config import SelectConfig
from pipeline.types import Metered, Selected
from stages.selectors import selector_by_name


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
        most = self._units or len(scored.importance)
        order = self._selector(scored.importance, scored.embeddings, most, seed=seed)
        return Selected(metered, order, (time.perf_counter() - began) * 1e3)
