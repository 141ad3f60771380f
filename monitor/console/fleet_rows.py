"""The rows of the fleet page: one camera each as plain JSON values, filtered and sorted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.live_stats import slow_side
from sagelink.transport.link import node_of

STATES = ("running", "stalled", "offline")
FILTERS = (*STATES, "events")  # of the state of a camera
MAX_FILTER = 80  # characters
_FEW_ANSWERS = 0.8  # a camera with a lower answered share has trouble
_MIN_MESSAGES = 5  # before that is known
_NEARLY_USED = 0.95  # of a quota: such a camera has trouble


@dataclass(frozen=True, slots=True)
class FleetQuery:
    """Which rows a page wants."""

    sort: str = "trouble"
    text: str = ""  # part of an address or a label
    state: str = ""  # empty: any

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> FleetQuery:
        """Of a message of a page; wrong values count as absent."""
        sort, state = str(values.get("sort", "")), str(values.get("state", ""))
        text = str(values.get("text", ""))[:MAX_FILTER].casefold().strip()
        return cls(sort if sort in SORTS else "trouble", text, state if state in FILTERS else "")


@dataclass(frozen=True, slots=True)
class FleetView:
    """The rows of a query, and sums over all cameras."""

    rows: list[CameraRecord]
    totals: dict[str, Any]


def fleet_view(fleet: Fleet, query: FleetQuery, now_s: float) -> FleetView:
    """Filters and sorts all records."""
    states = {address: record.state(now_s)[0] for address, record in fleet.records.items()}
    counts = Counter(states.values())
    totals = {
        "cameras": len(states),
        **{state: counts[state] for state in STATES},
        "events": sum(len(record.events.open()) for record in fleet.records.values()),
        "rate_bps": sum(record.rate_bps(now_s) for record in fleet.records.values()),
        "month_bits": sum(record.month_bits for record in fleet.records.values()),
    }

    def wanted(record: CameraRecord) -> bool:
        if query.state == "events":
            if not record.events.open():
                return False
        elif query.state and states[record.address] != query.state:
            return False
        return not query.text or query.text in record.address.casefold() or query.text in record.label.casefold()

    rows = [record for record in fleet.records.values() if wanted(record)]
    key = SORTS[query.sort]
    rows.sort(key=lambda record: (key(record, now_s), record.address))
    return FleetView(rows, totals)


def trouble(record: CameraRecord, now_s: float) -> int:
    """How urgent a camera is: the smallest number first."""
    state, reason = record.state(now_s)
    share, digest = record.answered_share(), record.current_digest(now_s)
    quota = digest.quota if digest else None
    messages = record.answered + record.refused + record.late
    if state == "stalled":
        return 0
    if state == "offline":
        return 1 if reason == "the connection was lost" else 5
    if record.events.open():
        return 2
    if quota is not None and quota.used_bits >= _NEARLY_USED * quota.limit_bits:
        return 2
    if share is not None and messages >= _MIN_MESSAGES and share < _FEW_ANSWERS:
        return 3
    return 4


SORTS: dict[str, Callable[[CameraRecord, float], Any]] = {
    "trouble": trouble,
    "name": lambda record, now_s: 0,
    "seen": lambda record, now_s: -(record.seen_s or 0.0),
    "rate": lambda record, now_s: -record.rate_bps(now_s),
    "month": lambda record, now_s: -record.month_bits,
    "answered": lambda record, now_s: -1.0 if (share := record.answered_share()) is None else share,
    "label": lambda record, now_s: record.label or "\uffff",
}


def row(fleet: Fleet, record: CameraRecord, now_s: float) -> dict[str, Any]:
    """One camera as plain JSON values; docs/console.md lists the keys."""
    state, reason = record.state(now_s)
    digest, opened = record.current_digest(now_s), record.events.open()
    latencies = record.latencies()
    answer = latencies["answer"]
    server_ms = (latencies["model"] or {}).get("p50", 0.0) + (latencies["queue"] or {}).get("p50", 0.0)
    drops: dict[str, int] = dict(digest.drops) if digest else {}
    if digest is None:
        drops = {key: count for key, count in (("late", record.late), ("refused", record.refused)) if count}
    round_trip_ms = digest.round_trip_ms if digest else None
    return {
        "camera": record.address,
        "node": node_of(record.address),
        "state": state,
        "reason": reason,
        "since": None if record.since_s is None else round(fleet.wall_of(record.since_s), 1),
        "seen": None if record.seen_s is None else round(fleet.wall_of(record.seen_s), 1),
        "label": record.label,
        "prob": round(record.prob, 3),
        "events": [{"rule": event.rule, "label": event.label} for event in opened[:3]],
        "open": len(opened),
        "rate_bps": round(record.rate_bps(now_s)),
        "budget_bps": (record.settings or {}).get("rate_bps"),
        "paused": bool((record.settings or {}).get("paused")),
        "month_bits": record.month_bits,
        "quota": asdict(digest.quota) if digest and digest.quota else None,
        "frames": digest.frames if digest else None,
        "origins": dict(digest.origins) if digest else None,
        "answered": record.answered,
        "answered_share": _rounded(record.answered_share()),
        "drops": {
            reason: {"frames": count, "slow": slow_side(reason, round_trip_ms, server_ms)}
            for reason, count in sorted(drops.items(), key=lambda item: -item[1])
        },
        "answer_ms": None if answer is None else round(answer["p50"], 1),
        "round_trip_ms": round_trip_ms,
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)


def rows_between(rows: Sequence[CameraRecord], first: int, count: int) -> tuple[int, Sequence[CameraRecord]]:
    """A slice that lies within the rows, and where it begins."""
    first = max(0, min(first, len(rows) - count))
    return first, rows[first : first + count]
