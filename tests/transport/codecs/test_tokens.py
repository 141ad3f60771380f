"""The token codec: close to the model's own embedding, and valid only for the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import OperatingPoint
from sagelink.transport.codecs import Canvas, cut_units
from sagelink.transport.codecs.tokens import BITS, TokenZstd
from sagelink.transport.codecs.zstd import compress
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.patch_embedding import HASH_BYTES, Embedding
from tests.fakes import make_picture

WIDTH = 24
UNITS = np.array([0, 3, 5, 9])


def make_embedding(seed: int = 0) -> Embedding:
    rng = np.random.default_rng(seed)
    return Embedding(rng.normal(0, 0.01, (48, WIDTH)).astype(np.float32), rng.normal(0, 1, WIDTH).astype(np.float32))


CANVAS = Canvas(4, 4, make_embedding())


def point(bits: int) -> OperatingPoint:
    return OperatingPoint("token-zstd", len(UNITS), 16, bits)


def test_more_bits_give_smaller_errors():
    picture = make_picture()
    exact = CANVAS.embedding.tokens(cut_units(picture, UNITS, 4))
    errors, sizes = [], []
    for bits in BITS:
        payload = TokenZstd().encode(picture, UNITS, point(bits), CANVAS)
        tokens = TokenZstd().decode(payload, UNITS, CANVAS)
        assert tokens.shape == (4, WIDTH)
        assert tokens.dtype == np.float32
        # half a step of each channel, whose scale is at most an eighth of an octave too wide
        step = np.abs(exact).max(0) / (2 ** (bits - 1) - 1) * 2 ** (1 / 8)
        assert (np.abs(tokens - exact) <= step / 2 + 1e-4).all()
        errors.append(float(np.abs(tokens - exact).mean()))
        sizes.append(len(payload))
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


def test_tokens_of_other_weights_are_refused():
    payload = TokenZstd().encode(make_picture(), UNITS, point(6), CANVAS)
    with pytest.raises(MalformedMessage, match="another model's patch embedding"):
        TokenZstd().decode(payload, UNITS, Canvas(4, 4, make_embedding(seed=1)))
    with pytest.raises(MalformedMessage, match="takes no tokens"):
        TokenZstd().decode(payload, UNITS, Canvas(4, 4))


def test_an_edge_without_the_embedding_gets_an_error():
    with pytest.raises(UsageError, match="needs the server model's patch embedding"):
        TokenZstd().encode(make_picture(), UNITS, point(6), Canvas(4, 4))
    with pytest.raises(UsageError, match="no quality 5; accepted: 4, 6, 8 bits"):
        TokenZstd().encode(make_picture(), UNITS, point(5), CANVAS)


@pytest.mark.parametrize("size", [0, WIDTH, WIDTH * 5 - 1, WIDTH * 5 + 1, 10**6])
def test_another_number_of_levels_is_malformed(size):
    with pytest.raises(MalformedMessage):
        TokenZstd().decode(CANVAS.embedding.digest + compress(bytes(size)), UNITS, CANVAS)


@given(st.binary(min_size=WIDTH * 5, max_size=WIDTH * 5))
def test_any_levels_are_finite(content):
    tokens = TokenZstd().decode(CANVAS.embedding.digest + compress(content), UNITS, CANVAS)
    assert np.isfinite(tokens).all()


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed(payload):
    with pytest.raises(MalformedMessage):
        TokenZstd().decode(payload, UNITS, CANVAS)
    with pytest.raises(MalformedMessage):
        TokenZstd().decode(CANVAS.embedding.digest[:HASH_BYTES] + payload, UNITS, CANVAS)
