"""Converts decoded frames to pictures: RGB, upright, and at most MAX_SIDE pixels per side."""

from __future__ import annotations

import av
import cv2
import numpy as np

from sagelink.pipeline.types import Pixels

MAX_SIDE = 4096  # pixels; larger pictures are scaled down, during decoding where the format allows it


def within_max(width: int, height: int) -> tuple[int, int]:
    """Width and height, scaled down so that neither exceeds MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))


def fitted(pixels: Pixels) -> Pixels:
    """The picture (H, W, 3), scaled down where a side exceeds MAX_SIDE."""
    height, width = pixels.shape[:2]
    size = within_max(width, height)
    return pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def upright(frame: av.VideoFrame) -> Pixels:
    """RGB (H, W, 3), rotated by the display matrix (phones write one), no side longer than MAX_SIDE."""
    size = within_max(frame.width, frame.height)
    pixels: Pixels = frame.reformat(*size, format="rgb24").to_ndarray()  # type: ignore[assignment]  # rgb24 is uint8
    turns = round(frame.rotation / 90) % 4  # degrees, counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
