"""Playback of pictures on disk: sampling, limits, region and pace; and captures merged by time."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from sagelink.pipeline.config.camera import CameraConfig, CaptureConfig
from sagelink.pipeline.types import Frame
from sagelink.stages.capture import MergedCaptures, Playback, open_captures
from sagelink.stages.sources.synthetic import SyntheticSource


def playback(frames: int = 20, rate: float = 10, name: str = "camera", seed: int = 0, **options: object) -> Playback:
    """Playback of the synthetic world. `options`: of the camera, or of `capture` with the prefix `capture_`."""
    capture = {key.removeprefix("capture_"): value for key, value in options.items() if key.startswith("capture_")}
    camera = {key: value for key, value in options.items() if not key.startswith("capture_")}
    source = SyntheticSource(frames, 64, 32, rate, seed)
    return Playback(source, CameraConfig(name=name, source="-", **camera), CaptureConfig(**capture))


async def frames_of(capture: Playback | MergedCaptures) -> list[Frame]:
    async with capture:
        return [frame async for frame in capture]


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({}, [index / 10 for index in range(20)]),
        ({"fps": 2}, [0, 0.5, 1, 1.5]),
        ({"capture_max_frames": 3}, [0, 0.1, 0.2]),
        ({"capture_duration": 0.25}, [0, 0.1, 0.2]),
        ({"fps": 5, "capture_max_frames": 2}, [0, 0.2]),
    ],
)
async def test_rate_and_limits_pick_the_frames(options: dict[str, object], times: list[float]) -> None:
    capture = playback(**options)
    frames = await frames_of(capture)
    assert [frame.stream_s for frame in frames] == pytest.approx(times)
    assert [frame.seq for frame in frames] == list(range(len(times)))
    assert capture.captured == len(times)


async def test_a_frame_holds_only_its_region() -> None:
    (frame,) = await frames_of(playback(1, roi=(0.5, 0, 1, 0.5)))
    assert frame.pixels.shape == (16, 32, 3)


async def test_frames_have_truth_until_it_is_forgotten() -> None:
    assert all(frame.truth is not None for frame in await frames_of(playback(3)))
    forgetful = playback(3)
    forgetful.forget_truth()
    assert all(frame.truth is None for frame in await frames_of(forgetful))


async def test_merged_frames_are_ordered_by_time_then_by_capture() -> None:
    frames = await frames_of(MergedCaptures([playback(4, 2, "slow"), playback(4, 4, "fast")]))
    assert [(frame.camera, frame.stream_s) for frame in frames] == [
        ("slow", 0),
        ("fast", 0),
        ("fast", 0.25),
        ("slow", 0.5),
        ("fast", 0.5),
        ("fast", 0.75),
        ("slow", 1.0),
        ("slow", 1.5),
    ]


async def test_frames_that_were_read_ahead_do_not_count_as_captured() -> None:
    captures = [playback(name="a"), playback(name="b")]
    async with MergedCaptures(captures) as merged, aclosing(aiter(merged)) as frames:
        taken = [await anext(frames) for _ in range(5)]
    assert sum(capture.captured for capture in captures) == len(taken)


def test_beside_a_live_camera_files_are_played_at_their_own_pace() -> None:
    cameras = [
        CameraConfig(name="live", source="rtsp://192.0.2.1/x"),
        CameraConfig(name="file", source="synthetic:3"),
    ]
    assert [capture.live for capture in open_captures(cameras, CaptureConfig())] == [True, True]
    assert [capture.live for capture in open_captures(cameras[1:], CaptureConfig())] == [False]
    events = CameraConfig(name="events", source="frigate:mqtt://192.0.2.1")
    assert open_captures([events, cameras[1]], CaptureConfig(), lambda config: playback())[1].live
