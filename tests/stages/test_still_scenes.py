"""Still frames take the scores of the last scored frame; every visible change is scored at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.types import Frame, Pixels, Scored
from sagelink.stages.still_scenes import ScoreChanges, StillDetector, has_changed, levels_of
from tests.fakes import make_scored


def _picture(seed: int = 0, noise: float = 0.0, height: int = 180, width: int = 320) -> Pixels:
    """A smooth scene with sensor noise (standard deviation in levels)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    scene = 128 + 60 * np.sin(rows / 40)[..., None] + 40 * np.cos(columns / 50)[..., None]
    return np.clip(scene + rng.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def _frame(seq: int, pixels: Pixels, camera: str = "gate", every_s: float = 0.1) -> Frame:
    return Frame(seq, camera, 0, seq * every_s, pixels, 0.0)


class RecordingScorer:
    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.fail = False
        self.classes: TaughtClasses | None = None

    def __call__(self, frames: Sequence[Frame]) -> list[Scored]:
        if self.fail:
            raise ValueError("not finite")
        self.seqs += [frame.seq for frame in frames]
        return [replace(make_scored(), frame=frame, taught=self.classes) for frame in frames]


def _scorer(interval_s: float = 5.0) -> tuple[ScoreChanges, RecordingScorer]:
    inner = RecordingScorer()
    return ScoreChanges(inner, {"gate": StillDetector(interval_s)}, lambda _: inner.classes), inner


@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0])
def test_a_still_scene_is_scored_three_times_and_then_once_in_the_interval(noise: float) -> None:
    score, inner = _scorer(interval_s=2.0)
    found = [score([_frame(seq, _picture(seq, noise))])[0] for seq in range(45)]
    assert inner.seqs == [0, 1, 2, 22, 42]
    assert [one.frame.seq for one in found] == [*range(45)]
    assert [one.frame.seq for one in found if not one.repeated] == inner.seqs
    assert {one.score_ms for one in found if one.repeated} == {0.0}


def test_a_small_change_is_scored_at_once_and_so_is_its_end() -> None:
    score, inner = _scorer()
    pictures = [_picture(seq, 2.0) for seq in range(20)]
    for picture in pictures[8:12]:
        picture[60:72, 100:112] = 20  # an object of a quarter of a per cent of the picture
    for seq, picture in enumerate(pictures):
        score([_frame(seq, picture)])
    assert inner.seqs == [0, 1, 2, 8, 9, 10, 12, 13, 14]


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_change_of_the_light_is_a_change(factor: float) -> None:
    picture = _picture()
    other = np.clip(picture * factor, 0, 255).astype(np.uint8)
    assert has_changed(levels_of(picture), levels_of(other))


def test_a_slow_change_adds_up() -> None:
    """Frames are compared with the last scored one, not with the one before."""
    score, inner = _scorer(interval_s=100.0)
    for seq in range(40):
        picture = _picture()
        picture[40:80, 40:80] += np.uint8(seq)
        score([_frame(seq, picture)])
    assert len(inner.seqs) > 6
    assert len(inner.seqs) < 40


def test_each_camera_has_its_own_scene_and_others_are_always_scored() -> None:
    score, inner = _scorer()
    for seq in range(6):
        found = score([_frame(seq, _picture(), camera) for camera in ("gate", "yard")])
        assert [one.frame.camera for one in found] == ["gate", "yard"]
        assert not found[1].repeated
    assert inner.seqs == [0, 0, 1, 1, 2, 2, 3, 4, 5]


def test_another_frame_size_and_a_clock_that_steps_back_are_scored() -> None:
    score, inner = _scorer()
    for seq in range(5):
        score([_frame(seq, _picture())])
    score([_frame(5, _picture(height=90, width=160))])
    score([_frame(6, _picture(height=90, width=160))])
    score([_frame(7, _picture(height=90, width=160))])
    score([_frame(8, _picture(height=90, width=160), every_s=-1.0)])
    assert inner.seqs == [0, 1, 2, 5, 6, 7, 8]


def test_a_still_frame_with_other_classes_is_scored_again() -> None:
    score, inner = _scorer()
    for seq in range(5):
        score([_frame(seq, _picture())])
    inner.classes = TaughtClasses(bytes(16), ("open", "closed"), 0.1, 0.5, ((100, 0.2), (1000, 1.0)))
    found = [score([_frame(seq, _picture())])[0] for seq in range(5, 8)]
    assert inner.seqs == [0, 1, 2, 5]
    assert {one.taught for one in found} == {inner.classes}


def test_scores_of_an_older_picture_are_not_repeated_after_a_failure() -> None:
    score, inner = _scorer()
    for seq in range(4):
        score([_frame(seq, _picture())])
    inner.fail = True
    for seq in range(4, 10):
        with pytest.raises(ValueError, match="not finite"):
            score([_frame(seq, _picture() // 2)])
    inner.fail = False
    assert not score([_frame(10, _picture() // 2)])[0].repeated


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 900)])
def test_small_frames(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    assert not has_changed(levels_of(pixels), levels_of(pixels))
    assert has_changed(levels_of(pixels), levels_of(pixels + 255))
