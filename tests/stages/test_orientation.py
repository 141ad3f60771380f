"""The eight orientations: against Pillow for EXIF, and against the definition of FFmpeg's display matrix."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from sagelink.stages.orientation import EXIF_TAG, displayed, orientation_of

ONE = 1 << 16
# EXIF orientation by the linear part (a, b, c, d) of a display matrix: (x, y) is displayed at (a x + c y, b x + d y).
MATRICES = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


def display_matrix(a: float, b: float, c: float, d: float) -> list[int]:
    return [round(a * ONE), round(b * ONE), 0, round(c * ONE), round(d * ONE), 0, 0, 0, 1 << 30]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_as_pillow_shows_them(orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    image = Image.fromarray(stored)
    image.getexif()[EXIF_TAG] = orientation
    np.testing.assert_array_equal(displayed(stored, orientation), np.array(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize(("linear", "orientation"), MATRICES.items())
def test_display_matrices_by_their_definition(linear: tuple[int, int, int, int], orientation: int) -> None:
    assert orientation_of(display_matrix(*linear)) == orientation
    a, b, c, d = linear
    stored = np.arange(15, dtype=np.uint8).reshape(3, 5, 1)
    places = {(a * x + c * y, b * x + d * y): stored[y, x] for y in range(3) for x in range(5)}
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    shown = displayed(stored, orientation)
    assert all((shown[y - top, x - left] == value).all() for (x, y), value in places.items())


@pytest.mark.parametrize(
    ("linear", "orientation"),
    [
        ((0, 0, 0, 0), 1),
        ((1.46, 0, 0, 1), 1),  # with a scale
        ((0.99, 0.12, -0.12, 0.99), 1),  # turned by seven degrees
        ((-0.99, 0.12, 0.12, 0.99), 2),  # mirrored, and turned by seven degrees
        ((0, 3, -0.5, 0), 6),
    ],
)
def test_other_matrices_count_as_the_nearest_orientation(linear: tuple[float, ...], orientation: int) -> None:
    assert orientation_of(display_matrix(*linear)) == orientation


def test_an_unknown_exif_value_is_upright() -> None:
    stored = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(displayed(stored, 9), stored)
