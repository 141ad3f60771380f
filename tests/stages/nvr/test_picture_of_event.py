"""Pictures of events: decoding, and the cut around the object where the whole picture came."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.stages.nvr.picture_of_event import cut_to_object, decode_picture
from tests.frigate import coded, object_picture


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_still_pictures_are_decoded(form):
    pixels = decode_picture(coded(object_picture(1, side=64), form))
    assert pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff\xe0 cut", coded(object_picture(1))[:200]])
def test_others_raise_an_error(data):
    with pytest.raises(OSError, match=r"."):
        decode_picture(data)


def test_text_is_no_picture():
    with pytest.raises(OSError, match="^not a picture$"):
        decode_picture(b"<html>login</html>")


def whole() -> np.ndarray:
    pixels = np.zeros((720, 1280, 3), np.uint8)
    pixels[100:150, 1200:1260] = 255
    return pixels


def test_a_whole_picture_is_cut_to_a_square_around_the_object():
    cut = cut_to_object(whole(), (1200, 100, 1260, 150))
    assert cut.shape == (300, 300, 3)
    assert (cut == 255).sum() == 3 * 50 * 60
    fractions = (1200 / 1280, 100 / 720, 1260 / 1280, 150 / 720)
    assert np.array_equal(cut_to_object(whole(), fractions), cut)


@pytest.mark.parametrize("box", [None, (500, 100, 560, 150), (0, 0, 0, 0), (10, 10, 5, 20)])
def test_a_crop_stays_as_it_is(box):
    crop = object_picture(1)
    assert cut_to_object(crop, box) is crop
