"""Divides one rate between the processes that share a ledger, by weights and minimum shares. Pure.

Each process uses its share of the rate in its own windows. A share that is given up may be used by others one window
later, when the charges under it have left every window. So the sum over all processes never exceeds the rate.
"""

from __future__ import annotations

from collections.abc import Iterable

from sagelink.pipeline.ledger.records import Rate, Stake


def target_share(own: Rate, active: bool, others: Iterable[Stake], now_s: float) -> float:
    """The share, 0..1, that a process is entitled to: its minimum, and by weight a part of the rest while it is active,
    or while nobody is."""
    others = list(others)
    pool = max(0.0, 1.0 - own.min_share - sum(stake.rate.min_share for stake in others))
    claiming = [stake for stake in others if now_s <= stake.active_until_s]
    if not active and claiming:
        return own.min_share
    rivals = claiming if active else others
    return own.min_share + pool * own.weight / (own.weight + sum(stake.rate.weight for stake in rivals))


def granted_share(wanted: float, held: float, others: Iterable[Stake], now_s: float) -> float:
    """The share that a process may have now: a lower one at once, a higher one as far as others have let it go."""
    free = max(0.0, 1.0 - sum(stake.bound(now_s) for stake in others))
    return min(wanted, max(free, min(wanted, held)))
