"""Scaling without PyTorch gives PyTorch's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagelink.models import preprocess
from sagelink.models.preprocess import make_picture
from sagelink.models.scaling import scale

SIDES = st.integers(1, 90)


def pytorch(picture: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(images, (size, size), mode=interpolation, antialias=True)
    return scaled[0].permute(1, 2, 0).numpy()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 60), st.sampled_from(["bilinear", "bicubic"]), st.integers(0, 99))
def test_small_pictures_are_those_of_pytorch(height: int, width: int, size: int, interpolation: str, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(scale(picture, size, interpolation), pytorch(picture, size, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(720, 1280, 224), (1080, 1920, 112)])
def test_frames_with_bright_and_dark_regions(height: int, width: int, size: int, interpolation: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    picture[: height // 3], picture[-height // 3 :] = picture[: height // 3] | 0xF0, picture[-height // 3 :] & 0x0F
    picture[:, : width // 4] = 255
    difference = np.abs(scale(picture, size, interpolation).astype(int) - pytorch(picture, size, interpolation))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4


def test_a_machine_without_pytorch_makes_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (97, 161, 3), np.uint8)
    expected = make_picture(frame, 48, "crop", "bicubic", 0.9)
    monkeypatch.setattr(preprocess, "_has_torch", lambda: False)
    monkeypatch.setattr(torch.nn.functional, "interpolate", None)
    np.testing.assert_array_equal(make_picture(frame, 48, "crop", "bicubic", 0.9), expected)
    np.testing.assert_array_equal(make_picture(frame[:, ::-1], 48, "crop", "bicubic", 0.9)[:, ::-1], expected)
