"""Pictures for the models, compared with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sagelink.models.preprocess import make_picture

BOXES = {"whole": (0.0, 0.0, 1.0, 1.0), "window": (0.2, 0.1, 0.9, 0.8), "one pixel": (0.999, 0.999, 1.0, 1.0)}
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def _frame(height: int, width: int) -> np.ndarray:
    """Of low contrast: where values are clipped between the two directions, their order matters."""
    return np.random.default_rng(height).integers(64, 192, (height, width, 3), np.uint8)


def _difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.dtype == other.dtype == np.uint8
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop", BOXES)
@pytest.mark.parametrize("shape", [(90, 160), (61, 33), (20, 20), (1, 7)])
def test_pictures_are_pillows_within_one_level(shape: tuple[int, int], crop: str, interpolation: str) -> None:
    frame, box = _frame(*shape), BOXES[crop]
    height, width = shape
    left, top = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    expected = Image.fromarray(frame[top:bottom, left:right].copy()).resize((48, 48), FILTERS[interpolation])
    found = make_picture(frame, 48, "squash", interpolation, crop=box)
    assert _difference(found, np.array(expected)) <= 1
    assert found.flags.c_contiguous


def test_frames_of_any_memory_layout() -> None:
    frame = _frame(90, 160)
    expected = make_picture(frame, 48, "crop", "bicubic")
    fixed = frame.copy()
    fixed.flags.writeable = False
    for same in (fixed, frame[::-1][::-1], np.asfortranarray(frame), np.repeat(frame, 2, 1)[:, ::2]):
        assert _difference(make_picture(same, 48, "crop", "bicubic"), expected) == 0
    mirrored = make_picture(frame[:, ::-1], 48, "crop", "bicubic")
    assert _difference(mirrored, make_picture(frame[:, ::-1].copy(), 48, "crop", "bicubic")) == 0


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    frame = _frame(48, 48)
    assert make_picture(frame, 48, "squash", "bicubic") is frame
    window = make_picture(_frame(96, 96), 48, "squash", "bicubic", crop=(0.25, 0.25, 0.75, 0.75))
    assert _difference(window, _frame(96, 96)[24:72, 24:72]) == 0
