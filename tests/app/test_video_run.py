"""Runs that track each camera's scene, from end to end, with the demo pair."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sagelink.app.commands.replay import check
from sagelink.app.edge.run import Run, prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.output_files import TRUST
from sagelink.pipeline.types import WHOLE
from sagelink.stages.capture import Playback
from sagelink.stages.sinks.jsonl import timeless
from sagelink.stages.sources.contract import SourceFrame
from tests.app.runs import check_accounts, read
from tests.stages.test_sources import write_video

WORLD = "synthetic:40,hold=8,fps=5"  # five scenes of eight frames


def run(
    pair: Pair, out: Path, source: object = WORLD, **options: object
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines and summary; `video__policy="never"` sets video.policy."""
    settings = {key.replace("__", "."): value for key, value in options.items()}
    settings = {"models": "demo", "budget.uplink": "64kbit/s", "output.out": str(out), **settings}
    if source:
        settings["capture.source"] = str(source)
    prepare(load_config(None, settings), pair).run()
    lines, summary = read(out)
    return lines, summary


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [timeless(line) for line in lines]


def test_a_scene_is_tracked_until_the_cut(pair: Pair, tmp_path: Path) -> None:
    lines, summary = run(pair, tmp_path, video__policy="always")
    check_accounts(lines, summary)
    starts = {line["scene"] for line in lines}
    assert {8, 16, 24} <= starts <= {0, 8, 16, 24, 32}  # two of the drawn scenes look alike to the demo edge
    assert all(line["scene"] <= line["seq"] for line in lines)
    informed = [line for line in lines if line["server_seq"] is not None]
    assert all(line["scene"] <= line["server_seq"] <= line["seq"] for line in informed)
    later = [line for line in informed if line["server_seq"] < line["seq"]]
    assert {line["origin"] for line in later} == {"fused"}
    assert {line["drop"] for line in later} >= {"gate"}
    revised = [line for line in lines if line["revised_from"]]
    assert summary["revised"] == len(revised) > 0
    for line in revised:
        assert line["revised_from"]["class_id"] != line["class_id"]
        assert line["server_seq"] is not None


@pytest.mark.campaign
def test_tracking_is_more_accurate_for_fewer_bits(pair: Pair, tmp_path: Path) -> None:
    options = {"source": "synthetic:150,hold=10,fps=5,seed=3", "budget__uplink": "16kbit/s"}
    _, tracked = run(pair, tmp_path / "always", video__policy="always", **options)
    lines, untracked = run(pair, tmp_path / "never", video__policy="never", **options)
    assert {(line["scene"], line["server_seq"], line["revised_from"]) for line in lines} == {(None, None, None)}
    assert tracked["wire_bits"] < untracked["wire_bits"]
    assert tracked["accuracy"]["verdict"] > untracked["accuracy"]["verdict"]


def test_frames_of_an_image_source_are_decided_one_by_one(pair: Pair, tmp_path: Path) -> None:
    auto, _ = run(pair, tmp_path / "auto", capture__max_frames=16)
    never, _ = run(pair, tmp_path / "never", video__policy="never", capture__max_frames=16)
    assert without_time(auto) == without_time(never)


def test_scenes_of_a_video_file_are_tracked_by_default(pair: Pair, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", 12)
    lines, _ = run(pair, tmp_path / "auto", clip)
    assert all(line["scene"] is not None for line in lines)
    lines, _ = run(pair, tmp_path / "never", clip, video__policy="never")
    assert all(line["scene"] is None for line in lines)


def test_the_same_run_twice_is_the_same(pair: Pair, tmp_path: Path) -> None:
    options = {"video__policy": "always", "gate__policy": "always", "capture__max_frames": 16}
    runs = [run(pair, tmp_path / name, **options)[0] for name in "ab"]
    assert without_time(runs[0]) == without_time(runs[1])


@pytest.mark.campaign
def test_each_part_of_scene_tracking_can_be_switched_off(pair: Pair, tmp_path: Path) -> None:
    always = {"video__policy": "always", "gate__policy": "always"}
    no_cuts, _ = run(pair, tmp_path / "cuts", video__cuts=False, **always)
    assert {line["scene"] for line in no_cuts} == {0}
    not_reused, _ = run(pair, tmp_path / "held", video__hold_answers=False, **always)
    assert all(line["server_seq"] in (None, line["seq"]) for line in not_reused)
    own, _ = run(pair, tmp_path / "own", video__hold_answers=False, video__average_edge=False, **always)
    for line in own:
        if line["server_seq"] is None:
            assert (line["class_id"], line["prob"]) == (line["edge"]["class_id"], pytest.approx(line["edge"]["prob"]))


@pytest.mark.campaign
def test_zoom_scores_crops_in_turn_and_sends_the_scored_crop(pair: Pair, tmp_path: Path, capsys) -> None:
    options = {"video__policy": "always", "gate__policy": "always", "video__value_gate": False}
    whole, _ = run(pair, tmp_path / "whole", **options)  # by default off: the demo pair knows objects at one size only
    assert {tuple(line["crop"]) for line in whole} == {WHOLE}
    record = str(tmp_path / "rec")
    lines, summary = run(pair, tmp_path / "zoom", video__zoom=True, output__record=record, **options)
    check_accounts(lines, summary)
    for line in lines:
        is_whole = tuple(line["crop"]) == WHOLE
        assert is_whole or line["crop"][2] - line["crop"][0] == pytest.approx(10 / 14, abs=1e-5)
        if line["units"] and line["edge_weight"] < 0.5:
            continue  # the server, which alone is believed, gets the whole view
        assert is_whole == (line["seq"] % 8 in (0, 3, 6))  # scenes of eight frames
        if is_whole:
            assert line["edge"] == whole[line["seq"]]["edge"]
    assert any(line["units"] and tuple(line["crop"]) != WHOLE for line in lines)
    check(Path(record), pair)
    assert "40 of 40 frames" in capsys.readouterr().out


def test_own_weights_and_the_server_rule_work_without_the_frontiers(pair: Pair, tmp_path: Path) -> None:
    options = {"video__policy": "always", "gate__policy": "always", "capture__max_frames": 12}
    lines, _ = run(pair, tmp_path / "own", fuse__weights={0: 0, 1: 1}, **options)
    assert {line["drop"] for line in lines} <= {None, "budget"}
    lines, _ = run(pair, tmp_path / "server", fuse__rule="server", **options)
    for line in lines:
        if line["server"]:
            assert (line["origin"], line["class_id"]) == ("server", line["server"]["class_id"])


@pytest.mark.campaign
def test_two_cameras_have_a_scene_each_and_their_recording_replays_exactly(
    pair: Pair, tmp_path: Path, capsys, caplog
) -> None:
    cameras = [
        {"name": "a", "source": "synthetic:24,hold=8,fps=5,seed=1"},
        {"name": "b", "source": "synthetic:15,hold=5,fps=3,seed=2", "budget": {"uplink": "40kbit/s"}},
    ]
    record = str(tmp_path / "rec")
    options = {"video__policy": "always", "output__record": record}
    lines, _ = run(pair, tmp_path / "both", None, cameras=cameras, **options)
    check(Path(record), pair)
    assert "39 of 39 frames: verdicts, ledger and" in capsys.readouterr().out
    assert not caplog.records
    alone, _ = run(pair, tmp_path / "one", None, cameras=cameras[1:], video__policy="always")
    assert without_time([line for line in lines if line["camera"] == "b"]) == without_time(alone)


def test_a_recording_replays_exactly_and_so_does_one_of_an_older_version(pair: Pair, tmp_path: Path, capsys) -> None:
    clip = write_video(tmp_path / "a.mp4", 12)
    for policy, folder in (("auto", tmp_path / "rec"), ("never", tmp_path / "older")):
        run(pair, tmp_path / "out", clip, output__record=str(folder), gate__policy="always", video__policy=policy)
    rows = (tmp_path / "older" / "frames.jsonl").read_text().splitlines()
    old = []
    for row in map(json.loads, rows):
        del row["heard"]
        for key in ("scene", "server_seq", "revised_from"):
            del row["verdict"][key]
        old.append(json.dumps(row) + "\n")
    (tmp_path / "older" / "frames.jsonl").write_text("".join(old))
    text = (tmp_path / "older" / "config.yaml").read_text()
    (tmp_path / "older" / "config.yaml").write_text(text.replace("policy: never\n  cuts", "policy: auto\n  cuts"))
    assert "policy: auto\n  cuts" in (tmp_path / "older" / "config.yaml").read_text()
    for folder in ("rec", "older"):
        check(tmp_path / folder, pair)
        assert "12 of 12 frames" in capsys.readouterr().out


def test_a_live_run_with_a_slow_server_answers_at_once_and_revises_later(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Frames are decided while an answer is on its way; when it arrives, it revises their verdicts."""
    from sagelink.monitor.live_stats import LiveStats
    from sagelink.server import classify

    real, real_show_pending = classify.Classifier.answers, LiveStats.show_pending
    shown: list[int] = []

    def slow(self: classify.Classifier, *arguments: Any) -> Any:
        time.sleep(0.5)
        return real(self, *arguments)

    def show_pending(self: LiveStats, verdict: Any) -> None:
        shown.append(verdict.frame.seq)
        real_show_pending(self, verdict)

    monkeypatch.setattr(classify.Classifier, "answers", slow)
    monkeypatch.setattr(LiveStats, "show_pending", show_pending)
    options = {"video__policy": "always", "capture__realtime": True, "ship__deadline": 30, "ship__in_flight": 1}
    record = tmp_path / "rec"
    lines, summary = run(
        pair,
        tmp_path / "out",
        "synthetic:24,hold=12,fps=10",
        gate__policy="always",
        output__record=str(record),
        **options,
    )
    check_accounts(lines, summary)
    sent = {line["seq"] for line in lines if line["sent_s"] is not None}
    assert sent <= set(shown)
    assert len(set(shown)) > len(sent)
    assert any(line["server_seq"] is not None and line["server_seq"] < line["seq"] for line in lines)
    check(record, pair)
    assert "24 of 24 frames" in capsys.readouterr().out


def test_a_recording_holds_the_trust_that_its_run_began_with(pair: Pair, tmp_path: Path, capsys) -> None:
    settings = {"models": "demo", "video.policy": "always", "capture.source": WORLD, "capture.max_frames": 16}
    begun = prepare(load_config(None, {**settings, "output.record": str(tmp_path)}), pair)
    begun.parts.trusts["camera"].restore({"camera": [60.0, 0.0], "classes": {}})
    begun.run()
    check(tmp_path, pair)
    assert "16 of 16 frames" in capsys.readouterr().out
    (tmp_path / TRUST).unlink()
    with pytest.raises(SagelinkError, match="frames differ"):
        check(tmp_path, pair)


# Bad input


class Pictures:
    """A source of given pictures at given times."""

    name, skipped, labels, video = "pictures", 0, None, True

    def __init__(self, pictures: list[np.ndarray], times_s: list[float]) -> None:
        self.length = len(pictures)
        self._shots = [SourceFrame(each, at) for each, at in zip(pictures, times_s, strict=True)]

    def __iter__(self) -> Any:
        return iter(self._shots)

    def close(self) -> None:
        pass


def flat(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def half(left: bool, level: int = 255) -> np.ndarray:
    picture = flat(0)
    picture[:, 32 * (not left) : 32 + 32 * (not left)] = level
    return picture


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("pictures", "times_s"),
    [
        ([flat(0)] * 12, [n / 10 for n in range(12)]),
        ([noise(0)], [0.0]),
        ([noise(seed) for seed in range(6)], [0.0, 0.01, 0.5, 0.51, 3.0, 60.0]),
        ([half(n % 2 == 0) for n in range(8)], [n / 10 for n in range(8)]),
        ([noise(n // 3) for n in range(8)], [0.0] * 8),
    ],
    ids=["black", "one frame", "variable rate", "a cut at every frame", "time stands still"],
)
@pytest.mark.parametrize("zoom", [False, True])
def test_odd_clips_have_defined_verdicts(pair: Pair, tmp_path: Path, pictures: Any, times_s: Any, zoom: bool) -> None:
    settings = {"models": "demo", "capture.source": "-", "gate.policy": "always", "output.out": str(tmp_path)}
    config = load_config(None, {**settings, "budget.uplink": "64kbit/s", "video.zoom": zoom})
    odd = Playback(Pictures(pictures, times_s), config.all_cameras[0], config.capture)
    Run(config, [odd], pair).run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert len(lines) == len(pictures)
    assert summary["drops"].keys() <= {"budget", "worth"}
    assert all(np.isfinite(line["prob"]) for line in lines)
    assert lines[0]["scene"] == 0
    if len({picture.tobytes() for picture in pictures}) == 1:
        assert {line["scene"] for line in lines} == {0}


def test_a_video_whose_timestamps_jump_back_runs(pair: Pair, tmp_path: Path) -> None:
    late, early = (
        write_video(tmp_path / name, 6, times_s=[begin + n / 10 for n in range(6)]).read_bytes()
        for name, begin in (("late.ts", 500.0), ("early.ts", 2.0))
    )
    (tmp_path / "joined.ts").write_bytes(late + early)
    lines, summary = run(pair, tmp_path / "out", tmp_path / "joined.ts", gate__policy="always", video__zoom=True)
    check_accounts(lines, summary)
    stream_s = [line["stream_s"] for line in lines]
    assert stream_s == sorted(stream_s)
    assert stream_s[-1] < 2
    assert len(lines) == 12
    assert {line["scene"] for line in lines} == {0}


def test_an_unknown_video_policy_is_refused(command: Any) -> None:
    code, printed = command("run", "synthetic:2", "--models", "demo", "--set", "video.policy=sometimes")
    assert code == 2
    assert "video.policy" in printed
    assert "accepted: auto, always, never" in printed


def test_still_frames_are_not_scored(pair: Pair, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), np.uint8)
    source = tmp_path / "frames"
    source.mkdir()
    for seq in range(20):
        Image.fromarray(pixels[seq // 12]).save(source / f"{seq:02}.png")
    options = {"video__policy": "always", "video__zoom": False, "capture__fps": 10}
    every, summary = run(pair, tmp_path / "every", source, **options)
    assert all(line["scored"] for line in every)
    assert summary["scored"] == 20
    lines, summary = run(pair, tmp_path / "still", source, video__still_interval="60s", **options)
    check_accounts(lines, summary)
    assert [line["seq"] for line in lines if line["scored"]] == [0, 1, 2, 12, 13, 14]
    assert summary["scored"] == 6
    assert [line["edge"] for line in lines] == [line["edge"] for line in every]
