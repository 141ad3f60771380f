"""Region of interest and mask."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.stages.regions import Regions


def ramp(height: int = 10, width: int = 20) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_without_region_and_mask_the_picture_is_unchanged() -> None:
    picture = ramp()
    assert Regions()(picture) is picture


@pytest.mark.parametrize(
    ("roi", "shape"),
    [((0, 0, 1, 1), (10, 20, 3)), ((0.5, 0, 1, 0.5), (5, 10, 3)), ((0.99, 0.99, 1, 1), (1, 1, 3))],
)
def test_the_region_is_cut_out(roi: tuple[float, float, float, float], shape: tuple[int, ...]) -> None:
    picture = ramp()
    cut = Regions(roi)(picture.copy())
    assert cut.shape == shape
    assert cut.flags.c_contiguous
    assert (cut == picture[-shape[0] :, -shape[1] :] if roi[1] else cut == picture[: shape[0], -shape[1] :]).all()


def test_polygons_are_hidden_and_the_rest_is_untouched() -> None:
    picture = ramp(20, 40)
    half = ((0.0, 0.0), (0.475, 0.0), (0.475, 1.0), (0.0, 1.0))
    cut = Regions(mask=[half])(picture.copy())
    assert len(np.unique(cut[:, :20].reshape(-1, 3), axis=0)) == 1
    assert (cut[:, 20:] == picture[:, 20:]).all()


def test_the_mask_is_of_the_whole_picture_whatever_the_region() -> None:
    picture = np.full((20, 20, 3), 250, np.uint8)
    right = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    assert (Regions((0, 0, 0.45, 1), [right])(picture.copy()) == 250).all()
    assert (Regions((0.55, 0, 1, 1), [right])(picture.copy()) != 250).all()


def test_a_read_only_picture_can_be_masked() -> None:
    picture = ramp()
    picture.flags.writeable = False
    assert Regions(mask=[((0, 0), (1, 0), (1, 1))])(picture).shape == picture.shape
