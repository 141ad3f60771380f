"""Several cameras in one run: one edge model, one budget, and no camera waits for a dead one."""

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

from sagelink.app.edge.run import Run, prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame, Verdict
from sagelink.stages import score
from sagelink.stages.sinks.jsonl import timeless
from tests.app.edge.test_run import read
from tests.patience import PATIENCE_S
from tests.stages.test_sources import write_video


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.load(load_config(None, {"models": "demo"}))


def settings(tmp_path: Path, *cameras: dict[str, object], **options: object) -> dict[str, object]:
    options = {key.replace("__", "."): value for key, value in options.items()}
    return {"models": "demo", "cameras": list(cameras), "gate.policy": "always", "output.out": str(tmp_path), **options}


def by_camera(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rows = defaultdict(list)
    for line in lines:
        rows[line["camera"]].append(line)
    return rows


def peak(lines: list[dict[str, Any]], window_s: float) -> int:
    sent = [(line["sent_s"], line["wire_bits"]) for line in lines if line["sent_s"] is not None]
    return max((sum(bits for t, bits in sent if s <= t < s + window_s) for s, _ in sent), default=0)


def test_replays_share_a_budget_and_are_reproducible(pair: Pair, tmp_path: Path) -> None:
    cameras = [
        {"name": "a", "source": "synthetic:15,fps=5,seed=1", "weight": 3},
        {"name": "b", "source": "synthetic:10,fps=3,seed=2", "min_share": 0.2},
        {"name": "own", "source": "synthetic:6,fps=2,seed=3", "budget": {"uplink": "100kbit/s", "window": 2}},
    ]
    runs = []
    for name in ("one", "two"):
        options = settings(tmp_path / name, *cameras, budget__uplink="300kbit/s", select__units=24)
        prepare(load_config(None, options), pair).run()
        lines, summary = read(tmp_path / name)
        runs.append([timeless(line) for line in lines])
    assert runs[0] == runs[1]
    rows = by_camera(runs[0])
    assert {name: [row["seq"] for row in camera_rows] for name, camera_rows in rows.items()} == {
        "a": list(range(15)),
        "b": list(range(10)),
        "own": list(range(6)),
    }
    assert summary["frames"] == summary["verdicts"] == 31
    assert [line["stream_s"] for line in runs[0]] != sorted(line["stream_s"] for line in rows["a"])
    assert peak(rows["a"] + rows["b"], 1.0) <= summary["peak_window_bits"] <= 300_000
    assert peak(rows["own"], 2.0) <= summary["cameras"]["own"]["peak_window_bits"] <= 200_000
    assert summary["cameras"]["own"]["budget_bits"] == 200_000
    assert all(summary["cameras"][name]["offloaded"] > 0 for name in rows)
    assert sum(camera["wire_bits"] for camera in summary["cameras"].values()) == summary["wire_bits"]


def test_sampling_region_and_limits_hold_for_each_camera(pair: Pair, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 30, (64, 48))
    verdicts: list[Verdict] = []
    cameras = [
        {"name": "all", "source": str(clip)},
        {"name": "some", "source": str(clip), "fps": 2, "roi": [0.5, 0, 1, 1]},
    ]
    options = settings(tmp_path / "out", *cameras, capture__duration="2s", capture__max_frames=15)
    prepare(load_config(None, options), pair).run(verdicts.append)
    shapes = {verdict.frame.camera: verdict.frame.pixels.shape for verdict in verdicts}
    assert shapes == {"all": (48, 64, 3), "some": (48, 32, 3)}
    rows = by_camera(read(tmp_path / "out")[0])
    assert [row["stream_s"] for row in rows["some"]] == [0, 0.5, 1, 1.5]
    assert len(rows["all"]) == 15


def test_an_annotated_video_for_each_camera(pair: Pair, tmp_path: Path) -> None:
    cameras = [{"name": name, "source": "synthetic:3"} for name in ("a", "b")]
    prepare(load_config(None, settings(tmp_path, *cameras, output__annotate=str(tmp_path / "film.mp4"))), pair).run()
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"film-a.mp4", "film-b.mp4"}


def test_a_dead_camera_delays_neither_others_nor_the_end(pair: Pair, tmp_path: Path, rtsp_server) -> None:
    """Three cameras: one address refuses, one accepts the connection and never answers, and one delivers frames."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"rtsp://u:geheim@127.0.0.1:{silent.getsockname()[1]}/x"
        cameras = [
            {"name": "silent", "source": address, "open_timeout": 600},
            {"name": "refused", "source": "rtsp://127.0.0.1:9/x"},
            {"name": "alive", "source": rtsp_server().url()},
        ]
        verdicts: list[Verdict] = []

        def interrupt(verdict: Verdict) -> None:
            verdicts.append(verdict)
            if len(verdicts) == 15:
                os.kill(os.getpid(), signal.SIGINT)

        prepare(load_config(None, settings(tmp_path, *cameras)), pair).run(interrupt)
        assert reader_threads("silent")  # the run has ended, and did not wait for a camera that is still opening
    lines, summary = read(tmp_path)
    assert set(by_camera(lines)) == {"alive"}
    assert summary["interrupted"]
    assert summary["frames"] == summary["verdicts"] == len(lines)
    health = {name: camera["health"] for name, camera in summary["cameras"].items()}
    assert health["alive"]["connections"] == 1
    assert health["refused"]["fault"] == "refused"
    assert "geheim" not in (tmp_path / "summary.json").read_text()


class SlowScorer:
    """Delays each scoring until every camera that has not ended has captured `frames` further frames."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run, frames: int, ends_at: int) -> None:
        """`ends_at`: number of frames after which a camera ends."""
        self.batches: list[list[Frame]] = []
        self.began_ns: list[int] = []
        real = score.Score.__call__

        def slow(stage: score.Score, batch: list[Frame]) -> Any:
            self.began_ns.append(time.monotonic_ns())
            self.batches.append(batch)
            wanted = [min(capture.captured + frames, ends_at) for capture in run.parts.captures]
            while any(capture.captured < count for capture, count in zip(run.parts.captures, wanted, strict=True)):
                time.sleep(0.005)  # a capture signals nothing to other threads
            return real(stage, batch)

        monkeypatch.setattr(score.Score, "__call__", slow)


def test_waiting_frames_of_several_cameras_are_scored_together(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = [{"name": name, "source": f"synthetic:20,fps=30,seed={i}"} for i, name in enumerate("abc")]
    options = settings(tmp_path, *cameras, capture__realtime=True, budget__uplink="unlimited")
    run = prepare(load_config(None, options), pair)
    scorer = SlowScorer(monkeypatch, run, frames=2, ends_at=20)
    run.run()
    lines, summary = read(tmp_path)
    assert summary["frames"] == summary["verdicts"] == len(lines) == 60
    batches = [[frame.camera for frame in batch] for batch in scorer.batches]
    assert max(map(len, batches)) == 3
    assert all(len(set(batch)) == len(batch) for batch in batches)  # of each camera only the newest
    scored = {name: sum(row["label"] is not None for row in rows) for name, rows in by_camera(lines).items()}
    assert max(scored.values()) - min(scored.values()) <= 3


def test_a_slow_scorer_always_gets_the_newest_frame(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtsp_server
) -> None:
    """A scorer five times slower than the camera: each frame that it gets came while it scored the one before."""
    source = {"name": "cam", "source": rtsp_server("--fps", "30").url()}
    run = prepare(load_config(None, settings(tmp_path, source, capture__max_frames=45)), pair)
    scorer = SlowScorer(monkeypatch, run, frames=5, ends_at=45)
    run.run()
    _, summary = read(tmp_path)
    assert summary["drops"]["superseded"] > summary["frames"] / 2
    assert len(scorer.batches) >= 6
    captured_ns = [min(frame.capture_ns for frame in batch) for batch in scorer.batches]
    # Most were captured after the scoring of the one before had begun; in a queue, all would have waited for longer.
    # The decoder of a busy machine may be late with one or two.
    fresh = [captured > began for captured, began in zip(captured_ns[1:], scorer.began_ns, strict=False)]
    assert sum(fresh) >= 0.6 * len(fresh)


def reader_threads(camera: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"sagelink-camera-{camera}"]


def test_a_run_ends_its_reader_threads(pair: Pair, tmp_path: Path, rtsp_server) -> None:
    source = {"name": "ended", "source": rtsp_server().url()}
    prepare(load_config(None, settings(tmp_path, source, capture__max_frames=3)), pair).run()
    for thread in reader_threads("ended"):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([{"name": "a", "source": "x.mp4"}, {"name": "a", "source": "y.mp4"}], "names must differ; got a, a"),
        ([{"name": "a b", "source": "x.mp4"}], "cameras.0.name: accepted: 1 to 64 letters, digits, _ and -"),
        ([{"name": "a"}], "cameras.0.source: missing; accepted: text"),
        ([{"name": "a", "source": "x", "rio": [0, 0, 1, 1]}], "unknown key (did you mean 'roi'?)"),
        ([{"name": "a", "source": "x", "roi": [0.5, 0, 0.2, 1]}], "left must be less than right"),
        ([{"name": "a", "source": "x", "mask": [[[0, 0], [1, 1]]]}], "each a list of 3 or more corners"),
        ([{"name": "a", "source": "x", "budget": {"uplnk": 3}}], "unknown key (did you mean 'uplink'?)"),
        ([{"name": c, "source": "x", "min_share": 0.6} for c in "ab"], "sum of min_share must be at most 1; got 1.2"),
        ([{"name": "a", "source": "97"}], "webcam '97' does not exist"),
        ([{"name": "a", "source": "rtsp://"}], "is not a valid URL"),
    ],
)
def test_an_invalid_list_of_cameras_is_refused(cameras: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        prepare(load_config(None, settings(tmp_path / "out", *cameras)))
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_cameras_inherit_the_settings_of_capture(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "capture: {fps: 4, roi: [0, 0, 1, 0.5]}\ncameras: [{name: a, source: x, fps: 2}, {name: b, source: y}]"
    )
    config = load_config(file, {"capture.read_timeout": "3s"})
    assert [(camera.fps, camera.read_timeout, camera.roi) for camera in config.all_cameras] == [
        (2, 3.0, (0, 0, 1, 0.5)),
        (4, 3.0, (0, 0, 1, 0.5)),
    ]
    with pytest.raises(UsageError, match="either cameras or a source"):
        load_config(file, {"capture.source": "clip.mp4"})
