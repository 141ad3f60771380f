"""Spreads a quota over its period: a price on a bit that adapts, or a share of the quota for each hour. Pure.

`AdaptivePace` is dual ascent, as in budget pacing of online auctions (Balseiro & Gur, "Learning in repeated auctions
with budgets", 2019): the logarithm of the price moves by the difference of what was spent and what was planned. The
plan gives each hour the part of the remaining bits that this hour of the day had on the days before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

from sagelink.pipeline.budget.quota import Bound, CalendarCount, Moment, QuotaCount

PaceName: TypeAlias = Literal["even", "adaptive", "as-needed"]
PACES: tuple[PaceName, ...] = get_args(PaceName)

LOWEST_PRICE, HIGHEST_PRICE = 1e-9, 1e-3  # gain per bit: a right answer for 125 MB, and for 125 bytes
_FIRST_PRICE = 1e-6  # a message of 1000 bytes must gain 0.008 right answers
_HOUR_S, _DAY_S, _HOURS = 3600.0, 86_400.0, 24
_PARTS = 60  # of a window: times between two steps of the price
_MEMORY_S = 3 * _HOUR_S  # of an hour of the day: three days
_PRIOR_S = 0.5 * _HOUR_S  # an hour of the day that was seen for this long counts as much as the mean of all hours
_LEAST_SHARE = 0.02  # of the mean hour: no hour is planned with less
_EMPTY_WINDOW, _FULL_WINDOW = 0.02, 20.0  # gain that a whole window must bring, at the price when it is empty and full
_SLOWEST_S, _QUICKEST_S = 24 * _HOUR_S, 0.25 * _HOUR_S
_PATIENCE = 0.25  # of the time learned and of the time left: so long a deviation from the plan changes the price by e
_LARGEST_STEP = 2.0  # of the logarithm of the price
_ROLLING_PART = 0.985  # of a rolling quota that is planned: above it, the limit decides and not the price


class Pacer(Protocol):
    """Sets a price on a bit."""

    def price(self, at: Moment) -> float:
        """Gain, in right answers, that a bit must bring at this time to be sent."""
        ...


class PricedBound(Bound, Pacer, Protocol):
    """A limit that sets a price too."""


@dataclass(frozen=True, slots=True)
class PaceState:
    """What an adaptive pace has learned; a ledger keeps it through restarts."""

    price: float  # gain per bit
    learned_s: float  # for how long it has been learning
    hour_bits: Sequence[float]  # (24,) spent in each hour of the day (UTC); older days count less
    hour_seen_s: Sequence[float]  # (24,) over this time


class AdaptivePace:
    """A Pacer that spends a quota by the end of its period, at a price that is as even as possible.

    The price falls while bits are left and rises while spending runs ahead. A new one moves fast, an experienced one
    slowly: a price that follows each busy hour would give its bits to the wrong frames.
    """

    def __init__(self, count: QuotaCount) -> None:
        """`count`: of the quota. It holds the bits of other processes too."""
        self.count = count
        quota = count.quota
        self._period_s = quota.every_s  # 0: of the calendar
        self._step_s = min(60.0, quota.every_s / _PARTS) if quota.every_s else 60.0
        self._log_price = math.log(_FIRST_PRICE)
        self._learned_s = 0.0
        self._hour_bits = [0.0] * _HOURS
        self._hour_seen_s = [0.0] * _HOURS
        self._plan = [1.0] * _HOURS  # spending in each hour of the day as a part of the mean
        self._last_s: float | None = None
        self._last_bits = 0

    @property
    def latest_price(self) -> float:
        """The result of the last `price`; safe from any thread."""
        return math.exp(self._log_price)

    def price(self, at: Moment) -> float:
        now_s = at.elapsed_s if self._period_s else at.wall_s
        if self._last_s is None:
            self._last_s, self._last_bits = now_s, self.count.counted_bits
        if now_s - self._last_s >= self._step_s:
            self._advance(at, now_s - self._last_s)
            self._last_s = now_s
        return math.exp(self._log_price)

    @property
    def in_use(self) -> bool:
        """Whether a price was asked for since the last rest."""
        return self._last_s is not None

    def rest(self) -> None:
        """Learns nothing until the next price is asked for."""
        self._last_s = None

    def state(self) -> PaceState:
        return PaceState(self.latest_price, self._learned_s, tuple(self._hour_bits), tuple(self._hour_seen_s))

    def restore(self, state: PaceState) -> None:
        """Takes what an earlier process has learned."""
        self._log_price = math.log(min(max(state.price, LOWEST_PRICE), HIGHEST_PRICE))
        self._learned_s = state.learned_s
        self._hour_bits, self._hour_seen_s = [*state.hour_bits], [*state.hour_seen_s]
        self._plan = _plan(self._hour_bits, self._hour_seen_s)

    def _advance(self, at: Moment, passed_s: float) -> None:
        """One step of the price over the time since the last one."""
        passed_s = min(passed_s, 31 * _DAY_S)
        spent = self.count.counted_bits - self._last_bits
        self._last_bits = self.count.counted_bits
        began_s = at.wall_s - passed_s
        bits, length_s = self._share(at, passed_s, spent)
        planned = bits * self._planned_s(began_s, at.wall_s) / self._planned_s(began_s, began_s + length_s)
        self._learned_s += passed_s
        reaction_s = min(max(self._learned_s * _PATIENCE, _QUICKEST_S), _SLOWEST_S, length_s * _PATIENCE)
        scale = max(bits / length_s * reaction_s, self.count.quota.limit_bits * 1e-6)
        self._log_price += min(max((spent - planned) / scale, -_LARGEST_STEP), _LARGEST_STEP)
        self._log_price = min(max(self._log_price, math.log(LOWEST_PRICE)), math.log(HIGHEST_PRICE))
        self._learn(began_s, at.wall_s, spent)

    def _share(self, at: Moment, passed_s: float, spent: int) -> tuple[float, float]:
        """The bits that were left at the last step, and the time from then on that they are for."""
        limit_bits = self.count.quota.limit_bits
        if isinstance(self.count, CalendarCount):
            left_bits = max(0, limit_bits - self.count.used_bits(at))
            return float(left_bits + spent), max(1.0, self.count.end_s - at.wall_s) + passed_s
        return _ROLLING_PART * limit_bits, max(self._period_s, passed_s)

    def _planned_s(self, began_s: float, end_s: float) -> float:
        """Time between two wall times, each hour of the day multiplied by its part in the plan."""
        days, rest_s = divmod(end_s - began_s, _DAY_S)
        total = days * _DAY_S
        for hour, seconds in _hours(began_s, began_s + rest_s):
            total += seconds * self._plan[hour]
        return total

    def _learn(self, began_s: float, now_s: float, spent: int) -> None:
        passed_s = now_s - began_s
        for hour, seconds in _hours(began_s, now_s):
            kept = math.exp(-seconds / _MEMORY_S)
            self._hour_bits[hour] = self._hour_bits[hour] * kept + spent * seconds / passed_s
            self._hour_seen_s[hour] = self._hour_seen_s[hour] * kept + seconds
        self._plan = _plan(self._hour_bits, self._hour_seen_s)


class EvenPace:
    """A Bound that releases a quota hour by hour, in equal parts; what an hour leaves is for the hours after it."""

    def __init__(self, count: QuotaCount) -> None:
        self._count = count
        self.limit_bits: int | None = None
        self._released_bits = 0.0  # of a rolling quota, and not spent
        self._last_s: float | None = None

    def allowance(self, at: Moment) -> int | None:
        limit_bits, count = self._count.quota.limit_bits, self._count
        used_bits = count.used_bits(at)
        if isinstance(count, CalendarCount):
            parts = max(1, math.ceil((count.end_s - count.start_s) / _HOUR_S))
            begun = math.floor((at.wall_s - count.start_s) / _HOUR_S) + 1
            return max(0, int(limit_bits * min(1.0, begun / parts)) - used_bits)
        every_s = count.quota.every_s
        if self._last_s is None or at.elapsed_s - self._last_s >= every_s / _HOURS:
            passed_s = every_s / _HOURS if self._last_s is None else at.elapsed_s - self._last_s
            self._released_bits = min(float(limit_bits), self._released_bits + limit_bits * passed_s / every_s)
            self._last_s = at.elapsed_s
        return max(0, int(self._released_bits))

    def add(self, at: Moment, bits: int) -> None:
        self._released_bits -= bits

    def set_aside(self, bits: int) -> None:
        """Takes nothing: the quota itself provides for it."""


def even_bounds(counts: Sequence[QuotaCount], pace: PaceName) -> list[Bound]:
    """What limits these quotas further at this pace."""
    return [EvenPace(count) for count in counts] if pace == "even" else []


def adaptive_paces(counts: Sequence[QuotaCount], pace: PaceName) -> list[AdaptivePace]:
    """What prices the bits of these quotas at this pace."""
    return [AdaptivePace(count) for count in counts] if pace == "adaptive" else []


def window_price(used_bits: int, limit_bits: int) -> float:
    """Price of a bit in a window of the rate, by how full it is: it rises exponentially, as the threshold of an online
    knapsack (Zhou, Chakrabarty & Lukose, "Budget constrained bidding in keyword auctions", 2008). So one scene cannot
    take the whole window: the last bits are for a message with a large gain, such as the first one of a new scene."""
    full = min(1.0, used_bits / max(1, limit_bits))
    return _EMPTY_WINDOW * math.exp(full * math.log(_FULL_WINDOW / _EMPTY_WINDOW)) / max(1, limit_bits)


def _plan(hour_bits: Sequence[float], hour_seen_s: Sequence[float]) -> list[float]:
    """Spending in each hour of the day as a part of the mean, from what was seen."""
    seen_s = sum(hour_seen_s)
    mean_bps = sum(hour_bits) / seen_s if seen_s else 0.0
    if mean_bps <= 0:
        return [1.0] * _HOURS
    rates = [
        (bits + _PRIOR_S * mean_bps) / (seconds + _PRIOR_S)
        for bits, seconds in zip(hour_bits, hour_seen_s, strict=True)
    ]
    mean = sum(rates) / _HOURS
    parts = [max(_LEAST_SHARE, rate / mean) for rate in rates]
    scale = _HOURS / sum(parts)
    return [part * scale for part in parts]


def _hours(began_s: float, end_s: float) -> list[tuple[int, float]]:
    """Hour of the day (UTC) and seconds in it, for each hour between two wall times."""
    parts = []
    while began_s < end_s:
        until_s = min(end_s, (math.floor(began_s / _HOUR_S) + 1) * _HOUR_S)
        parts.append((int(began_s % _DAY_S // _HOUR_S), until_s - began_s))
        began_s = until_s
    return parts
