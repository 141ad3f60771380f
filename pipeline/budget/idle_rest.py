"""How many bits may be spent on what can wait: the part of the window and of the quotas that nothing else needs. Pure.

The window: while three quarters of it are free, down to a half, so that evidence always finds at least a half. A quota
of a calendar period: what an even pace would have spent by now. A quota of a rolling window: half of it.
"""

from __future__ import annotations

from sagelink.pipeline.budget.quota import Bound, CalendarCount, Moment, RollingCount
from sagelink.pipeline.budget.uplink_budget import UplinkBudget, least


def idle_bits(budget: UplinkBudget, now_s: float) -> int | None:
    """Bits that may be charged now for what can wait, 0 or more; None without a limit."""
    at = budget.moment(max(now_s, budget.now_s))
    return least(_of_rate(budget, now_s), *(_of_bound(bound, at) for bound in budget.bounds))


def _of_rate(budget: UplinkBudget, now_s: float) -> int | None:
    left, limit = budget.rate_allowance(now_s), budget.limit_bits
    if left is None or limit is None:
        return None
    return max(0, left - limit // 2) if 4 * left >= 3 * limit else 0


def _of_bound(bound: Bound, at: Moment) -> int | None:
    left, limit = bound.allowance(at), bound.limit_bits
    if left is None or limit is None:
        return left
    if isinstance(bound, CalendarCount):
        passed = (at.wall_s - bound.start_s) / (bound.end_s - bound.start_s)
        later = int(limit * min(1.0, max(0.0, 1 - passed)))
    else:
        later = limit // 2 if isinstance(bound, RollingCount) else 0
    return max(0, left - later)
