"""Meter: asks the uplink budget what it would grant this frame."""

from __future__ import annotations

from pipeline.budget import UplinkBudget
from pipeline.clock import BudgetClock
from pipeline.types import Metered, Scored


class Meter:
    def __init__(self, budget: UplinkBudget, clock: BudgetClock) -> None:
        self._budget = budget
        self._clock = clock

    async def process(self, scored: Scored) -> Metered:
        now_s = self._clock.now_s(scored.frame)
        budget = self._budget
        return Metered(scored, budget.allowance(now_s), budget.window_bits(now_s), budget.limit_bits)
