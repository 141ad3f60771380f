"""Reads and writes the tables of a ledger; each function runs inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from sagelink.pipeline.budget.pacing import PaceState
from sagelink.pipeline.budget.quota import GUARD, Moment, Quota
from sagelink.pipeline.ledger.records import QUARTER_S, Count, Rate, Scope, Slots, Spending, Stake, slot_s

COMMON = -1  # owner of the slots of quotas, which all processes share
_KEPT_QUARTERS = 400 * 96
_PACE_QUARTERS = 7 * 96
_ADD_QUARTER = (
    "INSERT INTO quarters VALUES (?, ?, ?, ?) ON CONFLICT (scope, quarter) "
    "DO UPDATE SET bits = bits + excluded.bits, at_s = max(at_s, excluded.at_s)"
)
_ADD_DAY = (
    "INSERT INTO days VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, day, camera, kind) "
    "DO UPDATE SET bits = bits + excluded.bits"
)
_ADD_SLOT = (
    "INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (scope, owner, window_s, slot) "
    "DO UPDATE SET bits = bits + excluded.bits, at_s = max(at_s, excluded.at_s)"
)


def settle(base: sqlite3.Connection, owner: int, spending: Spending) -> None:
    """Adds what a process has spent."""
    scope = spending.scope
    base.executemany(
        _ADD_QUARTER,
        [(scope.name, quarter, bits, at_s) for quarter, (at_s, bits) in spending.quarters.items()],
    )
    base.executemany(
        _ADD_DAY,
        [(scope.name, *place, bits) for place, bits in spending.days.items()],
    )
    for window_s, slots in spending.quota_slots.items():
        _add_slots(base, scope.name, COMMON, window_s, slots)
    if scope.rate is not None:
        _add_slots(base, scope.name, owner, scope.rate.window_s, spending.rate_slots)


def _add_slots(base: sqlite3.Connection, scope: str, owner: int, window_s: float, slots: Slots) -> None:
    base.executemany(
        _ADD_SLOT,
        [(scope, owner, window_s, slot, at_s, bits) for slot, (at_s, bits) in slots.items()],
    )


def fill_new_windows(base: sqlite3.Connection, scope: Scope, at: Moment) -> None:
    """A rolling quota that the ledger has not seen yet takes its past from the counts by the quarter of an hour."""
    for window_s in scope.windows_s:
        query = "SELECT 1 FROM slots WHERE scope = ? AND owner = ? AND window_s = ? LIMIT 1"
        if base.execute(query, (scope.name, COMMON, window_s)).fetchone() is None:
            slots: Slots = {}
            for at_s, bits in quarters_since(base, scope.name, expired_s(window_s, at)):
                slot = int(at_s // slot_s(window_s))
                slots[slot] = at_s, bits + slots.get(slot, (at_s, 0))[1]
            _add_slots(base, scope.name, COMMON, window_s, slots)


def quarters_since(base: sqlite3.Connection, scope: str, after_s: float) -> list[tuple[float, int]]:
    """(time of the last charge, bits) of each quarter of an hour whose last charge is later than `after_s`."""
    query = "SELECT at_s, bits FROM quarters WHERE scope = ? AND at_s > ? ORDER BY at_s"
    return base.execute(query, (scope, after_s)).fetchall()


def rate_charges(base: sqlite3.Connection, scope: Scope, stake: Stake, at: Moment) -> list[tuple[float, int]]:
    """(time, bits) of the charges of a process that are still in the window of the rate."""
    assert scope.rate is not None
    after_s = expired_s(scope.rate.window_s, at)
    if stake.rate.window_s < scope.rate.window_s:  # it kept fewer of its charges
        return quarters_since(base, scope.name, after_s)
    query = "SELECT at_s, bits FROM slots WHERE scope = ? AND owner = ? AND window_s = ? AND at_s > ?"
    return base.execute(query, (scope.name, stake.owner, stake.rate.window_s, after_s)).fetchall()


def take_over(base: sqlite3.Connection, scope: Scope, stake: Stake, owner: int) -> None:
    """Moves the charges of a dead process to `owner`, and removes its stake."""
    query = "SELECT window_s, slot, at_s, bits FROM slots WHERE scope = ? AND owner = ?"
    for window_s, slot, at_s, bits in base.execute(query, (scope.name, stake.owner)).fetchall():
        _add_slots(base, scope.name, owner, window_s, {slot: (at_s, bits)})
    base.execute("DELETE FROM slots WHERE scope = ? AND owner = ?", (scope.name, stake.owner))
    base.execute("DELETE FROM stakes WHERE scope = ? AND owner = ?", (scope.name, stake.owner))


def forget(base: sqlite3.Connection, at: Moment) -> None:
    """Removes charges that have left their window, and old counts by the quarter of an hour."""
    base.execute("DELETE FROM slots WHERE at_s <= ? - window_s * ?", (at.elapsed_s, 1 + GUARD))
    base.execute("DELETE FROM quarters WHERE quarter < ?", (int(at.wall_s // QUARTER_S) - _KEPT_QUARTERS,))


def count(base: sqlite3.Connection, scope: str, quota: Quota, others_bits: int, at: Moment) -> Count:
    """All bits in the present period or window of a quota."""
    if quota.calendar is not None:
        query = "SELECT total(bits) FROM quarters WHERE scope = ? AND quarter >= ?"
        start_s, _ = quota.calendar.period(at.wall_s)
        return Count(int(base.execute(query, (scope, int(start_s // QUARTER_S))).fetchone()[0]), (), others_bits)
    query = "SELECT at_s, bits FROM slots WHERE scope = ? AND owner = ? AND window_s = ? AND at_s > ?"
    after_s = expired_s(quota.every_s, at)
    charges = base.execute(query, (scope, COMMON, quota.every_s, after_s)).fetchall()
    return Count(sum(bits for _, bits in charges), charges, others_bits)


def count_others(base: sqlite3.Connection, name: str, boot_id: str, counter_bits: int, both: bool) -> int:
    """Bits that other programs have sent over an interface since the last call: what has passed it, minus what was
    charged or reserved. A counter that was set back, by a boot or because the interface was away, counts from zero."""
    own_query = "SELECT total(bits) FROM days WHERE scope = '' AND kind <> 'others' AND (kind <> 'reply' OR ?)"
    own = base.execute(own_query, (both,)).fetchone()[0]
    own += base.execute("SELECT total(hold_bits) FROM stakes WHERE scope = ''").fetchone()[0]
    row = base.execute("SELECT * FROM interfaces WHERE name = ?", (name,)).fetchone()
    _, last_boot, counter, passed, own_before, others = row or (name, boot_id, counter_bits, 0, own, 0)
    goes_on = last_boot == boot_id and counter_bits >= counter
    passed += counter_bits - counter if goes_on else counter_bits
    total = max(others, passed - int(own - own_before))
    values = (name, boot_id, counter_bits, passed, own_before, total)
    base.execute("INSERT OR REPLACE INTO interfaces VALUES (?, ?, ?, ?, ?, ?)", values)
    return int(total - others)


def others_today_bits(base: sqlite3.Connection, scope: Scope, at: Moment) -> int:
    """Bits of other programs on the present day."""
    query = "SELECT total(bits) FROM days WHERE scope = ? AND day = ? AND kind = 'others'"
    return int(base.execute(query, (scope.name, scope.day(at.wall_s))).fetchone()[0])


def today_bits(base: sqlite3.Connection, scope: Scope, at: Moment) -> int:
    """All bits of the present day."""
    query = "SELECT total(bits) FROM days WHERE scope = ? AND day = ?"
    return int(base.execute(query, (scope.name, scope.day(at.wall_s))).fetchone()[0])


def pace_bps(base: sqlite3.Connection, scope: str, at: Moment) -> float:
    """Average rate of the last seven days, or of the time since the first charge; at least of one hour."""
    now = at.wall_s / QUARTER_S
    query = "SELECT total(bits), min(quarter) FROM quarters WHERE scope = ? AND quarter >= ?"
    bits, first = base.execute(query, (scope, int(now) - _PACE_QUARTERS)).fetchone()
    return float(bits / (QUARTER_S * max(4.0, now - first))) if bits else 0.0


def write_pace(base: sqlite3.Connection, scope: str, quota: str, state: PaceState) -> None:
    """Stores what was learned about the pace of a quota."""
    hours = json.dumps([[round(bits) for bits in state.hour_bits], [round(each, 1) for each in state.hour_seen_s]])
    values = (scope, quota, state.price, state.learned_s, hours)
    base.execute("INSERT OR REPLACE INTO paces VALUES (?, ?, ?, ?, ?)", values)


def read_pace(base: sqlite3.Connection, scope: str, quota: str) -> PaceState | None:
    """What was stored; None where nothing was, or by an earlier version."""
    if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'paces'").fetchone():
        return None
    query = "SELECT price, learned_s, hours FROM paces WHERE scope = ? AND name = ?"
    row = base.execute(query, (scope, quota)).fetchone()
    if row is None:
        return None
    price, learned_s, hours = row
    hour_bits, hour_seen_s = json.loads(hours)
    return PaceState(price, learned_s, hour_bits, hour_seen_s)


def expired_s(window_s: float, at: Moment) -> float:
    """Charges up to this time have left the window."""
    return at.elapsed_s - window_s * (1 + GUARD)


def read_stakes(base: sqlite3.Connection, scope: str) -> list[Stake]:
    query = (
        "SELECT owner, pid, hold_bits, share, fading, fading_until_s, active_until_s, window_s, weight, min_share "
        "FROM stakes WHERE scope = ?"
    )
    rows = base.execute(query, (scope,)).fetchall()
    return [_stake(*row) for row in rows]


def _stake(
    owner: int, pid: int, hold_bits: int, share: float, fading: float, until_s: float, active_s: float, *rate: float
) -> Stake:
    return Stake(owner, pid, hold_bits, share, fading, until_s, active_s, Rate(*rate))


def write_stake(base: sqlite3.Connection, scope: str, stake: Stake) -> None:
    values: Sequence[Any] = (
        *(scope, stake.owner, stake.pid, stake.hold_bits, stake.share, stake.fading, stake.fading_until_s),
        *(stake.active_until_s, stake.rate.window_s, stake.rate.weight, stake.rate.min_share),
    )
    base.execute("INSERT OR REPLACE INTO stakes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def write_limits(base: sqlite3.Connection, scope: Scope, rate_bits: int | None) -> None:
    """Stores the limits for `sagelink budget show`."""
    rows: list[tuple[object, ...]] = []
    if rate_bits is not None and scope.rate is not None:
        rows.append((scope.name, "rate", rate_bits, scope.rate.window_s, None, None, None))
    for quota in scope.quotas:
        days = quota.calendar
        period = (None, days.per, days.starts, days.timezone) if days else (quota.every_s, None, None, None)
        rows.append((scope.name, quota.name, quota.limit_bits, *period))
    base.execute("DELETE FROM limits WHERE scope = ?", (scope.name,))
    base.executemany("INSERT INTO limits VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
