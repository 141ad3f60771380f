"""Times of videos whose container stores none, or only decoding order."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.stages.sources.open import open_source
from tests.stages.picture_forms import write_quarters


def times_of(path: Path) -> list[float]:
    return [frame.stream_s for frame in open_source(CameraConfig(name="camera", source=str(path)))]


RAW_H264, RAW_HEVC = ("libx264", "a.h264", {"bf": "3"}), ("libx265", "a.hevc", {"x265-params": "log-level=none"})
CASES = [
    RAW_H264,
    ("libx264", "b.h264", {"bf": "0"}),
    RAW_HEVC,
    ("libx264", "a.avi", {"bf": "3", "b-pyramid": "normal"}),
    ("libx264", "b.avi", {"bf": "0"}),
    ("mpeg4", "c.avi", {"bf": "2"}),
    ("mpeg4", "a.m4v", {"bf": "2"}),
    ("libx264", "a.mp4", {"bf": "3"}),
    ("libx264", "a.mkv", {"bf": "3"}),
    ("libx264", "a.ts", {"bf": "3"}),
]


@pytest.mark.parametrize("fps", [5, 10, 30])
@pytest.mark.parametrize(("codec", "name", "options"), CASES, ids=[f"{codec}-{name}" for codec, name, _ in CASES])
def test_each_frame_has_its_own_time(tmp_path: Path, codec: str, name: str, options: dict[str, str], fps: int) -> None:
    path = write_quarters(tmp_path / name, frames=24, fps=fps, codec=codec, **options)
    assert times_of(path) == pytest.approx([index / fps for index in range(24)], abs=2e-3)


def test_the_budget_of_a_replay_runs_on_the_rate_of_the_stream(tmp_path: Path) -> None:
    """Twenty seconds of raw video at 5 frames/s; timed at 25 it would be four."""
    path = write_quarters(tmp_path / "a.h264", frames=100, fps=5)
    assert times_of(path)[-1] == pytest.approx(19.8)
