"""Several cameras in one run: one edge model, one budget, and nobody waits for a camera that is dead."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from sagelink.app.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame, Verdict
from sagelink.stages import score
from sagelink.stages.sinks.jsonl import timeless
from tests.app.test_run import read
from tests.stages.test_sources import write_video


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.load(load_config(None, {"models": "demo"}))


def settings(tmp_path: Path, *cameras: dict[str, object], **options: object) -> dict[str, object]:
    given = {key.replace("__", "."): value for key, value in options.items()}
    return {"models": "demo", "cameras": list(cameras), "gate.policy": "always", "output.out": str(tmp_path), **given}


def by_camera(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rows = defaultdict(list)
    for line in lines:
        rows[line["camera"]].append(line)
    return rows


def peak(lines: list[dict[str, Any]], window_s: float) -> int:
    sent = [(line["sent_s"], line["wire_bits"]) for line in lines if line["sent_s"] is not None]
    return max((sum(bits for t, bits in sent if s <= t < s + window_s) for s, _ in sent), default=0)


def test_replays_share_a_budget_and_come_out_the_same_twice(pair: Pair, tmp_path: Path) -> None:
    cameras = [
        {"name": "a", "source": "synthetic:30,fps=5,seed=1", "weight": 3},
        {"name": "b", "source": "synthetic:20,fps=3,seed=2", "min_share": 0.2},
        {"name": "own", "source": "synthetic:10,fps=2,seed=3", "budget": {"uplink": "100kbit/s", "window": 2}},
    ]
    runs = []
    for name in ("one", "two"):
        options = settings(tmp_path / name, *cameras, budget__uplink="300kbit/s", select__units=24)
        prepare(load_config(None, options), pair).run()
        lines, summary = read(tmp_path / name)
        runs.append([timeless(line) for line in lines])
    assert runs[0] == runs[1]
    rows = by_camera(runs[0])
    assert {name: [row["seq"] for row in each] for name, each in rows.items()} == {
        "a": list(range(30)),
        "b": list(range(20)),
        "own": list(range(10)),
    }
    assert summary["frames"] == summary["verdicts"] == 60
    assert [line["stream_s"] for line in runs[0]] != sorted(line["stream_s"] for line in rows["a"])
    assert peak(rows["a"] + rows["b"], 1.0) <= summary["peak_window_bits"] <= 300_000
    assert peak(rows["own"], 2.0) <= summary["cameras"]["own"]["peak_window_bits"] <= 200_000
    assert summary["cameras"]["own"]["budget_bits"] == 200_000
    assert all(summary["cameras"][name]["offloaded"] > 0 for name in rows)
    assert sum(each["wire_bits"] for each in summary["cameras"].values()) == summary["wire_bits"]


def test_sampling_region_and_limits_hold_for_each_camera(pair: Pair, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 30, (64, 48))
    seen: list[Verdict] = []
    cameras = [
        {"name": "all", "source": str(clip)},
        {"name": "some", "source": str(clip), "fps": 2, "roi": [0.5, 0, 1, 1]},
    ]
    options = settings(tmp_path / "out", *cameras, capture__duration="2s", capture__max_frames=15)
    prepare(load_config(None, options), pair).run(seen.append)
    shapes = {verdict.frame.camera: verdict.frame.pixels.shape for verdict in seen}
    assert shapes == {"all": (48, 64, 3), "some": (48, 32, 3)}
    rows = by_camera(read(tmp_path / "out")[0])
    assert [row["stream_s"] for row in rows["some"]] == [0, 0.5, 1, 1.5]
    assert len(rows["all"]) == 15


def test_an_annotated_video_for_each_camera(pair: Pair, tmp_path: Path) -> None:
    cameras = [{"name": name, "source": "synthetic:3"} for name in ("a", "b")]
    prepare(load_config(None, settings(tmp_path, *cameras, output__annotate=str(tmp_path / "film.mp4"))), pair).run()
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"film-a.mp4", "film-b.mp4"}


def test_a_dead_camera_slows_nobody_and_ctrl_c_still_ends_at_once(pair: Pair, tmp_path: Path, rtsp_server) -> None:
    """One address that refuses, one that takes the connection and never says a word, and one that lives."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cameras = [
            {"name": "silent", "source": f"rtsp://u:geheim@127.0.0.1:{silent.getsockname()[1]}/x"},
            {"name": "refused", "source": "rtsp://127.0.0.1:9/x"},
            {"name": "alive", "source": rtsp_server().url()},
        ]
        seen: list[Verdict] = []
        ended_s: list[float] = []

        def watch(verdict: Verdict) -> None:
            seen.append(verdict)
            if len(seen) == 30:
                ended_s.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

        run = prepare(load_config(None, settings(tmp_path, *cameras)), pair)
        run.run(watch)
        ended_s.append(time.monotonic())
    lines, summary = read(tmp_path)
    assert set(by_camera(lines)) == {"alive"}
    assert summary["interrupted"]
    assert summary["frames"] == summary["verdicts"] == len(lines)
    health = {name: each["health"] for name, each in summary["cameras"].items()}
    assert health["alive"]["connections"] == 1
    assert health["refused"]["fault"] == "refused"
    assert "geheim" not in (tmp_path / "summary.json").read_text()
    assert ended_s[1] - ended_s[0] < 2.0 + 3.0  # two seconds, and what a loaded machine may add


def test_waiting_frames_of_several_cameras_are_scored_together(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, batches = score.Score.__call__, []

    def slow(self: score.Score, frames: list[Frame]) -> Any:
        batches.append([frame.camera for frame in frames])
        time.sleep(0.15)
        return real(self, frames)

    monkeypatch.setattr(score.Score, "__call__", slow)
    cameras = [{"name": name, "source": f"synthetic:30,fps=15,seed={i}"} for i, name in enumerate("abc")]
    options = settings(tmp_path, *cameras, capture__realtime=True, budget__uplink="unlimited")
    prepare(load_config(None, options), pair).run()
    lines, summary = read(tmp_path)
    assert summary["frames"] == summary["verdicts"] == len(lines) == 90
    assert max(map(len, batches)) == 3
    assert all(len(set(batch)) == len(batch) for batch in batches)  # of each camera only the newest
    scored = {name: sum(row["label"] is not None for row in rows) for name, rows in by_camera(lines).items()}
    assert max(scored.values()) - min(scored.values()) <= 3


def test_the_age_of_what_is_scored_is_bounded_however_slow_the_scorer(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtsp_server
) -> None:
    """A scorer of 2 frames/s on a stream of 30: each frame that it begins on came while it was at the one before."""
    real, captured_ns, began_ns = score.Score.__call__, [], []

    def slow(self: score.Score, frames: list[Frame]) -> Any:
        began_ns.append(time.monotonic_ns())
        captured_ns.append(min(frame.capture_ns for frame in frames))
        time.sleep(0.5)
        return real(self, frames)

    monkeypatch.setattr(score.Score, "__call__", slow)
    source = {"name": "cam", "source": rtsp_server("--fps", "30").url()}
    run = prepare(load_config(None, settings(tmp_path, source, capture__duration="7s")), pair)
    run.run()
    _, summary = read(tmp_path)
    assert summary["drops"]["superseded"] > summary["frames"] / 2
    assert len(began_ns) >= 6
    # Nobody waited for a whole scoring, let alone for several: each was captured after the one before had begun.
    assert all(captured > began for captured, began in zip(captured_ns[1:], began_ns, strict=False))


def test_threads_and_readers_are_gone_after_a_run(pair: Pair, tmp_path: Path, rtsp_server) -> None:
    source = {"name": "cam", "source": rtsp_server().url()}
    prepare(load_config(None, settings(tmp_path, source, capture__max_frames=3)), pair).run()
    until_s = time.monotonic() + 10
    while any(thread.name.startswith("sagelink-camera") for thread in threading.enumerate()):
        assert time.monotonic() < until_s
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([{"name": "a", "source": "x.mp4"}, {"name": "a", "source": "y.mp4"}], "names must differ; got a, a"),
        ([{"name": "a b", "source": "x.mp4"}], "cameras.0.name: String should match pattern"),
        ([{"name": "a"}], "cameras.0.source: Field required"),
        ([{"name": "a", "source": "x", "rio": [0, 0, 1, 1]}], "unknown key (did you mean 'roi'?)"),
        ([{"name": "a", "source": "x", "roi": [0.5, 0, 0.2, 1]}], "left must be less than right"),
        ([{"name": "a", "source": "x", "mask": [[[0, 0], [1, 1]]]}], "at least 3 items"),
        ([{"name": "a", "source": "x", "budget": {"uplnk": 3}}], "unknown key (did you mean 'uplink'?)"),
        ([{"name": c, "source": "x", "min_share": 0.6} for c in "ab"], "sum of min_share must be at most 1; got 1.2"),
        ([{"name": "a", "source": "97"}], "webcam '97' does not exist"),
        ([{"name": "a", "source": "rtsp://"}], "is no URL"),
    ],
)
def test_what_a_list_of_cameras_cannot_hold(cameras: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        prepare(load_config(None, settings(tmp_path / "out", *cameras)))
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_cameras_take_from_capture_what_they_leave_out(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "capture: {fps: 4, roi: [0, 0, 1, 0.5]}\ncameras: [{name: a, source: x, fps: 2}, {name: b, source: y}]"
    )
    config = load_config(file, {"capture.read_timeout": "3s"})
    assert [(each.fps, each.read_timeout, each.roi) for each in config.all_cameras] == [
        (2, 3.0, (0, 0, 1, 0.5)),
        (4, 3.0, (0, 0, 1, 0.5)),
    ]
    with pytest.raises(UsageError, match="either cameras or a source"):
        load_config(file, {"capture.source": "clip.mp4"})
