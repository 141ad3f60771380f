"""Quotas: at most so many bits in each day, week or month, or in every window of hours. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.errors import UsageError

GUARD = 0.001  # a charge leaves a rolling window later than necessary, by this fraction of the window
EARLIEST_WALL_S = 1_767_225_600  # 2026: a clock that shows less was never set; such machines begin in 1970
_SLOTS = 200  # charges of a rolling quota that lie within a 200th of its window leave it together, with the last one


class Moment(NamedTuple):
    """A time on the two clocks that quotas need."""

    elapsed_s: float  # never runs backwards and never steps; for rolling windows
    wall_s: float  # since 1970; for the calendar


@dataclass(frozen=True, slots=True)
class Quota:
    """The rule: at most `limit_bits` in each period of `calendar`, or, without one, in every window of `every_s`."""

    name: str
    limit_bits: int
    calendar: Calendar | None = None
    every_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.limit_bits < 1:
            raise UsageError(f"quota {self.name!r} is {self.limit_bits} bits; accepted: above 0")
        if self.calendar is None and not 0 < self.every_s < float("inf"):
            raise UsageError(f"quota {self.name!r} has a window of {self.every_s} s; accepted: above 0")

    @property
    def slot_s(self) -> float:
        """Resolution of the charges in a rolling window."""
        return self.every_s / _SLOTS


class Bound(Protocol):
    """One more limit on the bits of a budget, beside its rate. All methods take times that never run backwards."""

    @property
    def limit_bits(self) -> int | None:
        """Bits that it grants at most at once; None without a limit."""
        ...

    def allowance(self, at: Moment) -> int | None:
        """Bits that may be charged now, 0 or more; None without a limit."""
        ...

    def add(self, at: Moment, bits: int) -> None:
        """Counts bits, whatever the allowance is."""
        ...

    def set_aside(self, bits: int) -> None:
        """Takes bits out of the allowance without counting them; negative bits give them back."""
        ...


class CalendarCount:
    """A Bound: the bits of the calendar period that now is. A clock that steps back stays in the latest period."""

    def __init__(self, quota: Quota) -> None:
        assert quota.calendar is not None
        self.quota = quota
        self.limit_bits: int | None = quota.limit_bits
        self.counted_bits = 0  # ever, of other processes too; it never falls
        self.start_s = self.end_s = float("-inf")  # of the period, since 1970
        self._calendar = quota.calendar
        self._used_bits = 0
        self._aside_bits = 0

    def used_bits(self, at: Moment) -> int:
        if at.wall_s >= self.end_s:
            self.start_s, self.end_s = self._calendar.period(at.wall_s)
            self._used_bits = 0
        return self._used_bits

    @property
    def latest_bits(self) -> int:
        """The result of the last `used_bits`; safe from any thread."""
        return self._used_bits

    def allowance(self, at: Moment) -> int:
        return max(0, self.quota.limit_bits - self.used_bits(at) - self._aside_bits)

    def add(self, at: Moment, bits: int) -> None:
        self.used_bits(at)
        self._used_bits += bits
        self.counted_bits += bits

    def set_aside(self, bits: int) -> None:
        self._aside_bits += bits

    def restore(self, at: Moment, used_bits: int) -> None:
        """Replaces the count of the period of `at`."""
        self.counted_bits += max(0, used_bits - self.used_bits(at))
        self._used_bits = used_bits


class RollingCount:
    """A Bound: the bits of the window that ends now. Holds at most about `_SLOTS` numbers."""

    def __init__(self, quota: Quota) -> None:
        assert quota.calendar is None
        self.quota = quota
        self.limit_bits: int | None = quota.limit_bits
        self.counted_bits = 0  # ever, of other processes too; it never falls
        self._now_s = float("-inf")
        self._slots: deque[tuple[float, int]] = deque()  # time of the last charge, and bits
        self._slot_began_s = float("-inf")
        self._used_bits = 0
        self._others_bits = 0  # that stay in the window until `restore` says otherwise
        self._aside_bits = 0

    def used_bits(self, at: Moment) -> int:
        self._now_s = max(self._now_s, at.elapsed_s)
        expired_s = self._now_s - self.quota.every_s * (1 + GUARD)
        while self._slots and self._slots[0][0] <= expired_s:
            self._used_bits -= self._slots.popleft()[1]
        return self._used_bits + self._others_bits

    @property
    def latest_bits(self) -> int:
        """The result of the last `used_bits`; safe from any thread."""
        return self._used_bits + self._others_bits

    def allowance(self, at: Moment) -> int:
        return max(0, self.quota.limit_bits - self.used_bits(at) - self._aside_bits)

    def add(self, at: Moment, bits: int) -> None:
        self.used_bits(at)
        if self._slots and self._now_s - self._slot_began_s < self.quota.slot_s:
            self._slots[-1] = (self._now_s, self._slots[-1][1] + bits)
        else:
            self._slot_began_s = self._now_s
            self._slots.append((self._now_s, bits))
        self._used_bits += bits
        self.counted_bits += bits

    def set_aside(self, bits: int) -> None:
        self._aside_bits += bits

    def restore(self, at: Moment, charges: Iterable[tuple[float, int]], others_bits: int = 0) -> None:
        """Replaces all charges. `charges`: (time, bits) on the elapsed clock, in any order. `others_bits` count until
        the next `restore`, whatever the time is."""
        before_bits = self.used_bits(at)
        self._slots = deque(sorted(charges))
        self._slot_began_s = float("-inf")  # a restored slot takes no further charge
        self._used_bits = sum(bits for _, bits in self._slots)
        self._others_bits = others_bits
        self.counted_bits += max(0, self.used_bits(at) - before_bits)


QuotaCount = CalendarCount | RollingCount


def count_of(quota: Quota) -> QuotaCount:
    """An empty count of the quota."""
    return CalendarCount(quota) if quota.calendar is not None else RollingCount(quota)


class ClosedUntil:
    """A Bound that grants nothing before a time: what an earlier run has sent may still be in the window."""

    def __init__(self, opens_s: float) -> None:
        """`opens_s`: on the elapsed clock."""
        self._opens_s = opens_s
        self.limit_bits: int | None = None

    def allowance(self, at: Moment) -> int | None:
        return 0 if at.elapsed_s < self._opens_s else None

    def add(self, at: Moment, bits: int) -> None:
        """Counts nothing."""

    def set_aside(self, bits: int) -> None:
        """Takes nothing out of no limit."""


class ClosedWithoutClock:
    """A Bound that grants nothing while the machine's clock is not set: the period of the calendar is not known."""

    def __init__(self) -> None:
        self.limit_bits: int | None = None

    def allowance(self, at: Moment) -> int | None:
        return 0 if at.wall_s < EARLIEST_WALL_S else None

    def add(self, at: Moment, bits: int) -> None:
        """Counts nothing."""

    def set_aside(self, bits: int) -> None:
        """Takes nothing out of no limit."""
