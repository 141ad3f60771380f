"""`sagelink eval-video` on a video with labelled intervals, with a head taught on its first part."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from sagelink.app.commands.clip_sources import TeachUntil
from sagelink.lab.teach.sources import Interval
from sagelink.lab.video.labelled_clips import before
from sagelink.models.heads.head import read_head
from sagelink.pipeline.errors import UsageError
from sagelink.stages.sources.world import render, sample_scene

FPS = 5
# A yard: the states change every 2 s; the times between them are not labelled.
STATES = ("empty", "lorry") * 4
OPTIONS = ("--models", "demo", "--fps", str(FPS), "--rates", "16", "--set", "threads=1")


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yard")
    scenes = {name: sample_scene(np.random.default_rng(seed)) for seed, name in enumerate(("empty", "lorry"))}
    rng, lines = np.random.default_rng(0), ["start_s,end_s,label"]
    with av.open(str(folder / "yard.mp4"), "w") as container:
        track = container.add_stream("libx264", rate=FPS)
        track.width = track.height = 112
        track.pix_fmt = "yuv420p"
        for number, state in enumerate(STATES):
            lines.append(f"{2 * number + 0.1},{2 * number + 1.7},{state}")
            for _ in range(2 * FPS):
                shift = rng.integers(-2, 3, 2)  # a camera in the wind, under clouds
                pixels = np.roll(render(scenes[state], 112, 112, 0.0, rng), shift, (0, 1))
                pixels = np.clip(pixels * rng.uniform(0.95, 1.05), 0, 255).astype(np.uint8)
                container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(track.encode(None))
    (folder / "yard.labels.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.campaign
def test_a_head_is_taught_on_the_first_part_and_tested_on_the_rest(command, yard: Path, tmp_path: Path) -> None:
    arguments = (yard / "yard.mp4", "--teach-until", "55%", *OPTIONS, "--out", tmp_path)
    code, printed = command("eval-video", *arguments)
    assert code == 0, printed
    report = json.loads((tmp_path / "eval-video.json").read_text())
    assert (report["clips"], report["truth"]) == (1, "labels")
    assert 35 <= report["frames"] <= 37  # 0.45 x 16 s x 5
    head = read_head(tmp_path / "yard.head")
    assert head.classes == ("empty", "lorry")
    assert head.taught.sharpness.age > 0.2  # the intervals were played as scenes: verdicts become surer with time
    rows = {row["policy"]: row for row in report["rows"]}
    auto = rows["auto"]
    assert auto["accuracy"] == auto["by_clip"]["yard"]["accuracy"] >= 0.8
    assert auto["macro_accuracy"] == auto["by_clip"]["yard"]["macro_accuracy"] >= 0.8
    assert auto["events"]["states"] == 4
    assert auto["events"]["missed"] == 0
    assert all(row["peak_window_bits"] <= row["budget_bits"] for row in rows.values())


@pytest.mark.campaign
def test_a_video_with_labels_beside_it_is_scored_by_agreement_without_a_head(
    command, yard: Path, tmp_path: Path
) -> None:
    code, printed = command("eval-video", yard / "yard.mp4", *OPTIONS, "--out", tmp_path)
    assert code == 0, printed
    report = json.loads((tmp_path / "eval-video.json").read_text())
    assert report["truth"].startswith("the server")
    assert {row["events"] for row in report["rows"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yard.mp4", "--teach-until", "0%"], "--teach-until '0%'"),
        (["yard.mp4", "--teach-until", "15.9s"], "no interval after"),
        (["yard.mp4", "--teach-until", "0.05s"], "no interval before"),
        (["yard.mp4", "--teach-until", "50%", "--head", "x.head"], "accepted: one of them"),
        (["synthetic:9", "--teach-until", "50%"], "--teach-until goes with labelled videos"),
        (["yard.mp4", "--labels", "yard.labels.csv"], "none of the labels 'empty', 'lorry'"),
        (["yard.mp4", "yard.mp4", "--labels", "yard.labels.csv"], "--labels goes with one video"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    command, yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(yard)
    code, printed = command("eval-video", *arguments, *OPTIONS, "--out", tmp_path / "out")
    assert code == 2
    assert message in printed.replace("\n", " ")


def test_the_part_that_is_taught() -> None:
    assert TeachUntil.parse("55%") == TeachUntil(0.55, None)
    assert TeachUntil.parse("1min") == TeachUntil(None, 60.0)
    with pytest.raises(UsageError, match="100%"):
        TeachUntil.parse("100%")
    intervals = [Interval(0, 4, "a"), Interval(5, 9, "b")]
    assert before(intervals, 6) == [Interval(0, 4, "a"), Interval(5, 6, "b")]
    assert before(intervals, 5) == intervals[:1]
