"""The events of a killed run: open ones are closed, and those that are not queued are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sagelink.monitor.events.recovery import end_open_events, last_records, unqueued
from sagelink.stages.sinks.events import record_key


def record(number: int, action: str = "open", **values: object) -> dict[str, Any]:
    base = {"rule": "r", "camera": "gate", "label": "lorry", "prob": 0.9, "start_s": float(number), "end_s": None}
    return {"id": f"e{number}", "action": action, "wall_s": 100.0 + number, "best_seq": number, **base, **values}


def write(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_open_event_is_closed_at_the_last_frame_of_its_camera(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    write(events, record(1), record(1, "close", end_s=2.0), record(3), record(3, "update"), record(4, "withdraw"))
    frames = ({"camera": "gate", "stream_s": 9.5, "wall_s": 109.5}, {"camera": "yard", "stream_s": 11, "wall_s": 111})
    write(tmp_path / "results.jsonl", *frames)
    end_open_events(tmp_path)
    *_, last = last_records(tmp_path)
    assert (last["id"], last["action"], last["end_s"], last["wall_s"]) == ("e3", "close", 9.5, 109.5)
    end_open_events(tmp_path)
    assert len(last_records(tmp_path)) == 6  # nothing more


def test_without_frames_an_open_event_ends_where_it_began(tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", record(3))
    end_open_events(tmp_path)
    assert last_records(tmp_path)[-1]["end_s"] == 3.0


def test_a_folder_without_events_stays_as_it_is(tmp_path: Path) -> None:
    end_open_events(tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_malformed_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('nonsense\n[1]\n{"id": 3}\n' + json.dumps(record(1)) + "\n" + json.dumps(record(2)))
    assert [row["id"] for row in last_records(tmp_path)] == ["e1"]


def test_the_records_after_the_last_one_that_is_queued_are_found() -> None:
    records = [record(number) for number in range(600)]
    for first_lost in (600, 599, 300, 0):
        known = {record_key(each) for each in records[:first_lost]}
        assert unqueued(records, lambda keys, known=known: known & {*keys}) == records[first_lost:]  # type: ignore[misc]
