"""Replays of recordings: exact, to the bit, and with other settings."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sagelink.app.commands.replay import check, compare
from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import WHOLE, Frame, Verdict
from sagelink.stages import score
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sinks.jsonl import timeless
from tests.app.runs import read
from tests.patience import PATIENCE_S
from tests.processes import Sagelink


def record(pair: Pair, folder: Path, watch: Any = None, **options: object) -> list[Verdict]:
    """Runs and records into the folder; returns the verdicts. `watch` receives the verdicts so far."""
    given = {key.replace("__", "."): value for key, value in options.items()}
    verdicts: list[Verdict] = []

    def collect(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if watch is not None:
            watch(verdicts)

    settings = {"models": "demo", "gate.policy": "always", "output.record": str(folder), **given}
    prepare(load_config(None, settings), pair).run(collect)
    return verdicts


def edit(folder: Path, change: Any) -> None:
    """Changes the lines of a recording."""
    rows = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    change(rows)
    (folder / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pictures_and_messages_are_recorded_to_the_last_bit(pair: Pair, tmp_path: Path) -> None:
    verdicts = record(pair, tmp_path / "rec", capture__source="synthetic:12,size=67x45", budget__uplink="unlimited")
    recording = RecordingReader(tmp_path / "rec")
    pictures = list(recording.pictures("camera"))
    assert len(pictures) == 12
    assert all((verdict.frame.pixels == picture).all() for verdict, picture in zip(verdicts, pictures, strict=True))
    assert [verdict.message for verdict in verdicts] == [recording.message(("camera", seq)) for seq in range(12)]
    assert (tmp_path / "rec" / "messages.bin").stat().st_size == sum(
        len(verdict.message or b"") for verdict in verdicts
    )


def test_a_recording_of_several_cameras_replays_exactly(pair: Pair, tmp_path: Path, capsys) -> None:
    cameras = [
        {"name": "a", "source": "synthetic:20,fps=5,seed=1", "weight": 2},
        {"name": "b", "source": "synthetic:12,fps=3,seed=2", "min_share": 0.2},
        {"name": "own", "source": "synthetic:8,fps=2", "budget": {"uplink": "60kbit/s", "window": 2}},
    ]
    record(pair, tmp_path, cameras=cameras, budget__uplink="100kbit/s", gate__policy="min_entropy")
    check(tmp_path, pair)
    assert "40 of 40 frames: verdicts, ledger and" in capsys.readouterr().out


def test_zoomed_crops_replay_exactly(pair: Pair, tmp_path: Path, capsys) -> None:
    frontier = tmp_path / "frontier.yaml"
    frontier.write_text(
        "server: demo-server\nunits: 196\npixels: 112\nlines:\n"
        "- {codec: avif, side: 112, units: 196, points: {20: [400, 0.5, 0.5], 60: [1500, 0.6, 1.0]}}\n"
        "- {codec: avif, side: 112, units: 196, view: 0.5, points: {20: [400, 0.7, 0.5], 60: [1500, 0.9, 1.0]}}\n"
    )
    options = {"capture__source": "synthetic:10,fps=5,size=320x240", "encode__frontier": str(frontier)}
    verdicts = record(pair, tmp_path / "zoom", budget__uplink="100kbit/s", **options)
    crops = {verdict.crop for verdict in verdicts if verdict.sent_s is not None}
    assert len(crops) > 2
    assert all(right - left == pytest.approx(0.5) == bottom - top for left, top, right, bottom in crops)
    check(tmp_path / "zoom", pair)
    assert "10 of 10 frames" in capsys.readouterr().out
    verdicts = record(pair, tmp_path / "whole", budget__uplink="100kbit/s", encode__zoom=False, **options)
    assert {verdict.crop for verdict in verdicts} == {WHOLE}


def test_a_live_run_with_lost_and_late_frames_replays_exactly(
    pair: Pair, tmp_path: Path, rtsp_server, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Two live cameras, a scorer too slow for them, a server too slow for the deadline, and Ctrl-C at the end."""
    from sagelink.server import classify

    real_score, real_classify = score.Score.__call__, classify.Classifier.answers
    calls = itertools.count()

    def slow_score(self: score.Score, frames: list[Frame]) -> Any:
        time.sleep(0.04)
        return real_score(self, frames)

    def slow_classify(self: classify.Classifier, *arguments: Any) -> Any:
        time.sleep(1.2 if next(calls) % 4 == 2 else 0.0)
        return real_classify(self, *arguments)

    def stop(verdicts: list[Verdict]) -> None:
        reasons = {verdict.drop for verdict in verdicts}
        if (len(verdicts) >= 60 and {"superseded", "late", None} <= reasons) or len(verdicts) == 2000:
            os.kill(os.getpid(), signal.SIGINT)

    cameras = [{"name": name, "source": rtsp_server("--fps", "20").url("u:geheim")} for name in ("a", "b")]
    with monkeypatch.context() as patched:
        patched.setattr(score.Score, "__call__", slow_score)
        patched.setattr(classify.Classifier, "answers", slow_classify)
        verdicts = record(
            pair, tmp_path, stop, cameras=cameras, budget__uplink="1Mbit/s", ship__deadline="800ms", select__units=32
        )
    reasons = {verdict.drop for verdict in verdicts}
    assert {"superseded", "late"} <= reasons
    assert any(verdict.server is not None for verdict in verdicts)
    assert "geheim" not in (tmp_path / "config.yaml").read_text()
    for thread in threading.enumerate():  # a thread of the run may still be inside the model that the replay uses
        if thread.name == "sagelink-score":
            thread.join(PATIENCE_S)
    check(tmp_path, pair)
    assert f"{len(verdicts)} of {len(verdicts)} frames" in capsys.readouterr().out


def test_a_changed_recording_is_detected(pair: Pair, tmp_path: Path) -> None:
    record(pair, tmp_path, capture__source="synthetic:6", budget__uplink="unlimited")
    edit(tmp_path, lambda rows: rows[3]["verdict"].update(prob=0.123))
    with pytest.raises(SagelinkError, match=r"1 of 6 frames differ.* frame 3: prob: 0.123 recorded"):
        check(tmp_path, pair)
    data = bytearray((tmp_path / "messages.bin").read_bytes())
    data[40] ^= 1
    (tmp_path / "messages.bin").write_bytes(data)
    with pytest.raises(SagelinkError, match=r"frame 0: message"):
        check(tmp_path, pair)


def test_a_run_over_mqtt_can_be_compared_but_not_checked(recorded_once: Path, tmp_path: Path, pair: Pair) -> None:
    folder = tmp_path / "rec"
    shutil.copytree(recorded_once / "rec", folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("server: ''", "server: mqtt://127.0.0.1:9"))
    assert load_config(config).ship.server
    with pytest.raises(UsageError, match="depends on the broker, which is not recorded"):
        check(folder, pair)
    compare(folder, ["64kbit/s"], {}, tmp_path / "tried", pair)
    assert read(tmp_path / "tried" / "64kbit-s")[1]["frames"] == 2


def test_a_run_over_webrtc_without_recorded_overhead_cannot_be_checked(
    recorded_once: Path, tmp_path: Path, pair: Pair
) -> None:
    folder = tmp_path / "rec"
    shutil.copytree(recorded_once / "rec", folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("server: ''", "server: webrtc+http://127.0.0.1:9"))
    edit(folder, lambda rows: rows[1].pop("ledger"))
    with pytest.raises(UsageError, match="an older version, which did not record the connection's own entries"):
        check(folder, pair)


@pytest.mark.campaign
def test_a_run_that_was_killed_can_be_replayed_up_to_its_last_line(tmp_path: Path, pair: Pair, capsys) -> None:
    """A process that records two cameras is killed; its last line is incomplete."""
    cameras = [
        {"name": "slow", "source": "synthetic:500,fps=1,size=64x64"},
        {"name": "quick", "source": "synthetic:5000,fps=10,size=64x64,seed=1"},
    ]
    config = tmp_path / "site.yaml"
    config.write_text(json.dumps({"models": "demo", "gate": {"policy": "always"}, "cameras": cameras}))
    lines = tmp_path / "rec" / "frames.jsonl"
    with Sagelink("run", "--config", config, "--record", tmp_path / "rec") as run:
        run.until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 40)
    lines.write_bytes(lines.read_bytes() + b'{"video": "sl')
    whole = lines.read_bytes().count(b"\n")
    check(tmp_path / "rec", pair)
    assert f"{whole} of {whole} frames" in capsys.readouterr().out


def test_a_recording_runs_again_under_other_budgets(pair: Pair, tmp_path: Path, capsys) -> None:
    record(pair, tmp_path, capture__source="synthetic:20", budget__uplink="64kbit/s")
    compare(tmp_path, ["16kbit/s", "unlimited"], {"select.units": 32}, tmp_path / "tried", pair)
    printed = capsys.readouterr().out
    assert "20 recorded frames" in printed
    assert "as recorded" in printed
    _, small = read(tmp_path / "tried" / "16kbit-s")
    _, large = read(tmp_path / "tried" / "unlimited")
    assert small["frames"] == large["frames"] == 20
    assert small["peak_window_bits"] <= small["budget_bits"] == 16_000
    assert large["wire_bits"] > small["wire_bits"]
    assert (tmp_path / "tried" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_comparing_with_the_recorded_settings_gives_the_recorded_run(pair: Pair, tmp_path: Path) -> None:
    """The frames go through the server again, and give the recorded verdicts."""
    record(pair, tmp_path / "rec", capture__source="synthetic:15", budget__uplink="64kbit/s")
    compare(tmp_path / "rec", [], {"budget.uplink": 64_000}, tmp_path / "tried", pair)
    lines, _ = read(tmp_path / "tried" / "changed")
    recorded = [row["verdict"] for row in RecordingReader(tmp_path / "rec").rows.values()]
    for line, verdict in zip(lines, recorded, strict=True):
        assert timeless(line) == timeless(verdict)
        assert [line[key] for key in ("capture_s", "wall_s")] == [verdict[key] for key in ("capture_s", "wall_s")]


def test_a_change_of_picture_size_starts_a_new_video_file(pair: Pair, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for index, size in enumerate([(40, 30), (40, 30), (30, 41), (40, 30)]):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (*size[::-1], 3), np.uint8)).save(
            folder / f"{index}.png"
        )
    verdicts = record(pair, tmp_path / "rec", capture__source=str(folder))
    assert sorted(path.name for path in (tmp_path / "rec").glob("*.ts")) == [f"camera-00{i}.ts" for i in range(3)]
    pictures = list(RecordingReader(tmp_path / "rec").pictures("camera"))
    assert all((verdict.frame.pixels == picture).all() for verdict, picture in zip(verdicts, pictures, strict=True))
    check(tmp_path / "rec", pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "recording 'nowhere': there is no frames.jsonl in it; accepted: the folder that"),
        (["{rec}", "--uplink", "9kbit/s,fast"], "budget.uplink: a rate is written like"),
        (["{rec}", "--set", "gate.polcy=x"], "unknown key (did you mean 'policy'?)"),
        (["{rec}", "--out", "x"], "--out has nothing to hold"),
        (["{broken}"], "frames.jsonl line 1 cannot be read"),
        (["{keyless}"], "frames.jsonl line 2 cannot be read: no stream_s"),
        (["{cut}"], "camera-000.ts is damaged: 1 of 2 pictures"),
        (["{noise}"], "camera-000.ts"),
        (["{empty}"], "holds no frames"),
        (["{lost}"], "camera-000.ts"),
    ],
)
def test_wrong_use_of_replay(recorded_once: Path, arguments: list[str], message: str, command) -> None:
    places = {name: str(recorded_once / name) for name in ("rec", "broken", "empty", "lost", "cut", "keyless", "noise")}
    code, printed = command("replay", *(argument.format(**places) for argument in arguments))
    assert (code, "Traceback" in printed) == (2, False)
    assert message in printed


@pytest.fixture(scope="module")
def recorded_once(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, and damaged copies of it."""
    folder = tmp_path_factory.mktemp("recordings")
    record(pair, folder / "rec", capture__source="synthetic:2")
    for name in ("broken", "empty", "lost", "cut", "keyless", "noise"):
        shutil.copytree(folder / "rec", folder / name)
    (folder / "broken" / "frames.jsonl").write_text("{\n")
    (folder / "empty" / "frames.jsonl").write_text("")
    (folder / "lost" / "camera-000.ts").unlink()
    video = folder / "cut" / "camera-000.ts"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (folder / "noise" / "camera-000.ts").write_bytes(np.random.default_rng(0).bytes(5000))
    edit(folder / "keyless", lambda rows: rows[1].pop("stream_s"))
    return folder


def test_a_replay_needs_no_server_model(recorded_once: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    from sagelink.server import classify

    monkeypatch.setattr(classify, "Classifier", None)
    check(recorded_once / "rec", pair)
