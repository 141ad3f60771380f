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


def take(looks: ZoomSchedule, thumb: np.ndarray, importance: np.ndarray) -> Box:
    part = looks.next_crop(thumb)
    looks.update(part, importance)
    return part


def test_the_whole_and_windows_take_turns() -> None:
    looks = ZoomSchedule()
    parts = [take(looks, GREY, spot(13, 13)) for _ in range(2 * len(TURNS))]
    assert [part == WHOLE for part in parts] == 2 * [share == 1 for share in TURNS]
    assert {part for part in parts if part != WHOLE} == {(4 / 14, 4 / 14, 1.0, 1.0)}


def test_the_first_look_is_at_the_whole_and_so_are_all_while_nothing_is_known() -> None:
    looks = ZoomSchedule()
    assert [looks.next_crop(GREY) for _ in TURNS] == [WHOLE] * len(TURNS)


def test_another_picture_is_looked_at_whole() -> None:
    looks = ZoomSchedule()
    take(looks, GREY, spot(0, 0))
    assert take(looks, GREY, spot(0, 0)) != WHOLE
    assert take(looks, OTHER, spot(0, 0)) == WHOLE
    assert take(looks, OTHER, spot(0, 0)) != WHOLE


def test_a_camera_that_shakes_is_not_always_looked_at_whole() -> None:
    looks, rng = ZoomSchedule(), np.random.default_rng(0)
    shaken = [GREY + 0.05 * rng.standard_normal(GREY.shape).astype(np.float32) for _ in range(60)]
    parts = [take(looks, thumb, spot(0, 0)) for thumb in shaken]
    assert sum(part == WHOLE for part in parts[6:]) < 30
    assert take(looks, OTHER, spot(0, 0)) == WHOLE


def test_what_matters_in_a_window_is_not_taken_for_what_matters_in_the_whole() -> None:
    looks = ZoomSchedule()
    take(looks, GREY, spot(0, 0))
    first = take(looks, GREY, spot(13, 13))
    assert take(looks, GREY, spot(13, 13)) == first == (0.0, 0.0, 10 / 14, 10 / 14)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 1.0])
def test_no_other_window_has_more_importance(seed: int, share: float) -> None:
    side, importance = 9, np.random.default_rng(seed).random(81, np.float32)
    left, top, right, bottom = (round(edge * side) for edge in window(importance, share))
    length = max(1, round(share * side))
    assert (right - left, bottom - top) == (length, length)
    grid = importance.reshape(side, side)
    places = range(side - length + 1)
    most = max(grid[row : row + length, column : column + length].sum() for row in places for column in places)
    assert grid[top:bottom, left:right].sum() == pytest.approx(most, rel=1e-5)


def test_equals_give_the_first_window() -> None:
    assert window(np.ones(196, np.float32), 0.5) == (0.0, 0.0, 0.5, 0.5)


def test_a_closer_look_is_at_the_window_that_matters_most_and_drawn_once() -> None:
    drawn: list[Box] = []

    def draw(part: Box) -> Pixels:
        drawn.append(part)
        return np.full((2, 2, 3), len(drawn), np.uint8)

    closer = ZoomCrop(WHOLE, spot(13, 0), draw)
    assert closer(0.5) is closer(0.5)
    assert drawn == [closer.crop(0.5)] == [(0.0, 0.5, 0.5, 1.0)]
    within = ZoomCrop((0.5, 0.0, 1.0, 0.5), spot(13, 0), draw)  # of what was already a part
    assert within.crop(0.5) == (0.5, 0.25, 0.75, 0.5)
    assert within.crop(1.0) == (0.5, 0.0, 1.0, 0.5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (720, 1280), (16, 16)])
def test_a_thumb_of_any_frame_knows_no_overall_light(shape: tuple[int, int]) -> None:
    dark: Pixels = np.random.default_rng(0).integers(0, 100, (*shape, 3)).astype(np.uint8)
    assert thumbnail_of(dark).shape == (16, 16)
    np.testing.assert_allclose(thumbnail_of(dark), thumbnail_of(dark + 100), atol=1e-4)
