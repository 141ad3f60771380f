"""The command `sagelink eval-video`, its clips, video streams and comparison rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from sagelink.lab.video import comparison as video_comparison
from sagelink.lab.video.clip_playback import Outcome, Policy
from sagelink.lab.video.clips import KINDS, Clip, SyntheticPhotos, drawn_clips, real_clip
from sagelink.lab.video.comparison import Contest, OutcomeCache, VideoRow, video_rows
from sagelink.lab.video.scored_clips import ScoredClip
from sagelink.lab.video.streams import STREAMS, stream
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.types import Pixels
from tests.lab.clips import clip_of

DEMO = ("--models", "demo", "--seconds", "1", "--clips", "4", "--fps", "5")
VARIABLE_PTS = [0, 1, 30, 45, 90]  # in 1/30 s
SENDERS = {*STREAMS, "webp-periodic", "avif-periodic", "motion-snapshots", "frame-filter", "second-look"}
BASELINES = {"edge", "webp-each", "paper", "stateless", *SENDERS, *(f"{name}+edge" for name in SENDERS)}


def test_clips_follow_from_the_seed_and_have_a_label_per_frame() -> None:
    first, same_seed, other_seed = ([*drawn_clips(SyntheticPhotos(20, 7), 8, 2.0, 5, seed)] for seed in (0, 0, 1))
    assert [clip.kind for clip in first] == [*KINDS]
    for clip, repeated in zip(first, same_seed, strict=True):
        for a, b in zip(clip.frames, repeated.frames, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)
            assert a.truth == b.truth is not None
    assert any(a.frames[0].truth != b.frames[0].truth for a, b in zip(first, other_seed, strict=True))
    assert all(len(clip.frames) == 10 for clip in first)


def test_a_clip_of_cuts_shows_several_scenes() -> None:
    *_, clip = drawn_clips(SyntheticPhotos(40, 7), len(KINDS), 5.0, 1, 0)
    assert clip.kind == "cuts"
    assert len({frame.truth for frame in clip.frames}) > 3


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kbps", [2, 16, 64])
def test_a_video_stream_stays_within_the_budget_in_every_window(name: str, kbps: int) -> None:
    (clip,) = drawn_clips(SyntheticPhotos(9, 1), 1, 3.0, 10, 0)
    budget = UplinkBudget(kbps * 1000, 1.0)
    times = [frame.stream_s for frame in clip.frames]
    pictures = [frame.pixels[:112, :112] for frame in clip.frames]
    received = [*stream(name, pictures, times, 10, budget)]
    assert 0 < budget.peak_window_bits <= kbps * 1000
    numbers = [item[0] for item in received if item]
    assert numbers == sorted(numbers)
    assert all(source <= number for number, source in enumerate(item[0] if item else -1 for item in received))
    if kbps == 64:
        source, decoded = received[-1] or (0, pictures[0])
        assert np.abs(decoded.astype(int) - pictures[source]).mean() < 12


@pytest.mark.parametrize("name", STREAMS)
def test_black_frames_with_equal_timestamps_are_encoded(name: str) -> None:
    black: Pixels = np.zeros((112, 112, 3), np.uint8)
    received = [*stream(name, [black] * 4, [0.0, 0.5, 0.5, 0.5], 10, UplinkBudget(64_000, 1.0))]
    assert received[-1] is not None
    assert received[-1][1].mean() < 10


@pytest.mark.campaign
def test_eval_video_measures_every_policy_and_computes_nothing_twice(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("eval-video", "synthetic:60", *DEMO, "--rates", "16,64", "--out", tmp_path)
    code, printed = command(*run)
    assert code == 0, printed
    check_report(tmp_path)

    def cache() -> dict[str, tuple[int, int]]:
        """Time of the last change and size of each cache file; every computed result is written there."""
        states = {path.name: path.stat() for path in (tmp_path / "cache").iterdir()}
        return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}

    before, cached = (tmp_path / "eval-video.json").read_text(), cache()
    assert len(cached) == 5  # a file per clip, and the outcomes
    code, printed = command(*run)
    assert code == 0, printed
    assert (tmp_path / "eval-video.json").read_text() == before
    assert cache() == cached

    real = video_comparison.video_rows

    def interrupted(*arguments: object) -> Iterator[list[VideoRow]]:
        yield next(real(*arguments))
        raise KeyboardInterrupt

    def interrupted_at_once(*arguments: object) -> Iterator[list[VideoRow]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(video_comparison, "video_rows", interrupted_at_once)
    code, printed = command(*run)
    assert (code, f"is kept in {tmp_path / 'cache'}: the same command continues" in printed) == (1, True)
    assert (tmp_path / "eval-video.json").read_text() == before  # the result of before stays

    monkeypatch.setattr(video_comparison, "video_rows", interrupted)
    code, printed = command(*run)
    assert code == 0, printed
    report = json.loads((tmp_path / "eval-video.json").read_text())
    assert report["interrupted"]
    assert {row["kbps"] for row in report["rows"]} == {16.0}  # of the rates that were finished


def check_report(run_folder: Path) -> None:
    report = json.loads((run_folder / "eval-video.json").read_text())
    assert (report["clips"], report["frames"], report["interrupted"]) == (4, 20, False)
    cells = {(row["policy"], row["kbps"]): row for row in report["rows"]}
    assert cells.keys() == {(name, rate) for name in BASELINES | {"auto"} for rate in (16.0, 64.0)}
    for (policy, rate), row in cells.items():
        assert row["budget_bits"] == rate * 1000
        assert row["peak_window_bits"] <= row["budget_bits"]
        assert row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]
        assert (row["vs_ours"] is None) == (policy == "auto")
        assert (row["verdict_age_ms"] is None) == (row["by_age"] == [])
        assert row["peak_window_bits"] > 0 or row["by_age"] == []  # a stream may end before its first whole frame
        assert sum(bucket["share"] for bucket in row["by_age"]) <= 1 + 1e-9
    assert cells["edge", 16.0]["spent_kbps"] == 0
    assert (run_folder / "eval-video.png").stat().st_size > 1000


def outcome(hits: list[int], ages_ms: list[float | None] | None = None) -> Outcome:
    return Outcome([*hits], [0.5] * len(hits), ages_ms or [None] * len(hits), 1000, 900)


CLIPS = [clip_of([1, 1], kind) for kind in ("still", "pan", "cuts")]


@pytest.mark.parametrize("torn", [b'["', b'["0123", {"a": {"cl', b"\xff\x00", b"[" * 5000])
def test_a_line_that_a_killed_process_left_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    evaluated: list[float] = []

    def evaluate(clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        evaluated.append(rate_bps)
        return {"a": outcome([1, 0])}

    path, policy = tmp_path / "outcomes.jsonl", Policy(evaluate)
    OutcomeCache(path, "").get("a", policy, CLIPS[0], 1.0)
    with path.open("ab") as file:
        file.write(torn)
    OutcomeCache(path, "").get("a", policy, CLIPS[0], 2.0)
    for rate_bps in (1.0, 2.0):
        OutcomeCache(path, "").get("a", policy, CLIPS[0], rate_bps)
    assert evaluated == [1.0, 2.0]


def rows_of(policies: dict[str, list[Outcome]], tmp_path: Path, *rates_kbps: float) -> list[VideoRow]:
    """The rows of policies with given outcomes: one per clip, the same at every rate."""

    def policy(name: str) -> Policy:
        return Policy(lambda clip, rate_bps: {name: policies[name][CLIPS.index(clip)]})

    cache = OutcomeCache(tmp_path / "outcomes.jsonl", "")
    contests = [Contest(clip, {name: policy(name) for name in policies}) for clip in CLIPS]
    return [*chain(*video_rows(contests, rates_kbps, 1.0, cache, 0, lambda *_: None))]


def test_slow_clips_are_compared_at_half_the_rate(tmp_path: Path) -> None:
    policies = {
        "auto": [outcome([1, 1]), outcome([1, 0]), outcome([0, 0])],
        "other": [outcome([0, 0]), outcome([1, 1]), outcome([1, 1])],
    }
    rows = {(row.policy, row.kbps): row for row in rows_of(policies, tmp_path, 16, 32, 128)}
    halves = {key: row.slow_vs_ours_at_half for key, row in rows.items()}
    assert {key for key, half in halves.items() if half} == {("other", 32)}
    gain, (low, high) = halves["other", 32] or (0.0, (0.0, 0.0))
    assert gain == pytest.approx(0.25)
    assert (low, high) == pytest.approx((-0.5, 1.0))
    assert rows["other", 32].vs_ours == (pytest.approx(-1 / 6), pytest.approx((-1.0, 1.0)))


def test_verdicts_are_grouped_by_the_age_of_their_evidence(tmp_path: Path) -> None:
    ages = [[0.0, 100.0], [200.0, 9000.0], [None, None]]
    hits = [[1, 0], [1, 1], [1, 1]]
    (row,) = rows_of({"auto": [outcome(*pair) for pair in zip(hits, ages, strict=True)]}, tmp_path, 16)
    buckets = [(bucket.below_ms, bucket.share, bucket.accuracy) for bucket in row.by_age]
    assert buckets == [
        (50.0, pytest.approx(1 / 6), 1.0),
        (250.0, pytest.approx(1 / 3), 0.5),
        (None, pytest.approx(1 / 6), 1.0),
    ]
    assert row.verdict_age_ms == pytest.approx(9300 / 4)


def write_video(path: Path, pictures: list[Pixels], pts: list[int]) -> None:
    """Writes an H.264 video of 64x64 pixels; `pts` in 1/30 s."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=30)
        track.width = track.height = 64
        track.pix_fmt = "yuv420p"
        for picture, timestamp in zip(pictures, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = timestamp
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def test_a_video_of_one_black_frame_is_scored_by_agreement(command, tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", [np.zeros((64, 64, 3), np.uint8)], [0])
    code, printed = command("eval-video", tmp_path / "one.mp4", *DEMO, "--rates", "32", "--out", tmp_path / "out")
    assert code == 0, printed
    report = json.loads((tmp_path / "out" / "eval-video.json").read_text())
    assert (report["clips"], report["frames"]) == (1, 1)
    assert report["truth"].startswith("the server")


def write_time_jump(path: Path) -> None:
    """Two concatenated transport streams: the timestamps of the second start again."""
    for name, grey in (("a", 60), ("b", 200)):
        part = path.with_name(f"{name}.ts")
        write_video(part, [np.full((64, 64, 3), grey, np.uint8)] * 30, [*range(30)])
    path.write_bytes(path.with_name("a.ts").read_bytes() + path.with_name("b.ts").read_bytes())


def write_noise(path: Path) -> None:
    rng = np.random.default_rng(0)
    write_video(path, [*rng.integers(0, 256, (30, 64, 64, 3), np.uint8)], [*range(30)])


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("write", "frames"),
    [
        (lambda path: write_video(path, [np.zeros((64, 64, 3), np.uint8)] * 30, [*range(30)]), 5),
        (lambda path: write_video(path, [np.full((64, 64, 3), 25 * i, np.uint8) for i in range(5)], VARIABLE_PTS), 4),
        (write_noise, 5),
        (write_time_jump, 10),
    ],
    ids=["black", "variable rate", "a cut at every frame", "timestamps jump back"],
)
def test_an_unusual_video_is_evaluated_within_the_budget(
    command, tmp_path: Path, write: Callable[[Path], None], frames: int
) -> None:
    write(tmp_path / "v.mkv")
    options = ("--models", "demo", "--fps", "5", "--rates", "32", "--seconds", "60", "--out", tmp_path / "out")
    code, printed = command("eval-video", tmp_path / "v.mkv", *options)
    assert code == 0, printed
    report = json.loads((tmp_path / "out" / "eval-video.json").read_text())
    assert (report["clips"], report["frames"]) == (1, frames)
    for row in report["rows"]:
        assert row["peak_window_bits"] <= row["budget_bits"]
        assert row["verdict_age_ms"] is None or row["verdict_age_ms"] >= 0


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    pts = [0, 1, 2, 30, 31, 60, 61, 62, 63, 90]  # in 1/30 s
    write_video(tmp_path / "v.mp4", [np.full((64, 64, 3), 25 * i, np.uint8) for i in range(10)], pts)
    clip = real_clip(tmp_path / "v.mp4", "v", 1.0, 60)
    assert isinstance(clip, Clip)
    assert [round(frame.stream_s) for frame in clip.frames] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["synthetic:x"], "synthetic:N"),
        (["synthetic:9", "--rates", "0"], "--rates '0'"),
        (["synthetic:9", "--rates", "a"], "--rates 'a'"),
        (["synthetic:9", "--rows", "a"], "--rows 'a'"),
        (["synthetic:9", "--labels", "x.csv"], "labels 'x.csv' does not exist"),
        (["none.mp4"], "none.mp4"),
        (["synthetic:9", "synthetic:8"], "2 sources"),
    ],
)
def test_invalid_arguments_are_refused(command, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, printed = command("eval-video", *arguments, *DEMO, "--out", tmp_path / "out")
    assert code == 2
    assert message in printed
    assert not (tmp_path / "out").exists()
