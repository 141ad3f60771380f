"""The image codecs: round trips, rebuilt containers, and hostile payloads that must not reach a decoder."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.sources.world import render, sample_scene
from sagelink.transport.codecs import Canvas, av1, codec_by_name, cut_units, jpeg, vp8
from sagelink.transport.codecs.masking import masked
from sagelink.transport.envelope import MalformedMessage

CANVAS = Canvas(14, 16)
ALL = np.arange(196)
SOME = np.arange(0, 196, 3)
FORMATS = {"webp": vp8, "avif": av1, "jpeg": jpeg}
STRIPPED, WHOLE = ("webp", "avif"), ("webp-frame", "avif-frame", "jpeg-frame")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(3)
    return render(sample_scene(rng), 224, 224, 0.0, rng)


def point(name: str, units: np.ndarray, side: int = 224, quality: int = 60) -> OperatingPoint:
    return OperatingPoint(name, len(units), side, quality)


def encode(name: str, picture: np.ndarray, units: np.ndarray = ALL, side: int = 224, quality: int = 60) -> bytes:
    return codec_by_name(name).encode(picture, units, point(name, units, side, quality), CANVAS)


def decode(name: str, payload: bytes, units: np.ndarray = ALL, canvas: Canvas = CANVAS) -> np.ndarray:
    return codec_by_name(name).decode(payload, units, canvas)


def error(picture: np.ndarray, units: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.abs(cut_units(picture, units, 16).astype(int) - decoded).mean())


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
@pytest.mark.parametrize("side", [224, 160, 112])
def test_a_whole_picture_survives_with_a_small_error(name, side, picture):
    decoded = decode(name, encode(name, picture, side=side))
    assert decoded.shape == (196, 16, 16, 3)
    assert decoded.dtype == np.uint8
    assert error(picture, ALL, decoded) < 6


@pytest.mark.parametrize("name", STRIPPED)
def test_selected_units_survive_and_the_others_cost_little(name, picture):
    payload = encode(name, picture, SOME)
    assert error(picture, SOME, decode(name, payload, SOME)) < 8
    assert len(payload) < len(encode(name, picture))


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
def test_quality_sets_the_size_and_coding_is_deterministic(name, picture):
    sizes = [len(encode(name, picture, quality=quality)) for quality in (10, 50, 90)]
    assert sizes == sorted(set(sizes))
    assert encode(name, picture.copy()) == encode(name, picture)


@pytest.mark.parametrize("name", STRIPPED[1:] + WHOLE[1:2])
def test_the_header_of_an_older_libavif_is_known(name, picture, monkeypatch):
    ours = encode(name, picture)
    coded = av1.encode

    def without_colours(image, quality):
        """The file as libavif 1.3 writes it (Pillow 11.3 to 12.1): the sequence header does not describe colours."""
        width, height, core = av1.strip(coded(image, quality))
        sequence = av1._sequence(width, height, core[0], av1._KNOWN_COLOURS[1])
        units = av1._obu(av1._SEQUENCE, sequence) + av1._obu(av1._FRAME, core[1:])
        return av1._container(width, height, units)

    monkeypatch.setattr(av1, "encode", without_colours)
    theirs = encode(name, picture)
    assert (theirs == ours) == (name == "avif")  # only a whole file still has its header
    assert decode(name, theirs).tobytes() == decode(name, ours).tobytes()


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_frame_is_a_readable_file(name, picture):
    with Image.open(io.BytesIO(encode(name, picture, side=160))) as image:
        assert image.format is not None
        assert name == f"{image.format.lower()}-frame"
        assert image.size == (160, 160)


@pytest.mark.parametrize("name", ["webp", "avif"])
@pytest.mark.parametrize("side", [16, 40, 112, 224, 512])
def test_a_rebuilt_container_holds_the_same_picture(name, side, picture):
    file = FORMATS[name].encode(Image.fromarray(picture).resize((side, side)), 50)
    width, height, core = FORMATS[name].strip(file)
    again = FORMATS[name].rebuild(width, height, core)
    assert width == height == side
    assert len(core) <= len(file) - {"webp": 27, "avif": 285}[name]
    one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (file, again))
    assert (one == other).all()


def test_the_rebuilt_webp_file_is_the_same_bytes(picture):
    file = vp8.encode(Image.fromarray(picture), 30)
    assert vp8.rebuild(*vp8.strip(file)) == file


def test_blank_units_take_colours_from_the_selected_ones(picture):
    selected = np.array([0, 100])
    mask = np.zeros((14, 14), bool)
    mask.flat[selected] = True
    blanked = masked(picture, mask, 16)
    assert (cut_units(blanked, selected, 16) == cut_units(picture, selected, 16)).all()
    others = cut_units(blanked, np.setdiff1d(ALL, selected), 16)
    assert (others == others[:, :1, :1]).all()
    means = cut_units(picture, selected, 16).mean((1, 2))
    assert (others >= np.floor(means.min(0))).all()
    assert (others <= np.ceil(means.max(0))).all()
    assert masked(picture, np.ones((14, 14), bool), 16) is picture


WINDOWS = {"wide": (3, 5, 4, 14), "tall": (0, 14, 11, 14), "one": (6, 7, 6, 7), "corner": (9, 14, 0, 8)}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("name", STRIPPED)
@pytest.mark.parametrize("side", [224, 160, 96, 16])
def test_a_rectangle_is_encoded_as_a_separate_picture(name, side, window, picture):
    top, bottom, left, right = window
    units = (np.arange(top, bottom)[:, None] * 14 + np.arange(left, right)).ravel()
    payload = encode(name, picture, units, side, quality=70)
    decoded = decode(name, payload, units)
    assert decoded.shape == (len(units), 16, 16, 3)
    if side > 16:
        assert error(picture, units, decoded) < 12
    assert len(payload) < len(encode(name, picture, side=side, quality=70))
    # Pixels outside the rectangle do not matter.
    other = np.zeros_like(picture)
    other[16 * top : 16 * bottom, 16 * left : 16 * right] = picture[16 * top : 16 * bottom, 16 * left : 16 * right]
    assert encode(name, other, units, side, quality=70) == payload


# Hostile payloads


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
def test_a_picture_larger_than_the_canvas_is_refused(name, picture):
    payload = encode(name, picture, side=224)
    if name in STRIPPED:
        payload = bytes([255]) + payload[1:]  # 2040 pixels
    small = Canvas(14, 8)
    with pytest.raises(MalformedMessage, match=r"accepted: up to (112x112|224x224)"):
        decode(name, payload, canvas=CANVAS if name in STRIPPED else small)


def test_a_webp_of_16383_pixels_is_refused_before_it_is_decoded(picture):
    file = bytearray(encode("webp-frame", picture))
    struct.pack_into("<HH", file, 26, 16383, 16383)
    with pytest.raises(MalformedMessage, match="16383x16383 pixels; accepted: up to 224x224"):
        decode("webp-frame", bytes(file))
    struct.pack_into("<HH", file, 26, 224, 16)
    with pytest.raises(MalformedMessage, match="224x16 pixels is not square"):
        decode("webp-frame", bytes(file))


def test_an_avif_whose_frame_is_larger_than_its_container_says_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(file, "AVIF", speed=9, range="full", max_threads=1)
    lying = file.getvalue().replace(struct.pack(">II", 1024, 1024), struct.pack(">II", 224, 224))
    assert lying != file.getvalue()
    with pytest.raises(MalformedMessage, match="1024x1024 pixels"):
        decode("avif-frame", lying)


@pytest.mark.parametrize("options", [{"subsampling": "4:4:4"}, {"range": "limited"}, {"subsampling": "4:0:0"}])
def test_an_avif_of_another_kind_is_refused(options):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "AVIF", **{"range": "full", "subsampling": "4:2:0"} | options)
    with pytest.raises(MalformedMessage, match="sequence header"):
        decode("avif-frame", file.getvalue())


def test_super_resolution_is_refused(picture):
    payload = bytearray(encode("avif", picture))
    payload[1] |= 0b000100
    with pytest.raises(MalformedMessage, match="tools"):
        decode("avif", bytes(payload))


def test_a_progressive_jpeg_is_refused(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", progressive=True)
    with pytest.raises(MalformedMessage, match="baseline"):
        decode("jpeg-frame", file.getvalue())


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_frame_with_some_units_is_refused(name, picture):
    with pytest.raises(MalformedMessage, match="a whole frame with 66 of 196 units"):
        decode(name, encode(name, picture), SOME)


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
def test_a_payload_far_larger_than_the_picture_is_refused(name, picture):
    with pytest.raises(MalformedMessage):
        decode(name, encode(name, picture, quality=20) + bytes(200_000))


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
def test_every_short_payload_is_units_or_malformed(name, picture):
    payload = encode(name, picture, quality=5, side=112)
    for length in [*range(0, len(payload), 7), 0, 1, 2]:
        with contextlib.suppress(MalformedMessage):
            assert decode(name, payload[:length]).shape == (196, 16, 16, 3)
    with pytest.raises(MalformedMessage):
        decode(name, b"")


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6))
def test_a_damaged_payload_is_units_or_malformed(name, picture, flips):
    payload = bytearray(encode(name, picture, quality=5, side=80))
    for position, value in flips:
        payload[position % len(payload)] ^= value
    with contextlib.suppress(MalformedMessage):
        assert decode(name, bytes(payload)).shape == (196, 16, 16, 3)


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE])
@given(payload=st.binary(max_size=300))
def test_any_bytes_are_units_or_malformed(name, payload):
    with contextlib.suppress(MalformedMessage):
        assert decode(name, payload).shape == (196, 16, 16, 3)
