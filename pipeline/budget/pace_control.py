"""The pace of a run's budgets: takes a pace, and sets the bounds and prices that follow from it. Pure.

The pace may change while the run goes on. What an adaptive pace has learned is kept until it is used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sagelink.pipeline.budget.pacing import AdaptivePace, EvenPace, PaceName, adaptive_paces, even_bounds
from sagelink.pipeline.budget.quota import QuotaCount
from sagelink.pipeline.budget.uplink_budget import UplinkBudget


class PaceControl:
    """Sets the pace of several budgets, which may share quotas."""

    def __init__(self, counts: Mapping[str, Sequence[QuotaCount]] | None = None) -> None:
        """`counts`: of the quotas, by scope."""
        self._counts = counts or {}
        self._budgets: list[tuple[UplinkBudget, tuple[str, ...]]] = []
        self.adaptive = {scope: adaptive_paces(each, "adaptive") for scope, each in self._counts.items()}
        self.pace: PaceName = "as-needed"

    @property
    def prices(self) -> Mapping[str, Sequence[AdaptivePace]]:
        """The adaptive paces in use, by scope. Safe from any thread."""
        return self.adaptive if self.pace == "adaptive" else {}

    def govern(self, budget: UplinkBudget, *scopes: str) -> None:
        """Adds a budget that the quotas of these scopes limit, before the pace is set."""
        self._budgets.append((budget, scopes))

    def change(self, pace: PaceName) -> None:
        """Sets the pace of all budgets, for everything that is charged from now on."""
        self.pace = pace
        evens = {scope: even_bounds(each, pace) for scope, each in self._counts.items()}
        for each in self.adaptive.values():
            for adaptive in each:
                adaptive.rest()
        for budget, scopes in self._budgets:
            kept = [bound for bound in budget.bounds if not isinstance(bound, EvenPace)]
            budget.bounds = [*kept, *(bound for scope in scopes for bound in evens[scope])]
            budget.pacers = [pacer for scope in scopes for pacer in self.prices.get(scope, ())]
            budget.prices_window = pace == "adaptive"
