"""The file in which a live run keeps what it learned about its cameras' edge answers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from sagelink.app.edge.kept_trust import KeptTrust, files_of_recording, restore_recorded
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.output_files import TRUST
from sagelink.stages.edge_trust import EdgeTrust

UNLIKELY = np.log(np.array([0.01, 0.9, 0.09], np.float32))


def contradicted() -> EdgeTrust:
    trust = EdgeTrust()
    for number in range(10):
        trust.learn(0, UNLIKELY, 0.5, float(number))
    return trust


def kept(path: Path, trusts: dict[str, EdgeTrust], source: str = "rtsp://gate") -> KeptTrust:
    return KeptTrust(path, trusts, dict.fromkeys(trusts, source))


def loaded(path: Path, camera: str = "gate", source: str = "rtsp://gate") -> float:
    trusts = {camera: EdgeTrust()}
    kept(path, trusts, source)
    return trusts[camera].weight(0)


def test_the_next_run_begins_with_what_was_learned(tmp_path: Path) -> None:
    path = tmp_path / "state" / TRUST
    kept(path, {"gate": EdgeTrust()}).save()
    assert loaded(path) == 1
    run = kept(path, {"gate": (trust := EdgeTrust())})
    trust.restore(contradicted().state())
    run.save()
    assert loaded(path) == 0
    assert loaded(path, camera="yard") == 1
    assert loaded(path, source="rtsp://elsewhere") == 1
    assert path.stat().st_mode & 0o777 == 0o600
    trust.reset()
    run.save()
    assert loaded(path) == 1


def test_runs_that_share_a_file_keep_each_others_entries_and_it_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / TRUST
    first = kept(path, {"gate": (gate := EdgeTrust())})
    second = kept(path, {f"yard-{number}": contradicted() for number in range(100)})
    gate.restore(contradicted().state())
    first.save()
    second.save()
    assert loaded(path) == loaded(path, "yard-7") == 0
    kept(path, {f"door-{number}": contradicted() for number in range(100)}).save()
    assert len(json.loads(path.read_text())["cameras"]) == 128
    assert loaded(path, "door-0") == loaded(path, "yard-99") == 0
    assert loaded(path) == 1


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", '{"version": 9, "cameras": {}}', '{"version": 1, "cameras": {"gate": 7}}'),
        '{"version": 1, "cameras": {' + "x" * 600_000,
    ],
)
def test_a_damaged_file_is_reported_and_begun_anew(tmp_path: Path, caplog, content: str) -> None:
    path = tmp_path / TRUST
    path.write_text(content)
    trust = EdgeTrust()
    with caplog.at_level(logging.WARNING):
        run = kept(path, {"gate": trust})
    assert "event=trust_begins_anew" in caplog.text
    assert str(path) in caplog.text
    trust.restore(contradicted().state())
    run.save()
    assert loaded(path) == 0


@pytest.mark.parametrize("content", ["my notes", "[]", '{"gate": 7}', "x" * 600_000])
def test_a_file_of_another_program_is_reported_and_stays(tmp_path: Path, caplog, content: str) -> None:
    path = tmp_path / "notes"
    path.write_text(content)
    trust = EdgeTrust()
    run = kept(path, {"gate": trust})
    trust.restore(contradicted().state())
    run.save()
    run.save()
    assert path.read_text() == content
    assert caplog.text.count("event=trust_not_kept") == 1


def test_a_damaged_entry_of_a_camera_is_reported(tmp_path: Path, caplog) -> None:
    path = tmp_path / TRUST
    kept(path, {"gate": contradicted()}).save()
    path.write_text(path.read_text().replace('"camera": [', '"camera": [-'))
    assert loaded(path) == 1
    assert "camera=gate" in caplog.text


def test_a_file_that_cannot_be_written_ends_nothing_and_is_reported_once(tmp_path: Path, caplog) -> None:
    (tmp_path / "in-the-way").write_text("")
    trust = contradicted()
    run = kept(tmp_path / "in-the-way" / TRUST, {"gate": trust})
    caplog.clear()
    run.save()
    trust.reset()
    run.save()
    assert caplog.text.count("event=trust_not_kept") == 1


def test_a_replay_begins_as_the_recorded_run_did(tmp_path: Path) -> None:
    trust, other = EdgeTrust(), EdgeTrust()
    assert files_of_recording({"gate": trust}) == {}
    restore_recorded(tmp_path, {"gate": trust})  # nothing was known
    files = files_of_recording({"gate": contradicted(), "yard": EdgeTrust()})
    (tmp_path / TRUST).write_bytes(files[TRUST])
    restore_recorded(tmp_path, {"gate": trust, "door": other})
    assert (trust.weight(0), other.weight(0)) == (0, 1)
    (tmp_path / TRUST).write_text('{"version": 1, "cameras": {"gate": {"camera": [2, 3]}}}')
    with pytest.raises(UsageError, match=r"trust\.json"):
        restore_recorded(tmp_path, {"gate": trust})
