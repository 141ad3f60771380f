"""Image files in every form that Pillow reads: levels, transparency, orientation, and links between folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.orientation import EXIF_TAG
from sagelink.stages.sources.image_file import find_images, is_still_image, read_image
from sagelink.stages.sources.open import open_source
from tests.stages.picture_forms import quarters, seen, write_quarters
from tests.stages.test_decoded_picture import SEEN

RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)  # (4, 256), black to white


def saved(path: Path, image: Image.Image, **options: object) -> Pixels:
    image.save(path, **options)
    return read_image(path)


def ramp(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_a_ramp(tmp_path: Path, suffix: str) -> None:
    picture = saved(tmp_path / f"a.{suffix}", ramp((RAMP * 65535).astype(np.uint16)))
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture[0, :, 0], np.arange(256), atol=1)
    assert (picture[..., 0] == picture[..., 2]).all()


def test_grey_of_16_bits_keeps_its_level(tmp_path: Path) -> None:
    """A dark picture stays dark: its range is that of its type, not of its content."""
    assert saved(tmp_path / "a.png", ramp(np.full((4, 4), 6554, np.uint16))).max() == 26


@pytest.mark.parametrize("top", [1, 255, 65535, 70000.0])
def test_float_tiffs_are_ramps(tmp_path: Path, top: float) -> None:
    picture = saved(tmp_path / "a.tif", ramp((RAMP * top).astype(np.float32)))
    np.testing.assert_allclose(picture[0, :, 0], np.arange(256), atol=1)


@pytest.mark.parametrize("top", [255, 65535, 2**31 - 1])
def test_integer_tiffs_of_32_bits_are_ramps(tmp_path: Path, top: int) -> None:
    picture = saved(tmp_path / "a.tif", ramp((RAMP * top).astype(np.int32)))
    np.testing.assert_allclose(picture[0, :, 0], np.arange(256), atol=1)


def test_numbers_that_are_not_finite_are_black_or_white(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -3, 0.5, 1]], np.float32)
    assert saved(tmp_path / "a.tif", ramp(values))[0, :, 0].tolist() == [0, 255, 0, 0, 128, 255]
    assert saved(tmp_path / "b.tif", ramp(np.full((2, 2), np.nan, np.float32))).max() == 0


def noise_under(alpha: np.ndarray) -> np.ndarray:
    """RGBA noise (H, W, 4) with this alpha."""
    rgba = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 4), np.uint8)
    rgba[..., 3] = alpha
    return rgba


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "avif"])
def test_hidden_colours_are_not_seen(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(noise_under(np.zeros((32, 32), np.uint8)))
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    assert saved(tmp_path / f"a.{suffix}", image, **options).min() == 255


def test_hidden_colours_do_not_bleed_when_a_large_image_is_scaled_down(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8192, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:, ::2] = (0, 0, 255, 255)  # visible blue between hidden red
    picture = saved(tmp_path / "a.png", Image.fromarray(rgba))
    assert picture.shape[1] == 4096
    assert picture[..., 2].min() > 250
    np.testing.assert_allclose(picture[..., 0], picture[..., 1], atol=2)  # white and blue, no red


@pytest.mark.parametrize("mode", ["LA", "P", "grey key", "colour key", "16-bit key"])
def test_every_kind_of_transparency_is_over_white(tmp_path: Path, mode: str) -> None:
    path, half = tmp_path / "a.png", np.zeros((8, 8), np.uint8)
    half[:, 4:] = 255
    if mode == "LA":
        image = Image.merge("LA", (Image.new("L", (8, 8), 30), Image.fromarray(half)))
        picture = saved(path, image)
    elif mode == "P":
        image = Image.fromarray((half > 0).astype(np.uint8), "L").convert("P")
        image.putpalette([200, 10, 10, 30, 30, 30])
        picture = saved(path, image, transparency=0)
    elif mode == "grey key":
        picture = saved(path, Image.fromarray(np.where(half > 0, 30, 7).astype(np.uint8)), transparency=7)
    elif mode == "colour key":
        image = Image.fromarray(np.where(half[..., None] > 0, 30, np.array([9, 8, 7])).astype(np.uint8))
        picture = saved(path, image, transparency=(9, 8, 7))
    else:
        picture = saved(path, Image.fromarray(np.where(half > 0, 30 * 257, 7).astype(np.uint16)), transparency=7)
    assert (picture[:, :4] == 255).all()
    assert (picture[:, 4:] == 30).all()


WHITE = {"1": 1, "L": 255, "CMYK": (0, 0, 0, 0), "YCbCr": (255, 128, 128), "LAB": (255, 128, 128)}


@pytest.mark.parametrize("mode", WHITE)
def test_white_of_other_modes_is_white(tmp_path: Path, mode: str) -> None:
    picture = saved(tmp_path / "a.tif", Image.new(mode, (8, 8), WHITE[mode]))
    assert picture.shape == (8, 8, 3)
    assert picture.min() > 250


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_a_folder_and_as_a_file(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_TAG] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(quarters()).save(path, exif=exif)
    for source in (tmp_path, path):
        (frame,) = open_source(CameraConfig(name="camera", source=str(source)))
        assert (frame.name, frame.stream_s) == (path.name, 0)
        assert seen(frame.pixels) == SEEN[orientation]


def test_a_broken_image_as_a_file_is_refused_and_an_animation_is_a_video(tmp_path: Path) -> None:
    write_quarters(tmp_path / "clip.mp4").rename(tmp_path / "clip.png")
    frames = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=100)
    assert not is_still_image(tmp_path / "clip.png")
    assert not is_still_image(tmp_path / "a.png")
    assert len(list(open_source(CameraConfig(name="camera", source=str(tmp_path / "a.png"))))) == 3


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "disk" / "deep" / "b.png")
    touch(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "today").symlink_to("../disk")
    (tmp_path / "photos" / "c.png").symlink_to("a.png")
    (tmp_path / "photos" / "gone").symlink_to("nowhere")
    assert names(tmp_path / "photos") == ["a.png", "c.png", "today/deep/b.png"]
    frames = open_source(CameraConfig(name="camera", source=str(tmp_path / "photos")))
    assert [frame.name for frame in frames] == names(tmp_path / "photos")


def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "a.png")
    touch(tmp_path / "b" / "b.png")
    for name, target in (("a/up", ".."), ("a/self", "."), ("a/b", "../b"), ("b/a", "../a"), ("b/again", "../a")):
        (tmp_path / name).symlink_to(target)
    assert names(tmp_path) == ["a/a.png", "b/b.png"]  # each once, under its own path
    assert names(tmp_path / "a") == ["a.png", "b/b.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path, caplog) -> None:
    touch(tmp_path / "a.png")
    (tmp_path / "locked").mkdir(mode=0)
    assert names(tmp_path) == ["a.png"]
    assert "locked" in caplog.text


def test_an_image_that_claims_to_be_huge_is_refused_without_decoding(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(UsageError, match=r"image .*a\.png' cannot be read"):
        open_source(CameraConfig(name="camera", source=str(tmp_path / "a.png")))
