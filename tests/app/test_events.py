"""Events of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from tests.app.runs import read
from tests.processes import Sagelink


def events_of(pair: Pair, out: Path, record: Path | None = None, **rule: object) -> list[dict[str, Any]]:
    """The events of a run with one rule."""
    settings = {
        "models": "demo",
        "capture.source": "synthetic:60",
        "output.out": str(out),
        "output.record": record and str(record),
        "events.rules": [{"name": "seen", **rule}],
    }
    prepare(load_config(None, settings), pair).run()
    return written(out)


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def test_a_run_writes_the_events_of_its_verdicts(pair: Pair, tmp_path: Path) -> None:
    events = events_of(pair, tmp_path, after=1, until=1, min_prob=0)
    lines, _ = read(tmp_path)
    pairs = zip([{"label": None}, *lines], lines, strict=False)
    changes = [line for before, line in pairs if before["label"] != line["label"]]
    opened = [event for event in events if event["action"] == "open"]
    assert [event["label"] for event in opened] == [line["label"] for line in changes]
    assert [event["start_s"] for event in opened] == [line["stream_s"] for line in changes]
    closed = [event for event in events if event["action"] == "close"]
    assert [event["id"] for event in closed] == [event["id"] for event in opened]
    assert sum(event["wire_bits"] for event in closed) == sum(line["wire_bits"] for line in lines)


def test_a_rule_with_an_unknown_label_is_refused_with_a_suggestion(pair: Pair, tmp_path: Path) -> None:
    known = pair.edge.labels[0]
    with pytest.raises(UsageError, match=rf"no label of this run is named '{known}x' \(did you mean '{known}'\?\)"):
        events_of(pair, tmp_path, labels=[known + "x"])


def test_a_rule_with_an_unknown_camera_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no camera of this run is named 'ramp'"):
        events_of(pair, tmp_path, cameras=["ramp"])


@pytest.mark.campaign
def test_a_replay_gives_the_same_events(pair: Pair, tmp_path: Path) -> None:
    recording, again = tmp_path / "recording", tmp_path / "again"
    first = events_of(pair, tmp_path / "first", after=1, until=2, min_prob=0.3, record=recording)
    with Sagelink("replay", recording, "--uplink", "256kbit/s", "--out", again) as replay:
        assert replay.ended() == 0, replay.output
    assert first
    assert written(again / "256kbit-s") == first
