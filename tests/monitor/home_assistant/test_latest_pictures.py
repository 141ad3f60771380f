"""The newest frame of each camera, for Home Assistant."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from sagelink.monitor.home_assistant.latest_pictures import LatestPictures
from sagelink.pipeline.types import FrameEvent, Verdict
from tests.monitor.dashboard.test_verdict_feed import verdict_of


def verdict_with(grey: int) -> Verdict:
    verdict = verdict_of(0)
    pixels = np.full((720, 1280, 3), grey, np.uint8)
    return replace(verdict, frame=replace(verdict.frame, camera="gate", pixels=pixels))


def test_one_small_picture_of_a_camera_every_few_seconds():
    now_s = 0.0
    pictures = LatestPictures(5.0, lambda: now_s)
    assert pictures.all() == {}
    shown = []
    for now_s in (0.0, 4.9, 5.0):
        pictures.write(verdict_with(int(40 * now_s)))
        picture = Image.open(io.BytesIO(pictures.all()["gate"]))
        shown.append((picture.size, picture.getpixel((9, 9))[0]))
    assert shown == [((640, 360), 0), ((640, 360), 0), ((640, 360), 200)]


def test_a_private_frame_is_left_out():
    pictures, verdict = LatestPictures(5.0, lambda: 0.0), verdict_with(9)
    event = FrameEvent("a", "yard", "person", private=True)
    pictures.write(replace(verdict, frame=replace(verdict.frame, event=event)))
    assert pictures.all() == {}
