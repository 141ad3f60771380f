"""The camera page's content as plain JSON values. Pure."""

from __future__ import annotations

from typing import Any

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.fleet_rows import row


def camera_view(fleet: Fleet, record: CameraRecord, now_s: float) -> dict[str, Any]:
    """The row of a camera and all that is known besides; docs/console.md lists the keys."""
    info = record.info
    return row(fleet, record, now_s) | {
        "grid": None if info is None else {"side": info.side, "patch_size": info.patch_size},
        "deadline_s": None if info is None else info.deadline_s,
        "own_classes": bool(info and info.heads),
        "picture": None if record.message is None else record.message_wall_s,
        "answers": record.answers_as_values(),
        "timeline": [event.values() for event in sorted(record.events.all(), key=_began, reverse=True)],
        "minutes": [[minute * 60, bits] for minute, bits in record.minutes],
        "latency_ms": dict(record.latencies()),
        "settings": None if record.settings is None else dict(record.settings),
    }


def _began(event: SeenEvent) -> float:
    return event.began_wall_s
