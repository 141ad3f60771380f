"""Reports quotas: their state for displays, and one log line when a quota is used to 80 and to 100 %."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sagelink.pipeline.budget.pacing import AdaptivePace
from sagelink.pipeline.budget.quota import CalendarCount, Moment, QuotaCount
from sagelink.pipeline.ledger.hold import Hold

log = logging.getLogger(__name__)

_LEVELS = ((100, 0.995), (80, 0.8))  # percent, and the fraction from which it is reported: the last bits fit no message
_REARM = 0.05  # a rolling quota must fall by this fraction below a level before it is reported again


class QuotaWatch:
    """Logs each level of each quota once a period."""

    def __init__(self, counts: Mapping[str, Sequence[QuotaCount]]) -> None:
        """`counts`: by scope."""
        self._counts = counts
        self._reported: dict[tuple[str, str], int] = {}

    def check(self, at: Moment) -> None:
        for scope, counts in self._counts.items():
            for count in counts:
                self._check(scope, count, count.used_bits(at) / count.quota.limit_bits)

    def _check(self, scope: str, count: QuotaCount, used: float) -> None:
        place = scope, count.quota.name
        level = next((percent for percent, fraction in _LEVELS if used >= fraction), 0)
        before = self._reported.get(place, 0)
        if level > before:
            log.warning(
                "event=quota scope=%r name=%r percent=%d used_bits=%d limit_bits=%d",
                *(scope, count.quota.name, level, count.latest_bits, count.quota.limit_bits),
            )
        if level > before or used < before / 100 - _REARM:
            self._reported[place] = level


def forecast_bits(used_bits: int, pace_bps: float, now_s: float, end_s: float) -> int:
    """Bits at the end of the period, if the average rate of the last days goes on; it may be above the limit."""
    return round(used_bits + pace_bps * max(0.0, end_s - now_s))


def quota_states(
    counts: Mapping[str, Sequence[QuotaCount]],
    paces: Mapping[str, Sequence[AdaptivePace]],
    holds: Mapping[str, Hold],
    at: Moment,
) -> list[dict[str, Any]]:
    """The quotas as plain JSON values; docs/dashboard.md describes the keys. Safe from any thread."""
    states = []
    for scope, each in counts.items():
        hold = holds.get(scope)
        prices = {pace.count.quota.name: pace.latest_price for pace in paces.get(scope, ())}
        for count in each:
            calendar = count if isinstance(count, CalendarCount) and count.end_s > 0 else None
            period = count.quota.calendar
            forecast = calendar and hold and forecast_bits(count.latest_bits, hold.pace_bps, at.wall_s, calendar.end_s)
            states.append(
                {
                    "name": count.quota.name,
                    "camera": scope,
                    "per": period.per if period else None,
                    "limit_bits": count.quota.limit_bits,
                    "used_bits": count.latest_bits,
                    "today_bits": hold.today_bits(at) if hold else None,
                    "others_today_bits": hold.others_today_bits if hold else None,
                    "window_s": count.quota.every_s or None,
                    "period_start": period.iso(calendar.start_s) if calendar and period else None,
                    "period_end": period.iso(calendar.end_s) if calendar and period else None,
                    "forecast_bits": forecast,
                    "price": per_megabyte(prices.get(count.quota.name)),
                }
            )
    return states


def per_megabyte(price: float | None) -> float | None:
    """Gain per megabyte, from gain per bit; three digits."""
    return None if price is None else float(f"{8e6 * price:.3g}")
