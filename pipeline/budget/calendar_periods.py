"""Periods of the calendar in which a quota counts: days, weeks and months of a time zone. Pure: time is an argument."""

from __future__ import annotations

import calendar
import os
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from sagelink.pipeline.errors import UsageError, suggest

Per = Literal["day", "week", "month"]
_LAST_START = {"day": 1, "week": 7, "month": 31}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Periods that follow each other without a gap, each from midnight to midnight in one time zone.

    `starts`: for months the day of the month, where a shorter month takes its last day; for weeks the day of the week,
    1 for Monday; for days 1. Raises UsageError for other values and for an unknown time zone.
    """

    per: Per
    starts: int = 1
    timezone: str = "UTC"
    _zone: tzinfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        last = _LAST_START[self.per]
        if not 1 <= self.starts <= last:
            accepted = "1 to 31 with a month, 1 (Monday) to 7 with a week" if last > 1 else "none with a day"
            raise UsageError(f"starts is {self.starts}, with per: {self.per}; accepted: {accepted}")
        object.__setattr__(self, "_zone", _zone(self.timezone))

    def period(self, wall_s: float) -> tuple[float, float]:
        """Start and end of the period that holds `wall_s`, in seconds since 1970: start <= wall_s < end."""
        start = self._start_day(self.day(wall_s))
        end = self._next(start)
        while self._midnight_s(end) <= wall_s:  # a clock that is set back may repeat the last hour of a day
            start, end = end, self._next(end)
        return self._midnight_s(start), self._midnight_s(end)

    def day(self, wall_s: float) -> date:
        """The date in the time zone."""
        return datetime.fromtimestamp(wall_s, self._zone).date()

    def iso(self, wall_s: float) -> str:
        """A time as ISO 8601 text in the time zone, with its offset."""
        return datetime.fromtimestamp(wall_s, self._zone).isoformat(timespec="seconds")

    def _start_day(self, day: date) -> date:
        if self.per == "day":
            return day
        if self.per == "week":
            return day - timedelta((day.isoweekday() - self.starts) % 7)
        start = self._in_month(day.year, day.month)
        return start if start <= day else self._in_month(*_month_before(day.year, day.month))

    def _next(self, start: date) -> date:
        if self.per == "day":
            return start + timedelta(1)
        if self.per == "week":
            return start + timedelta(7)
        later = start.replace(day=1) + timedelta(31)
        return self._in_month(later.year, later.month)

    def _in_month(self, year: int, month: int) -> date:
        return date(year, month, min(self.starts, calendar.monthrange(year, month)[1]))

    def _midnight_s(self, day: date) -> float:
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp()


def local_timezone() -> str:
    """The name of this machine's time zone; UTC where it has none with a name."""
    link = os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]
    try:
        written = Path("/etc/timezone").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        written = ""
    for name in (os.environ.get("TZ", "").lstrip(":"), link, written):
        try:
            if name:
                ZoneInfo(name)
                return name
        except (KeyError, ValueError, OSError):
            continue
    return "UTC"


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year, month - 1) if month > 1 else (year - 1, 12)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
    if not known and name == "UTC":
        from datetime import UTC

        return UTC
    if not known:
        raise UsageError(f"unknown time zone {name!r}: this machine has no time zone data; install the package tzdata")
    raise UsageError(
        f"unknown time zone {name!r}{suggest(name, sorted(known))}; accepted: a name such as Europe/Berlin or UTC"
    )
