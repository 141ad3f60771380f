"""Completes the events of a run that was killed: ends its open events, and finds those that no receiver can know."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import EVENTS, RESULTS
from sagelink.pipeline.files.private_files import open_appending
from sagelink.pipeline.files.rotating_lines import last_lines
from sagelink.stages.sinks.events import record_key

_LINES = 2000  # that are read of a file
_KEYS = {"id", "action", "rule", "camera", "label", "prob", "start_s", "end_s", "wall_s", "best_seq"}

Record = dict[str, Any]


def end_open_events(folder: Path) -> None:
    """Writes a `close` for each event in the folder's events.jsonl that has none: the run was killed. Its end is the
    last frame of the camera in results.jsonl. Raises OSError."""
    path = folder / EVENTS
    records = last_records(folder)
    last = {record["id"]: record for record in records}
    still_open = [record for record in last.values() if record["action"] in ("open", "update")]
    if not still_open:
        return
    frames = {row["camera"]: row for row in _rows(folder, RESULTS) if _is_frame(row)}
    with open_appending(path) as file:
        for record in still_open:
            frame = frames.get(record["camera"])
            end_s, wall_s = (frame["stream_s"], frame["wall_s"]) if frame else (record["start_s"], record["wall_s"])
            closed = {"action": "close", "end_s": max(end_s, record["start_s"]), "wall_s": wall_s}
            file.write(to_json(record | closed) + "\n")


def last_records(folder: Path) -> list[Record]:
    """The last records of events.jsonl, oldest first; none without a file."""
    return [row for row in _rows(folder, EVENTS) if row.keys() >= _KEYS]


def unqueued(records: Sequence[Record], known_keys: Callable[[Sequence[str]], set[str]]) -> list[Record]:
    """The records after the last one that is known: a killed run had written them, but not yet put into the queue."""
    rest: list[Record] = []
    for start in range(len(records), 0, -256):
        part = records[max(0, start - 256) : start]
        known = known_keys([record_key(record) for record in part])
        for record in reversed(part):
            if record_key(record) in known:
                return rest[::-1]
            rest.append(record)
    return rest[::-1]


def _rows(folder: Path, name: str) -> Iterator[Record]:
    """The objects in the last lines of a file that may have rotated; what is malformed is left out."""
    for line in last_lines(folder, name, _LINES):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def _is_frame(row: Record) -> bool:
    return isinstance(row.get("camera"), str) and all(
        isinstance(row.get(key), int | float) for key in ("stream_s", "wall_s")
    )
