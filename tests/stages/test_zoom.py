"""The crops that the edge scores and sends: turns, large changes, and the most important window."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.pipeline.types import WHOLE, Box, Pixels
from sagelink.stages.zoom import TURNS, ZoomCrop, ZoomSchedule, thumbnail_of, window

GREY = thumbnail_of(np.full((64, 64, 3), 90, np.uint8))
OTHER = thumbnail_of(np.concatenate([np.full((64, 32, 3), 255, np.uint8), np.zeros((64, 32, 3), np.uint8)], axis=1))


def spot(row: int, column: int, side: int = 14) -> np.ndarray:
    importance = np.zeros((side, side), np.float32)
    importance[row, column] = 1
    return importance.ravel()


def next_crop(schedule: ZoomSchedule, thumbnail: np.ndarray, importance: np.ndarray) -> Box:
    crop = schedule.next_crop(thumbnail)
    schedule.update(crop, importance)
    return crop


def test_the_whole_view_and_windows_alternate() -> None:
    schedule = ZoomSchedule()
    crops = [next_crop(schedule, GREY, spot(13, 13)) for _ in range(2 * len(TURNS))]
    assert [crop == WHOLE for crop in crops] == 2 * [share == 1 for share in TURNS]
    assert {crop for crop in crops if crop != WHOLE} == {(4 / 14, 4 / 14, 1.0, 1.0)}


def test_without_known_importance_every_crop_is_the_whole_view() -> None:
    schedule = ZoomSchedule()
    assert [schedule.next_crop(GREY) for _ in TURNS] == [WHOLE] * len(TURNS)


def test_after_a_large_change_the_whole_view_comes_next() -> None:
    schedule = ZoomSchedule()
    next_crop(schedule, GREY, spot(0, 0))
    assert next_crop(schedule, GREY, spot(0, 0)) != WHOLE
    assert next_crop(schedule, OTHER, spot(0, 0)) == WHOLE
    assert next_crop(schedule, OTHER, spot(0, 0)) != WHOLE


def test_a_shaking_camera_still_gets_windows() -> None:
    schedule, rng = ZoomSchedule(), np.random.default_rng(0)
    shaken = [GREY + 0.05 * rng.standard_normal(GREY.shape).astype(np.float32) for _ in range(60)]
    crops = [next_crop(schedule, thumbnail, spot(0, 0)) for thumbnail in shaken]
    assert sum(crop == WHOLE for crop in crops[6:]) < 30
    assert next_crop(schedule, OTHER, spot(0, 0)) == WHOLE


def test_importance_within_a_window_does_not_count_for_the_whole_view() -> None:
    schedule = ZoomSchedule()
    next_crop(schedule, GREY, spot(0, 0))
    first = next_crop(schedule, GREY, spot(13, 13))
    assert next_crop(schedule, GREY, spot(13, 13)) == first == (0.0, 0.0, 10 / 14, 10 / 14)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 1.0])
def test_no_other_window_has_more_importance(seed: int, share: float) -> None:
    side, importance = 9, np.random.default_rng(seed).random(81, np.float32)
    left, top, right, bottom = (round(edge * side) for edge in window(importance, share))
    length = max(1, round(share * side))
    assert (right - left, bottom - top) == (length, length)
    grid = importance.reshape(side, side)
    places = range(side - length + 1)
    best = max(grid[row : row + length, column : column + length].sum() for row in places for column in places)
    assert grid[top:bottom, left:right].sum() == pytest.approx(best, rel=1e-5)


def test_of_equal_windows_the_first_is_taken() -> None:
    assert window(np.ones(196, np.float32), 0.5) == (0.0, 0.0, 0.5, 0.5)


def test_a_zoom_crop_is_the_most_important_window_and_is_drawn_once() -> None:
    drawn: list[Box] = []

    def draw(box: Box) -> Pixels:
        drawn.append(box)
        return np.full((2, 2, 3), len(drawn), np.uint8)

    zoom = ZoomCrop(WHOLE, spot(13, 0), draw)
    assert zoom(0.5) is zoom(0.5)
    assert drawn == [zoom.crop(0.5)] == [(0.0, 0.5, 0.5, 1.0)]
    nested = ZoomCrop((0.5, 0.0, 1.0, 0.5), spot(13, 0), draw)  # of a crop
    assert nested.crop(0.5) == (0.5, 0.25, 0.75, 0.5)
    assert nested.crop(1.0) == (0.5, 0.0, 1.0, 0.5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (720, 1280), (16, 16)])
def test_a_thumbnail_does_not_depend_on_overall_brightness(shape: tuple[int, int]) -> None:
    dark: Pixels = np.random.default_rng(0).integers(0, 100, (*shape, 3)).astype(np.uint8)
    assert thumbnail_of(dark).shape == (16, 16)
    np.testing.assert_allclose(thumbnail_of(dark), thumbnail_of(dark + 100), atol=1e-4)
