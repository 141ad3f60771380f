"""The events of a run, for its report: read from events.jsonl, with their pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.files.output_files import EVENT_PICTURES, EVENTS, RUNS
from sagelink.pipeline.files.rotating_lines import read_lines
from sagelink.pipeline.quantities import format_duration
from sagelink.stages.sinks.event_pictures import picture_path

_SHOWN = 200  # events in the table
_PICTURES = 24
_KEYS = {"id", "rule", "action", "camera", "label", "prob", "start_s", "end_s", "cause", "wire_bits"}


def report_events(folder: Path) -> dict[str, Any] | None:
    """Rows of the newest events, the newest first, and the number of all; None for a run without events.

    Raises UsageError for a line that is not one of events.jsonl.
    """
    path = folder / EVENTS
    try:
        lines = [*read_lines(folder, EVENTS)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = "not text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        raise UsageError(f"{str(path)!r}: {reason}; accepted: the file that `sagelink run --out` made") from None
    last: dict[str, dict[str, Any]] = {}
    for where, line in lines:
        event = _event(line, where)
        last[event["id"]] = event
    happened = [event for event in last.values() if event["action"] != "withdraw"]
    if not happened:
        return None
    end_s = max(event["end_s"] or event["start_s"] for event in happened) or 1.0
    newest = sorted(happened, key=lambda event: -event["start_s"])[:_SHOWN]
    rows = [_row(folder, event, end_s, number < _PICTURES) for number, event in enumerate(newest)]
    return {"rows": rows, "count": len(happened), "withdrawn": len(last) - len(happened)}


def _event(line: str, where: str) -> dict[str, Any]:
    try:
        event = parse_json(line)
    except DocumentError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not (isinstance(event, dict) and event.keys() >= _KEYS):
        raise UsageError(f"{where}: not a line of {EVENTS}; see docs/events.md")
    numbers = ("prob", "start_s", "wire_bits")
    if not all(isinstance(event[key], int | float) for key in numbers) or not isinstance(event["id"], str):
        raise UsageError(f"{where}: a value of another type than {EVENTS} has; see docs/events.md")
    if not isinstance(event["end_s"], int | float | None):
        raise UsageError(f"{where}: end_s is {event['end_s']!r}; accepted: a number or null")
    return event


def _row(folder: Path, event: dict[str, Any], end_s: float, with_picture: bool) -> dict[str, Any]:
    until_s = event["end_s"] if event["end_s"] is not None else end_s
    length_s = max(0.0, until_s - event["start_s"])
    return {
        "label": str(event["label"]),
        "prob": f"{event['prob']:.0%}",
        "rule": str(event["rule"]),
        "camera": str(event["camera"]),
        "start": f"{event['start_s']:.1f} s",
        "length": "not ended" if event["end_s"] is None else format_duration(length_s),
        "cause": str(event["cause"]),
        "bytes": f"{event['wire_bits'] / 8:,.0f} B",
        "left": round(100 * min(1.0, max(0.0, event["start_s"] / end_s)), 2),
        "width": round(100 * min(1.0, length_s / end_s), 2),
        "image": _image(folder, event["id"]) if with_picture else "",
    }


def _image(folder: Path, event_id: str) -> str:
    """A data URL; empty where there is no picture. Pictures of earlier runs lie beside their folder `runs`."""
    home = folder.parent.parent if folder.parent.name == RUNS else folder
    path = picture_path(home / EVENT_PICTURES, event_id)
    if path is None or not path.is_file():
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
