"""`sagelink eval-video` as a user types it, and the parts that it is made of."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from sagelink.lab import video_comparison as video
from sagelink.lab.clips import KINDS, Clip, World, drawn_clips, real_clips
from sagelink.lab.scored_clips import ScoredClip
from sagelink.lab.video_policies import Outcome, Policy
from sagelink.lab.video_streams import STREAMS, stream
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.types import Pixels

DEMO = ("--models", "demo", "--seconds", "1", "--clips", "8", "--fps", "5")
VARIABLE = [0, 1, 30, 45, 90]  # thirtieths of a second
BASELINES = {"edge", "webp-each", "webp-periodic", "h264", "h264+edge", "vp8", "vp8+edge", "paper", "stateless"}


def test_clips_follow_from_the_seed_and_know_the_truth_of_every_frame() -> None:
    one, same, other = ([*drawn_clips(World(20, 7), 8, 2.0, 5, seed)] for seed in (0, 0, 1))
    assert [clip.kind for clip in one] == [*KINDS]
    for mine, again in zip(one, same, strict=True):
        for a, b in zip(mine.frames, again.frames, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            assert a.truth == b.truth is not None
    assert any(a.frames[0].truth != b.frames[0].truth for a, b in zip(one, other, strict=True))
    assert all(len(clip.frames) == 10 for clip in one)


def test_a_clip_of_cuts_shows_other_scenes() -> None:
    clip = [*drawn_clips(World(40, 7), 8, 8.0, 5, 0)][KINDS.index("cuts")]
    assert len({frame.truth for frame in clip.frames}) > 3


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kbps", [2, 16, 64])
def test_a_video_stream_stays_within_every_window(name: str, kbps: int) -> None:
    (clip,) = drawn_clips(World(9, 1), 1, 3.0, 10, 0)
    budget = UplinkBudget(kbps * 1000, 1.0)
    times = [frame.stream_s for frame in clip.frames]
    pictures = [frame.pixels[:112, :112] for frame in clip.frames]
    seen = [*stream(name, pictures, times, 10, budget)]
    assert 0 < budget.peak_window_bits <= kbps * 1000
    numbers = [each[0] for each in seen if each]
    assert numbers == sorted(numbers)
    assert all(of <= at for at, of in enumerate(each[0] if each else -1 for each in seen))
    if kbps == 64:
        of, decoded = seen[-1] or (0, pictures[0])
        assert np.abs(decoded.astype(int) - pictures[of]).mean() < 12


@pytest.mark.parametrize("name", STREAMS)
def test_black_frames_at_times_that_do_not_move_are_coded(name: str) -> None:
    black: Pixels = np.zeros((112, 112, 3), np.uint8)
    seen = [*stream(name, [black] * 4, [0.0, 0.5, 0.5, 0.5], 10, UplinkBudget(64_000, 1.0))]
    assert seen[-1] is not None
    assert seen[-1][1].mean() < 10


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("video")


def test_eval_video_measures_every_policy_within_the_budget(command, run_folder: Path) -> None:
    code, printed = command("eval-video", "synthetic:60", *DEMO, "--rates", "16,64", "--out", run_folder)
    assert code == 0, printed
    report = json.loads((run_folder / "eval-video.json").read_text())
    assert (report["clips"], report["frames"], report["interrupted"]) == (8, 40, False)
    cells = {(row["policy"], row["kbps"]): row for row in report["rows"]}
    assert cells.keys() == {(name, rate) for name in BASELINES | {"auto"} for rate in (16.0, 64.0)}
    for (policy, rate), row in cells.items():
        assert row["budget_bits"] == rate * 1000
        assert row["peak_window_bits"] <= row["budget_bits"]
        assert row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]
        assert (row["vs_ours"] is None) == (policy == "auto")
        assert (row["verdict_age_ms"] is None) == (row["peak_window_bits"] == 0) == (row["by_age"] == [])
        assert sum(each["share"] for each in row["by_age"]) <= 1 + 1e-9
    assert cells["edge", 16.0]["spent_kbps"] == 0
    assert (run_folder / "eval-video.png").stat().st_size > 1000


def test_a_second_run_computes_nothing_anew(command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run_folder / "eval-video.json").read_text()

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("sagelink.lab.scored_clips.Projector._compute", never)
    monkeypatch.setattr("sagelink.lab.video_policies.Bench._each", never)
    code, printed = command("eval-video", "synthetic:60", *DEMO, "--rates", "16,64", "--out", run_folder)
    assert code == 0, printed
    assert (run_folder / "eval-video.json").read_text() == before


def test_an_interruption_keeps_what_is_done(command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = video._row

    def interrupted(name: str, *rest: object) -> object:
        if rest[4] == 64:
            raise KeyboardInterrupt
        return measured(name, *rest)

    monkeypatch.setattr(video, "_row", interrupted)
    code, printed = command("eval-video", "synthetic:60", *DEMO, "--rates", "16,64", "--out", run_folder)
    assert code == 0, printed
    report = json.loads((run_folder / "eval-video.json").read_text())
    assert report["interrupted"]
    assert {row["kbps"] for row in report["rows"]} == {16.0}


def outcome(hits: list[int], ages_ms: list[float | None] | None = None) -> Outcome:
    return Outcome([hit > 0 for hit in hits], ages_ms or [None] * len(hits), 1000, 900)


CLIPS = [ScoredClip(kind, kind, kind, 2.0, []) for kind in ("still", "pan", "cuts")]


def measured(policies: dict[str, list[Outcome]], tmp_path: Path, *rates_kbps: float) -> list[video.VideoRow]:
    """The rows of policies whose outcomes of each clip at all rates are given."""

    def policy(name: str) -> Policy:
        return Policy(lambda clip, rate_bps: {name: policies[name][CLIPS.index(clip)]})

    outcomes = video.Outcomes(tmp_path / "outcomes.jsonl", "")
    made = {name: policy(name) for name in policies}
    return [*chain(*video.rows(made, CLIPS, rates_kbps, 1.0, outcomes, 0, lambda *_: None))]


def test_slow_clips_are_compared_at_half_the_rate(tmp_path: Path) -> None:
    policies = {
        "auto": [outcome([1, 1]), outcome([1, 0]), outcome([0, 0])],
        "other": [outcome([0, 0]), outcome([1, 1]), outcome([1, 1])],
    }
    rows = {(row.policy, row.kbps): row for row in measured(policies, tmp_path, 16, 32, 128)}
    halves = {key: row.slow_vs_ours_at_half for key, row in rows.items()}
    assert {key for key, half in halves.items() if half} == {("other", 32)}
    more, (low, high) = halves["other", 32] or (0.0, (0.0, 0.0))
    assert more == pytest.approx(0.25)
    assert (low, high) == pytest.approx((-0.5, 1.0))
    assert rows["other", 32].vs_ours == (pytest.approx(-1 / 6), pytest.approx((-1.0, 1.0)))


def test_verdicts_are_told_apart_by_the_age_of_their_evidence(tmp_path: Path) -> None:
    ages = [[0.0, 100.0], [200.0, 9000.0], [None, None]]
    hits = [[1, 0], [1, 1], [1, 1]]
    (row,) = measured({"auto": [outcome(*each) for each in zip(hits, ages, strict=True)]}, tmp_path, 16)
    found = [(each.below_ms, each.share, each.accuracy) for each in row.by_age]
    assert found == [
        (50.0, pytest.approx(1 / 6), 1.0),
        (250.0, pytest.approx(1 / 3), 0.5),
        (None, pytest.approx(1 / 6), 1.0),
    ]
    assert row.verdict_age_ms == pytest.approx(9300 / 4)


def write_video(path: Path, pictures: list[Pixels], pts: list[int]) -> None:
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=30)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for picture, at in zip(pictures, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = at
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def test_a_video_of_one_black_frame_is_measured_by_agreement(command, tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", [np.zeros((64, 64, 3), np.uint8)], [0])
    code, printed = command("eval-video", tmp_path / "one.mp4", *DEMO, "--rates", "32", "--out", tmp_path / "out")
    assert code == 0, printed
    report = json.loads((tmp_path / "out" / "eval-video.json").read_text())
    assert (report["clips"], report["frames"]) == (1, 1)
    assert report["truth"].startswith("the server")


def jump_back(path: Path) -> None:
    """Two transport streams one after the other: the second's time begins anew."""
    for name, grey in (("a", 60), ("b", 200)):
        part = path.with_name(f"{name}.ts")
        write_video(part, [np.full((64, 64, 3), grey, np.uint8)] * 30, [*range(30)])
    path.write_bytes(path.with_name("a.ts").read_bytes() + path.with_name("b.ts").read_bytes())


def noise_at_every_frame(path: Path) -> None:
    rng = np.random.default_rng(0)
    write_video(path, [*rng.integers(0, 256, (30, 64, 64, 3), np.uint8)], [*range(30)])


@pytest.mark.parametrize(
    ("write", "frames"),
    [
        (lambda path: write_video(path, [np.zeros((64, 64, 3), np.uint8)] * 30, [*range(30)]), 5),
        (lambda path: write_video(path, [np.full((64, 64, 3), 25 * i, np.uint8) for i in range(5)], VARIABLE), 4),
        (noise_at_every_frame, 5),
        (jump_back, 10),
    ],
    ids=["black", "variable rate", "a cut at every frame", "time jumps back"],
)
def test_a_strange_video_is_measured_within_the_budget(command, tmp_path: Path, write, frames: int) -> None:
    write(tmp_path / "v.mkv")
    given = ("--models", "demo", "--fps", "5", "--rates", "32", "--seconds", "60", "--out", tmp_path / "out")
    code, printed = command("eval-video", tmp_path / "v.mkv", *given)
    assert code == 0, printed
    report = json.loads((tmp_path / "out" / "eval-video.json").read_text())
    assert (report["clips"], report["frames"]) == (1, frames)
    for row in report["rows"]:
        assert row["peak_window_bits"] <= row["budget_bits"]
        assert row["verdict_age_ms"] is None or row["verdict_age_ms"] >= 0


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    pts = [0, 1, 2, 30, 31, 60, 61, 62, 63, 90]  # thirtieths of a second
    write_video(tmp_path / "v.mp4", [np.full((64, 64, 3), 25 * i, np.uint8) for i in range(10)], pts)
    (clip,) = real_clips(tmp_path / "v.mp4", 1.0, 60.0)
    assert isinstance(clip, Clip)
    assert [round(frame.stream_s) for frame in clip.frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "nowhere"),
        (["synthetic:x"], "synthetic:N"),
        (["synthetic:9", "--rates", "0"], "--rates '0'"),
        (["synthetic:9", "--rates", "a"], "--rates 'a'"),
        (["synthetic:9", "--rows", "a"], "--rows 'a'"),
        (["synthetic:9", "--labels", "x.csv"], "--labels"),
        (["none.mp4"], "none.mp4"),
        (["synthetic:9", "synthetic:8"], "2 sources"),
    ],
)
def test_wrong_use_is_told(command, tmp_path: Path, arguments: list[str], named: str) -> None:
    code, printed = command("eval-video", *arguments, *DEMO, "--out", tmp_path / "out")
    assert code == 2
    assert named in printed
    assert not (tmp_path / "out").exists()
