"""Makes pictures smaller where their full size has no further use."""

from __future__ import annotations

from dataclasses import replace

import cv2

from sagelink.pipeline.types import Pixels, Verdict

WAITING_SIDE = 640  # pixels


def reduced(pixels: Pixels, max_side: int) -> Pixels:
    """The picture (H, W, 3), scaled down so that its longer side has at most `max_side` pixels."""
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return small


def with_small_picture(verdict: Verdict) -> Verdict:
    """The verdict, with at most WAITING_SIDE pixels a side of its frame: 30 frames/s of a camera wait for seconds where
    replies are late, and a frame of 1280 x 720 takes 2.8 MB."""
    frame, scored = verdict.frame, verdict.scored
    frame = replace(frame, pixels=reduced(frame.pixels, WAITING_SIDE))
    return replace(verdict, frame=frame, scored=None if scored is None else replace(scored, frame=frame))
