"""What goes into a transaction of the ledger, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sagelink.pipeline.budget.pacing import PaceState
from sagelink.pipeline.budget.quota import GUARD, Moment, Quota
from sagelink.pipeline.budget.uplink_budget import ChargeKind

QUARTER_S = 900  # all time zones begin their days at a multiple of this


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate limit of a scope, as far as processes share it."""

    window_s: float
    weight: float = 1.0
    min_share: float = 0.0  # fraction of the rate, 0..1


@dataclass(frozen=True, slots=True)
class Scope:
    """The bits that count together: of the site, or of a camera with its own budget."""

    name: str  # empty for the site, else the camera's
    quotas: tuple[Quota, ...]
    rate: Rate | None  # None: no limit

    @property
    def windows_s(self) -> tuple[float, ...]:
        """The rolling windows of the quotas."""
        return tuple(quota.every_s for quota in self.quotas if quota.calendar is None)

    def day(self, wall_s: float) -> str:
        """The date under which bits are listed: of the first calendar quota's time zone, else UTC."""
        for quota in self.quotas:
            if quota.calendar is not None:
                return quota.calendar.day(wall_s).isoformat()
        return datetime.fromtimestamp(wall_s, UTC).date().isoformat()


Slots = dict[int, tuple[float, int]]  # by number: time of the last charge on the elapsed clock, and bits


class Spending:
    """Bits that were spent and are not in the ledger file yet."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.bits = 0
        self.quarters: dict[int, tuple[float, int]] = {}
        self.days: dict[tuple[str, str, str], int] = {}  # by day, camera and kind
        self.quota_slots: dict[float, Slots] = {window_s: {} for window_s in scope.windows_s}
        self.rate_slots: Slots = {}
        self._quarter = -1
        self._day = ""

    def add(self, at: Moment, bits: int, kind: ChargeKind, camera: str, uplink: bool = True) -> None:
        """`uplink`: the bits count against the rate too."""
        if not bits:
            return
        self.bits += bits
        quarter = int(at.wall_s // QUARTER_S)
        if quarter != self._quarter:
            self._quarter, self._day = quarter, self.scope.day(at.wall_s)
        _add(self.quarters, quarter, at.elapsed_s, bits)
        place = self._day, camera, kind.value
        self.days[place] = self.days.get(place, 0) + bits
        for window_s, slots in self.quota_slots.items():
            _add(slots, int(at.elapsed_s // slot_s(window_s)), at.elapsed_s, bits)
        if uplink and self.scope.rate is not None:
            _add(self.rate_slots, int(at.elapsed_s // slot_s(self.scope.rate.window_s)), at.elapsed_s, bits)
            if len(self.rate_slots) > 2 * _SLOTS:
                self.forget(at.elapsed_s)

    def merge(self, earlier: Spending) -> None:
        """Takes what could not be written."""
        self.bits += earlier.bits
        for quarter, (at_s, bits) in earlier.quarters.items():
            _add(self.quarters, quarter, at_s, bits)
        for place, bits in earlier.days.items():
            self.days[place] = self.days.get(place, 0) + bits
        for window_s, slots in earlier.quota_slots.items():
            for slot, (at_s, bits) in slots.items():
                _add(self.quota_slots[window_s], slot, at_s, bits)
        for slot, (at_s, bits) in earlier.rate_slots.items():
            _add(self.rate_slots, slot, at_s, bits)

    def forget(self, now_s: float) -> None:
        """Drops what has left the window of the rate."""
        if self.scope.rate is not None:
            expired_s = now_s - self.scope.rate.window_s * (1 + GUARD)
            self.rate_slots = {slot: charge for slot, charge in self.rate_slots.items() if charge[0] > expired_s}


_SLOTS = 200


def slot_s(window_s: float) -> float:
    """Charges that lie within this time leave a window of the ledger file together."""
    return window_s / _SLOTS


def _add(slots: Slots, slot: int, at_s: float, bits: int) -> None:
    last_s, before = slots.get(slot, (at_s, 0))
    slots[slot] = max(last_s, at_s), before + bits


@dataclass(frozen=True, slots=True)
class Stake:
    """What one process holds of a scope."""

    owner: int
    pid: int
    hold_bits: int  # reserved on disk and not settled
    share: float  # of the rate, 0..1
    fading: float  # the largest share within the window before; others may not use it yet
    fading_until_s: float  # on the elapsed clock
    active_until_s: float  # it has something to send until then
    rate: Rate

    def bound(self, now_s: float) -> float:
        """The largest share that the process may have used within the last window."""
        return max(self.share, self.fading) if now_s < self.fading_until_s else self.share


@dataclass(frozen=True, slots=True)
class Request:
    """One scope's part of a transaction."""

    spending: Spending
    hold_bits: int  # what is left of the reservation; it may be spent while the transaction runs
    wanted_bits: int  # the reservation that the process would like to hold afterwards
    share: float  # that the process would like to have; a lower one is already obeyed
    active_until_s: float
    paces: Mapping[str, PaceState] = field(default_factory=dict)  # what was learned, by quota


@dataclass(frozen=True, slots=True)
class Count:
    """The state of a quota: all bits in the file, and what other processes have reserved."""

    used_bits: int
    charges: Sequence[tuple[float, int]]  # of a rolling quota: (time, bits)
    others_bits: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a transaction gives to one scope."""

    bits: int  # added to the reservation
    valid_until_s: float  # wall time at which the first period ends
    counts: dict[str, Count]  # by quota
    share: float
    stakes: Sequence[Stake]  # of other processes that live
    today_bits: int
    others_today_bits: int  # of other programs on the interface
    pace_bps: float  # average of the last days
    adopted: Sequence[tuple[float, int]] = field(default=())  # charges of dead processes in the window of the rate
