"""Reads a ledger for people, and resets one: limits, what was used, forecasts, by camera and by kind."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.quota import Moment, Quota
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.ledger.machine_clock import MachineClock
from sagelink.pipeline.ledger.process_slot import ProcessSlot
from sagelink.pipeline.ledger.quota_watch import forecast_bits, per_megabyte
from sagelink.pipeline.ledger.schema import check_is_ledger, connect, explained
from sagelink.pipeline.ledger.tables import count, pace_bps, read_pace


def read_ledger(path: Path, clock: MachineClock | None = None) -> dict[str, Any]:
    """`limits`, `by_camera`, `by_kind` and `since`, as plain JSON values; docs/budget.md describes them.

    Writes nothing. Raises UsageError; SagelinkError for a damaged file."""
    _check_exists(path)
    with explained(path):
        check_is_ledger(path)
        with contextlib.closing(connect(path, read_only=True)) as base:
            return _report(base, _now(base, clock or MachineClock()))


def _report(base: sqlite3.Connection, at: Moment) -> dict[str, Any]:
    query = "SELECT scope, name, limit_bits, window_s, per, starts, timezone FROM limits ORDER BY scope, name"
    rows = base.execute(query).fetchall()
    limits = [_limit(base, at, *row) for row in rows]
    site = [Calendar(per, starts, zone) for scope, _, _, _, per, starts, zone in rows if per and not scope]
    since = min((days.day(days.period(at.wall_s)[0]).isoformat() for days in site), default="")

    def sums(column: str) -> dict[str, int]:
        # `column` is one of two names of ours. A camera's bits with its own budget are listed under its own scope too.
        query = f"SELECT {column}, sum(bits) FROM days WHERE scope = '' AND day >= ? GROUP BY 1 ORDER BY 1"  # noqa: S608
        return dict(base.execute(query, (since,)).fetchall())

    return {"limits": limits, "by_camera": sums("camera"), "by_kind": sums("kind"), "since": since or None}


def _limit(
    base: sqlite3.Connection,
    at: Moment,
    scope: str,
    name: str,
    limit_bits: int,
    window_s: float | None,
    per: Any,
    starts: int,
    timezone: str,
) -> dict[str, Any]:
    reserved_query = "SELECT total(hold_bits) FROM stakes WHERE scope = ?"
    reserved = int(base.execute(reserved_query, (scope,)).fetchone()[0])
    start = end = forecast = pace = None
    if name == "rate" and window_s is not None:
        query = "SELECT total(bits) FROM slots WHERE scope = ? AND owner <> -1 AND window_s = ? AND at_s > ?"
        used = int(base.execute(query, (scope, window_s, at.elapsed_s - window_s)).fetchone()[0])
    else:
        calendar = None if per is None else Calendar(per, starts, timezone)
        quota = Quota(name, limit_bits, calendar, window_s or 0.0)
        used = count(base, scope, quota, 0, at).used_bits
        pace = read_pace(base, scope, name)
        if calendar is not None:
            start_s, end_s = calendar.period(at.wall_s)
            start, end = calendar.iso(start_s), calendar.iso(end_s)
            forecast = forecast_bits(used, pace_bps(base, scope, at), at.wall_s, end_s)
    return {
        "name": name,
        "camera": scope,
        "limit_bits": limit_bits,
        "used_bits": used,
        "reserved_bits": reserved,
        "window_s": window_s,
        "period_start": start,
        "period_end": end,
        "forecast_bits": forecast,
        "price": None if pace is None else per_megabyte(pace.price),
    }


def reset_ledger(path: Path) -> Path:
    """Sets all counts of quotas to zero, after a copy of the ledger beside it; returns the copy's path. What is in the
    window of a rate stays. Raises UsageError, also while a run uses the ledger."""
    _check_exists(path)
    with explained(path):
        check_is_ledger(path)
        slot = ProcessSlot(path)
        try:
            with contextlib.closing(connect(path)) as base:
                base.execute("BEGIN IMMEDIATE")
                for owner, pid in base.execute("SELECT owner, pid FROM stakes").fetchall():
                    if owner not in (slot.number, -1) and owner >= 0 and slot.lives(owner):
                        raise UsageError(f"ledger {str(path)!r}: process {pid} uses it; end it first")
                base.execute("COMMIT")
                stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
                copy = path.with_name(f"{path.name}.before-reset-{stamp}")
                with copy.open("xb"), contextlib.closing(sqlite3.connect(copy)) as backup:
                    base.backup(backup)
                base.executescript(
                    "BEGIN IMMEDIATE; DELETE FROM quarters; DELETE FROM days; DELETE FROM slots WHERE owner = -1;"
                    "UPDATE stakes SET hold_bits = 0; UPDATE machine SET latest_wall_s = 0; COMMIT;"
                )
                return copy
        finally:
            slot.close()


def _now(base: sqlite3.Connection, clock: MachineClock) -> Moment:
    boot_id, epoch_s, latest_s, latest_wall_s = base.execute(
        "SELECT boot_id, epoch_s, latest_s, latest_wall_s FROM machine"
    ).fetchone()
    elapsed_s = epoch_s + clock.uptime_s() if boot_id == clock.boot_id else latest_s + clock.uptime_s()
    return Moment(max(elapsed_s, latest_s), max(latest_wall_s, clock.wall_s()))


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"ledger {str(path)!r} does not exist; accepted: the file of budget.ledger")
