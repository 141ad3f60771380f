"""The raw-zstd codec: lossless, deterministic, and bounded for any payload."""

from __future__ import annotations

import contextlib
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.types import OperatingPoint
from sagelink.transport.codecs import Canvas, cut_units
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.envelope import MalformedMessage
from tests.fakes import CANVAS, make_picture

GOLDEN = Path(__file__).parents[1] / "golden"
POINT = OperatingPoint("raw-zstd", 0, 0, 0)


def compress(pixels: bytes, **parameters: int) -> bytes:
    """A payload made without the codec."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, **parameters
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(pixels)


def naive_cut(picture, units, patch_size):
    side = picture.shape[0] // patch_size
    cut = np.empty((len(units), patch_size, patch_size, 3), np.uint8)
    for k, unit in enumerate(units):
        top, left = int(unit) // side * patch_size, int(unit) % side * patch_size
        for y in range(patch_size):
            for x in range(patch_size):
                cut[k, y, x] = picture[top + y, left + x]
    return cut


@st.composite
def pictures(draw):
    side, patch_size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["noise", "flat", "ramp"]))
    picture = make_picture(side, patch_size, seed=draw(st.integers(0, 99)))
    if kind == "flat":
        picture[:] = draw(st.integers(0, 255))
    elif kind == "ramp":
        picture[:] = np.arange(side * patch_size)[:, None, None]
    units = draw(st.sets(st.integers(0, side**2 - 1), min_size=1))
    return picture, np.array(sorted(units), np.intp), side, patch_size


@given(pictures())
def test_units_survive_exactly(case):
    picture, units, side, patch_size = case
    expected = naive_cut(picture, units, patch_size)
    assert (cut_units(picture, units, patch_size) == expected).all()
    codec, canvas = RawZstd(), Canvas(side, patch_size)
    decoded = codec.decode(codec.encode(picture, units, POINT, canvas), units, canvas)
    assert decoded.shape == expected.shape
    assert decoded.dtype == np.uint8
    assert (decoded == expected).all()


@pytest.mark.parametrize(("side", "patch_size"), [(14, 16), (64, 8), (8, 64), (1, 1)])
def test_whole_pictures_survive_exactly(side, patch_size):
    picture, units, codec = make_picture(side, patch_size), np.arange(side**2), RawZstd()
    canvas = Canvas(side, patch_size)
    decoded = codec.decode(codec.encode(picture, units, POINT, canvas), units, canvas)
    assert (decoded == naive_cut(picture, units, patch_size)).all()


def test_the_same_units_are_the_same_bytes():
    picture, units = make_picture(14, 16), np.arange(0, 196, 3)
    payloads = {
        codec.encode(picture.copy(), units, POINT, Canvas(14, 16)) for codec in (RawZstd(), RawZstd()) for _ in range(3)
    }
    assert len(payloads) == 1


def test_pixels_of_other_units_do_not_matter():
    picture, units = make_picture(), np.array([0, 5])
    other = picture.copy()
    other[:4, 8:] = 0
    assert RawZstd().encode(picture, units, POINT, CANVAS) == RawZstd().encode(other, units, POINT, CANVAS)


def test_the_golden_payload():
    units = np.array([0, 3, 5])
    pixels = RawZstd().decode((GOLDEN / "raw-zstd.bin").read_bytes(), units, Canvas(3, 2))
    expected = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3) * 7
    assert (pixels == expected).all()


SIZE = 3 * 4 * 4 * 3  # of the three units below
UNITS = np.array([0, 3, 5])


def decode(payload: bytes):
    return RawZstd().decode(payload, UNITS, CANVAS)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 2 * SIZE, 100 * SIZE])
def test_a_payload_of_another_size_is_malformed(size):
    with pytest.raises(MalformedMessage, match="does not unpack to the 144 bytes|zstd"):
        decode(compress(bytes(size)))


def test_a_payload_of_the_right_size_is_accepted():
    assert (decode(compress(bytes(range(SIZE)))).ravel() == np.arange(SIZE)).all()


def test_every_truncation_is_malformed():
    payload = RawZstd().encode(make_picture(), UNITS, POINT, CANVAS)
    for length in range(len(payload)):
        with pytest.raises(MalformedMessage):
            decode(payload[:length])


@pytest.mark.parametrize(
    "garbage",
    [b"\0", b"\xff", b"garbage", b"\0" * 1000, compress(b""), compress(bytes(SIZE))],
    ids=["zero", "ff", "words", "zeros", "empty frame", "frame"],
)
def test_bytes_after_the_pixels_are_malformed(garbage):
    with pytest.raises(MalformedMessage):
        decode(RawZstd().encode(make_picture(), UNITS, POINT, CANVAS) + garbage)


@given(st.binary(max_size=400))
def test_any_bytes_are_units_or_malformed(payload):
    with contextlib.suppress(MalformedMessage):
        assert decode(payload).shape == (3, 4, 4, 3)


@given(position=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_is_units_or_malformed(position, value):
    payload = bytearray(RawZstd().encode(make_picture() // 64, UNITS, POINT, CANVAS))
    payload[position % len(payload)] ^= value
    with contextlib.suppress(MalformedMessage):
        assert decode(bytes(payload)).shape == (3, 4, 4, 3)


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """100 MB of zeros in less than half a MB, with a wide window and with one that a decoder may grant."""
    made = {}
    for name, window_log in (("wide", 27), ("narrow", 10)):
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, window_log=window_log
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        parts = [compressor.compress(bytes(10**6)) for _ in range(100)]
        made[name] = b"".join([*parts, compressor.flush()])
    return made


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_a_bomb_is_refused_within_bounded_memory(bombs, name):
    bomb = bombs[name]
    assert len(bomb) < 500_000
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 20_000  # kB: zstd's own memory


def test_a_window_beyond_the_pixels_is_refused():
    with pytest.raises(MalformedMessage, match="zstd"):
        decode(compress(np.random.default_rng(0).bytes(10**6), window_log=20))
