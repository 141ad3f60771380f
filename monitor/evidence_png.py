"""Encodes evidence as PNG, as the server decoded it. Each function blocks."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sagelink.pipeline.types import Units
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.evidence_message import decode_evidence

_GREY = 127
_CORRELATION = 0.95  # of neighbouring pixels
_NOISE = 1e-3  # variance of the noise, as a share of the mean variance of a token


def evidence_png(message: bytes, canvas: Canvas) -> bytes:
    """The picture that the server decodes from a message: see `units_png`."""
    evidence = decode_evidence(message)
    content = codec_by_number(evidence.codec).decode(evidence.payload, evidence.units, canvas)
    return units_png(evidence.units, content, canvas)


def units_png(units: Units, content: Patches | Tokens, canvas: Canvas, transparent: bool = True) -> bytes:
    """Decoded units (K,) as PNG (S, S), transparent or grey where no unit was sent."""
    patches = np.asarray(content if content.ndim == 4 else pixels_of(content.astype(np.float32), canvas))
    side, patch = canvas.side, canvas.patch_size
    picture = np.zeros((side, patch, side, patch, 4), np.uint8)
    rows, columns = np.divmod(units, side)
    picture[rows, :, columns, :, :3] = patches
    picture[rows, :, columns, :, 3] = 255
    whole = picture.reshape(canvas.pixels, canvas.pixels, 4)
    if not transparent:
        whole = np.where(whole[..., 3:] > 0, whole[..., :3], np.uint8(_GREY))
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "PNG", compress_level=1)
    return file.getvalue()


def pixels_of(tokens: Tokens, canvas: Canvas) -> Patches:
    """The most likely pixels (K, patch, patch, 3) uint8 for tokens (K, D), given that pixels resemble their neighbours.

    A token has fewer numbers than its patch, so many patches share one token. The result is the mean of a normal
    distribution around grey, with correlation _CORRELATION per pixel of distance, given the tokens and a little noise.
    """
    embedding = canvas.embedding
    assert embedding is not None, "a sender of tokens has the embedding"
    matrix, side = embedding.matrix.astype(np.float64), canvas.patch_size
    line = _CORRELATION ** np.abs(np.subtract.outer(range(side), range(side)))
    colours = np.full((3, 3), 0.8) + 0.2 * np.eye(3)
    shared = matrix.T @ np.kron(np.kron(line, line), colours)  # covariance of token and pixel
    noisy = shared @ matrix
    noisy += _NOISE * np.trace(noisy) / len(noisy) * np.eye(len(noisy))
    grey = np.full(len(matrix), _GREY)
    pixels = grey + np.linalg.solve(noisy, (tokens - embedding.bias - grey @ matrix).T).T @ shared
    shape = (len(tokens), side, side, 3)
    patches: Patches = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(shape)
    return patches
