"""Runs from end to end in one process, with real models, real bytes and the demo pair."""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sagelink.app.edge.run import Run, prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import Frame, Verdict
from sagelink.stages.capture import Playback
from sagelink.stages.selectors import SELECTORS
from sagelink.stages.sinks.jsonl import timeless
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.sources.synthetic import SyntheticSource
from tests.app.runs import check_accounts, finish, read, wait_for_lines
from tests.processes import Sagelink
from tests.stages.test_sources import write_video

SUMMARY_KEYS = {
    *("frames", "verdicts", "scored", "offloaded", "origins", "drops", "wire_bits", "peak_window_bits", "budget_bits"),
    *("window_s", "fps", "wall_s", "latency_ms", "source", "models", "accuracy", "skipped", "interrupted", "cameras"),
    *("unwritten", "quotas"),
    *("revised", "unknown"),
}


def prepare_demo(pair: Pair, source: str, **options: object) -> Run:
    """A run of the demo pair; `gate__policy="always"` sets gate.policy."""
    settings = {key.replace("__", "."): value for key, value in options.items()}
    return prepare(load_config(None, {"models": "demo", "capture.source": source, **settings}), pair)


def test_a_replay_keeps_every_account(pair: Pair, tmp_path: Path) -> None:
    run = prepare_demo(pair, "synthetic:40", output__out=str(tmp_path / "deep" / "out"), budget__uplink="48kbit/s")
    summary = run.run()
    lines, on_disk = read(tmp_path / "deep" / "out")
    assert set(on_disk) == SUMMARY_KEYS
    assert on_disk == json.loads(json.dumps(summary | {"wall_s": on_disk["wall_s"], "fps": on_disk["fps"]}))
    check_accounts(lines, on_disk)
    assert 0 < on_disk["offloaded"] < 40
    assert {"gate", "budget"} >= set(on_disk["drops"])
    assert {line["origin"] for line in lines} == {"edge", "fused"}
    assert all(line["truth"] is not None for line in lines)


def test_the_same_replay_twice_is_the_same(pair: Pair, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        prepare_demo(pair, "synthetic:15", output__out=str(tmp_path / name), gate__policy="always").run()
        lines, _ = read(tmp_path / name)
        runs.append([timeless(line) for line in lines])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("selector", [*SELECTORS])
def test_every_selector_runs(pair: Pair, tmp_path: Path, selector: str) -> None:
    run = prepare_demo(pair, "synthetic:8", gate__policy="always", select__selector=selector, output__out=str(tmp_path))
    run.run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["offloaded"] > 0


def test_unlimited_sends_everything_and_never_is_edge_only(pair: Pair, tmp_path: Path) -> None:
    options = {"gate__policy": "always", "budget__uplink": "unlimited", "encode__slack": 0}
    prepare_demo(pair, "synthetic:10", output__out=str(tmp_path / "all"), **options).run()
    lines, summary = read(tmp_path / "all")
    check_accounts(lines, summary)
    assert [line["units"] for line in lines] == [196] * 10
    assert summary["budget_bits"] is None
    prepare_demo(pair, "synthetic:10", output__out=str(tmp_path / "none"), gate__policy="never").run()
    lines, summary = read(tmp_path / "none")
    check_accounts(lines, summary)
    assert summary["drops"] == {"gate": 10}
    assert summary["wire_bits"] == 0


def test_a_budget_below_one_message_keeps_edge_answers(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare_demo(pair, "synthetic:6", gate__policy="always", budget__uplink="200bit/s", output__out=str(tmp_path))
    run.run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["drops"] == {"budget": 6}
    assert "budget_too_small" in caplog.text


def test_server_rule_takes_the_servers_answer(pair: Pair, tmp_path: Path) -> None:
    options = {"gate__policy": "always", "budget__uplink": "unlimited", "fuse__rule": "server"}
    prepare_demo(pair, "synthetic:5", output__out=str(tmp_path), **options).run()
    lines, _ = read(tmp_path)
    assert all(line["origin"] == "server" and line["label"] == line["server"]["label"] for line in lines)


def test_images_and_video_with_annotation(pair: Pair, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 15, (66, 50))
    film = tmp_path / "out" / "annotated.mp4"
    run = prepare_demo(
        pair, str(clip), gate__policy="always", output__annotate=str(film), output__out=str(tmp_path / "out")
    )
    run.run()
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    assert summary["accuracy"] is None
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 15
    assert abs(float(frames[-1].time) - lines[-1]["stream_s"]) < 0.05


def test_watch_receives_each_verdict_in_order(pair: Pair) -> None:
    verdicts: list[Verdict] = []
    prepare_demo(pair, "synthetic:12", gate__policy="always").run(watch=verdicts.append)
    assert [verdict.frame.seq for verdict in verdicts] == list(range(12))


class _FailingSource(SyntheticSource):
    """A source that fails in the middle."""

    def __iter__(self) -> Any:
        for shot in super().__iter__():
            if shot.stream_s >= 1:
                raise SagelinkError("the disk is gone")
            yield shot


def test_a_source_that_fails_ends_the_run_and_its_frames_are_written(pair: Pair, tmp_path: Path) -> None:
    config = load_config(None, {"models": "demo", "capture.source": "synthetic:20", "output.out": str(tmp_path)})
    broken = Run(config, [Playback(_FailingSource(20), config.all_cameras[0], config.capture)], pair)
    with pytest.raises(SagelinkError, match="the disk is gone"):
        broken.run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert len(lines) == 5


def test_frames_on_which_a_stage_raises_become_counted_failures(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.stages import score

    real = score.Score.__call__

    def sometimes(self: score.Score, frames: list[Frame]) -> Any:
        if any(frame.seq % 3 == 1 for frame in frames):
            raise RuntimeError("the scorer failed")
        return real(self, frames)

    monkeypatch.setattr(score.Score, "__call__", sometimes)
    prepare_demo(pair, "synthetic:9", output__out=str(tmp_path)).run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["drops"]["error"] == 3
    assert [line["label"] is None for line in lines] == [False, True, False] * 3

    monkeypatch.setattr(score.Score, "__call__", lambda self, frames: 1 / 0)
    with pytest.raises(SagelinkError, match="failed on every frame"):
        prepare_demo(pair, "synthetic:4", output__out=str(tmp_path)).run()


def test_a_selector_or_server_that_fails_leaves_the_edge_answer(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.server import classify
    from sagelink.stages import selectors

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("no")

    monkeypatch.setitem(selectors.SELECTORS, "coverage", broken)
    with pytest.raises(SagelinkError, match="the stage 'offload' failed on 4 of 4 frames"):
        prepare_demo(pair, "synthetic:4", gate__policy="always", output__out=str(tmp_path)).run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["drops"] == {"error": 4}
    assert all(line["label"] == line["edge"]["label"] for line in lines)

    monkeypatch.undo()
    monkeypatch.setattr(classify.Classifier, "answers", broken)
    prepare_demo(pair, "synthetic:4", gate__policy="always", output__out=str(tmp_path)).run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["drops"]["refused"] == summary["offloaded"] > 0


def test_a_slow_scorer_on_a_live_source_takes_the_newest_frames(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.stages import score

    real = score.Score.__call__

    def slow(self: score.Score, frames: list[Frame]) -> Any:
        time.sleep(0.1)
        return real(self, frames)

    monkeypatch.setattr(score.Score, "__call__", slow)
    run = prepare_demo(
        pair, "synthetic:40,fps=40,size=64x64", capture__realtime=True, gate__policy="always", output__out=str(tmp_path)
    )
    run.run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["drops"]["superseded"] > 10
    assert all((line["label"] is None) == (line["drop"] == "superseded") for line in lines)


def test_a_full_disk_ends_the_run(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagelink.stages.sinks import jsonl

    def full(self: jsonl.JsonLines, verdict: Verdict) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jsonl.JsonLines, "write", full)
    with pytest.raises(SagelinkError, match=r"output '.*results.jsonl' cannot be written: No space left"):
        prepare_demo(pair, "synthetic:4", output__out=str(tmp_path)).run()


def test_a_live_camera_runs_until_ctrl_c(pair: Pair, tmp_path: Path, rtsp_url: str) -> None:
    run = prepare_demo(pair, rtsp_url, gate__policy="always", output__out=str(tmp_path), capture__read_timeout=2)
    assert run.parts.live
    verdicts: list[Verdict] = []

    def watch(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if len(verdicts) == 30:
            os.kill(os.getpid(), signal.SIGINT)

    run.run(watch)
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    assert summary["interrupted"]
    assert len(lines) >= 30
    assert summary["offloaded"] > 0
    assert verdicts[0].frame.pixels.shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (Sagelink.interrupt, ()),
        pytest.param(Sagelink.interrupt, ("--realtime",), marks=pytest.mark.campaign),
        pytest.param(Sagelink.terminate, (), marks=pytest.mark.campaign),
        (Sagelink.hang_up, ()),
    ],
    ids=["Ctrl-C in a replay", "Ctrl-C in a live run", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_the_run_with_everything_written(
    tmp_path: Path, stop: Callable[[Sagelink], None], options: tuple[str, ...]
) -> None:
    film = tmp_path / "film.mp4"
    command = ("run", "synthetic:1000000", "--models", "demo", "--gate", "always", "--annotate", film)
    with Sagelink(*command, "--out", tmp_path, *options) as run:
        wait_for_lines(tmp_path, count=10)
        stop(run)
        lines, summary = finish(run, tmp_path)
    assert summary["interrupted"]
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(lines)


@pytest.mark.campaign
def test_real_models_on_photographs(shared: Path, tmp_path: Path) -> None:
    """DeiT-Tiny to ViT-Tiny on real images: names are kept and answers are mostly right (FACTS: 88 and 89 %)."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = (shared / "images" / "labels.csv").read_text().splitlines()[1:25]
    truth = {name: int(label) for name, label in (row.split(",")[:2] for row in rows)}
    for name in truth:
        (folder / name).symlink_to(shared / "images" / name)
    config = load_config(
        None,
        {
            "capture.source": str(folder),
            "edge.checkpoint": str(shared / "weights" / "deit_tiny_patch16_224.safetensors"),
            "server.model": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "server.checkpoint": str(shared / "weights" / "vit_tiny_patch16_224_augreg.safetensors"),
            "budget.uplink": "unlimited",
            "gate.policy": "always",
            "select.units": 196,
            "output.out": str(tmp_path / "out"),
        },
    )
    prepare(config).run()
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    right = [line["class_id"] == truth[line["name"]] for line in lines]
    assert len(right) == 24
    assert np.mean(right) >= 0.75


class TestNothingIsHalfWritten:
    @pytest.mark.parametrize(
        "settings",
        [
            {"capture.source": "nowhere.mp4"},
            {"capture.source": "synthetic:3", "select.selector": "best"},
            {"capture.source": "synthetic:3", "gate.policy": "maybe"},
            {"capture.source": "synthetic:3", "encode.codec": "png"},
            {"capture.source": "synthetic:3", "edge.checkpoint": "none.safetensors"},
            {"capture.source": "synthetic:3", "edge.device": "cuda:9"},
        ],
    )
    def test_wrong_use(self, tmp_path: Path, settings: dict[str, object]) -> None:
        out = tmp_path / "out"
        with pytest.raises(UsageError, match=str(next(reversed(settings.values()))).split(":")[0]):
            prepare(load_config(None, {"models": "demo", "output.out": str(out), **settings}))
        assert not out.exists()

    def test_output_that_cannot_be_a_folder(self, pair: Pair, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="is not a folder"):
            prepare_demo(pair, "synthetic:3", output__out=str(tmp_path / "file" / "out"))

    def test_classes_that_differ(self, shared: Path) -> None:
        settings = {
            "edge.model": "demo-edge",
            "server.model": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "server.checkpoint": str(shared / "weights" / "vit_tiny_patch16_224_augreg.safetensors"),
        }
        with pytest.raises(UsageError, match="16 classes .* 1000; accepted: two models of the same classes"):
            Pair.load(load_config(None, settings))


def test_sources_yield_source_frames() -> None:
    """The contract of a user's own source."""
    shot = next(iter(SyntheticSource(1)))
    assert isinstance(shot, SourceFrame)
    assert shot.pixels.flags.c_contiguous


@pytest.mark.parametrize("tracked", ["never", "always"])
def test_a_frame_whose_scores_are_not_finite_is_dropped_and_costs_nothing(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture, tracked: str
) -> None:
    network = copy.deepcopy(pair.edge.vit)
    frames = itertools.count()
    network.head.register_forward_hook(lambda _m, _a, logits: logits * float("nan") if next(frames) in (3, 5) else None)
    broken = replace(pair, edge=replace(pair.edge, vit=network))
    options = {"gate__policy": "always", "video__policy": tracked, "select__importance": "last"}
    prepare_demo(broken, "synthetic:8", output__out=str(tmp_path), **options).run()
    lines, summary = read(tmp_path)
    check_accounts(lines, summary)
    lost = [line for line in lines if line["drop"] == "error"]
    assert [line["seq"] for line in lost] == [3, 5]
    assert all(line["wire_bits"] == 0 and line["prob"] is None for line in lost)
    assert summary["offloaded"] > 0
    assert caplog.text.count("computed values that are not finite") == 1


def test_a_run_without_one_finite_score_fails(pair: Pair, tmp_path: Path) -> None:
    network = copy.deepcopy(pair.edge.vit)
    network.head.register_forward_hook(lambda _m, _a, logits: logits * float("inf"))
    broken = replace(pair, edge=replace(pair.edge, vit=network, computed_score=None))
    with pytest.raises(SagelinkError, match="the edge model failed on every frame"):
        prepare_demo(broken, "synthetic:3", output__out=str(tmp_path)).run()
    assert read(tmp_path)[1]["drops"] == {"error": 3}
