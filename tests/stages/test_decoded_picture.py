"""Frames of videos as pictures: upright, opaque, with square pixels, and in the right colours."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Pixels
from sagelink.stages.decoded_picture import BACKGROUND, FrameConverter, opaque, square_size
from sagelink.stages.sources.open import open_source
from tests.stages.picture_forms import SIZE, seen, with_colour_matrix, with_display_matrix, write_quarters
from tests.stages.test_orientation import MATRICES

SEEN = {1: "RGBW", 2: "GRWB", 3: "WBGR", 4: "BWRG", 5: "RBGW", 6: "BRWG", 7: "WGBR", 8: "GWRB"}


def pictures(path: Path) -> list[Pixels]:
    source = open_source(CameraConfig(name="camera", source=str(path)))
    found = [frame.pixels for frame in source]
    assert source.skipped == 0
    return found


@pytest.mark.parametrize(("linear", "orientation"), MATRICES.items())
def test_a_video_is_turned_and_mirrored_by_its_display_matrix(
    tmp_path: Path, linear: tuple[int, int, int, int], orientation: int
) -> None:
    found = pictures(with_display_matrix(write_quarters(tmp_path / "a.mp4"), linear))
    assert seen(found[0]) == SEEN[orientation]
    assert found[0].shape[:2] == (SIZE if orientation >= 5 else SIZE[::-1])


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 11), (140, 64)),
        (Fraction(1, 2), (48, 64)),
        (Fraction(1, 20), SIZE),  # no camera has such pixels
        (Fraction(20, 1), SIZE),
    ],
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int], caplog) -> None:
    path = tmp_path / "a.mkv"
    (picture, *_) = pictures(write_quarters(path, aspect=aspect))
    assert picture.shape[1::-1] == size
    assert seen(picture) == "RGBW"
    assert caplog.text.count("pixel_aspect_ignored") == (size == SIZE)


def test_a_decoded_frame_is_released_when_its_picture_is_made(tmp_path: Path) -> None:
    def decoded_frames() -> int:
        return sum(type(each) is av.VideoFrame for each in gc.get_objects())

    with av.open(str(with_display_matrix(write_quarters(tmp_path / "a.mp4"), next(iter(MATRICES))))) as container:
        stream = container.streams.video[0]
        convert = FrameConverter("a", stream)
        gc.collect()
        gc.disable()  # which would find circles, at some time
        try:
            before = decoded_frames()
            assert len([convert(frame).shape for frame in container.decode(stream)]) > 2
            assert decoded_frames() <= before + 1  # the decoder has an empty one
        finally:
            gc.enable()


def test_square_sizes_are_bounded() -> None:
    assert square_size(4096, 100, Fraction(4)) == (4096, 25)
    assert square_size(192, 128, None) == square_size(192, 128, Fraction(0)) == (192, 128)


def test_the_aspect_applies_to_the_stored_picture(tmp_path: Path) -> None:
    path = write_quarters(tmp_path / "a.mp4", aspect=Fraction(2))
    (picture, *_) = pictures(with_display_matrix(path, (0, 1, -1, 0)))
    assert picture.shape[:2] == (2 * SIZE[0], SIZE[1])


@pytest.mark.parametrize("number", [0, 3, 4, 7, 8, *range(10, 18)])
def test_a_rare_colour_matrix_gives_colours_and_one_warning(tmp_path: Path, number: int, caplog) -> None:
    path = with_colour_matrix(write_quarters(tmp_path / "a.mp4"), number, tmp_path / "b.mp4")
    found = pictures(path)
    assert [seen(picture) for picture in found] == ["RGBW"] * 5
    assert caplog.text.count("event=colour_matrix_unknown") == (number == 8 or number >= 10)


def test_the_matrix_may_change_in_the_middle(tmp_path: Path, caplog) -> None:
    usual = write_quarters(tmp_path / "a.ts")
    other = with_colour_matrix(usual, 8, tmp_path / "b.ts")
    joined = tmp_path / "c.ts"
    joined.write_bytes(usual.read_bytes() + other.read_bytes() + usual.read_bytes())
    assert {seen(picture) for picture in pictures(joined)} == {"RGBW"}
    assert caplog.text.count("event=colour_matrix_unknown") == 1


def test_a_frame_that_cannot_be_converted_is_skipped_and_counted(tmp_path: Path, monkeypatch) -> None:
    source = open_source(CameraConfig(name="camera", source=str(write_quarters(tmp_path / "a.mp4"))))
    monkeypatch.setattr(FrameConverter, "__call__", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    assert len(list(source)) == 1  # the one that was read when the file was opened
    assert source.skipped == 4


@pytest.mark.parametrize("depth", ["yuv420p10le", "yuv444p", "yuv422p", "gray", "gray10le"])
def test_rare_pixel_formats(tmp_path: Path, depth: str) -> None:
    codec = {"gray10le": "ffv1"}.get(depth, "libx264")
    (picture, *_) = pictures(write_quarters(tmp_path / "a.mkv", codec=codec, pixel_format=depth))
    if depth.startswith("gray"):
        assert picture[-8, -8].min() > 225
        assert picture[-8, 8].max() < 60
    else:
        assert seen(picture) == "RGBW"


@pytest.mark.parametrize("pixel_format", ["rgba", "gbrap", "yuva444p", "bgra"])
def test_hidden_colours_of_a_frame_are_not_seen(pixel_format: str) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    rgba[:, :16, 3] = 0
    rgba[:, 16:] = (220, 0, 0, 255)
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixel_format)
    picture = FrameConverter("clip")(frame)
    assert picture[:, :15].min() >= 254
    assert seen(picture)[1] == "R"


def test_opaque_is_exact() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    assert opaque(rgba).tolist() == [[[10, 20, 30], [BACKGROUND] * 3, [127] * 3]]
