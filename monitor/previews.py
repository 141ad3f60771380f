"""Encodes pictures for the dashboard: live pictures, heat maps, and the evidence as the server decoded it.

Each function blocks; the dashboard calls them in a separate thread.
"""

from __future__ import annotations

import base64
import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from sagelink.models.loading import UnitGrid
from sagelink.models.preprocess import Resize, view_box
from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.types import Box, Pixels, Units, Verdict
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.wire import decode_evidence

_MAX_SIDE = 640  # pixels
_SMALL = 150  # pixels
_QUALITY = 75  # of a live picture
_GREY = 127
_CORRELATION = 0.95  # of neighbouring pixels
_NOISE = 1e-3  # variance of the noise, as a share of the mean variance of a token
_LENGTH = struct.Struct("!I")


def live_picture(number: int, verdict: Verdict, grid: UnitGrid, resize: Resize) -> bytes:
    """Binary message for the page: length of the header (32 bits, big-endian), header (JSON), JPEG of the frame.

    Keys of the header: `n`, `camera`, `seq`; `box`, the box of the sent grid (left, top, right, bottom as shares of the
    picture); `side`, units per side; `units`, those sent; `edge_box`, the box of the grid that the edge scored;
    `importance`, see `heat`.
    """
    height, width = verdict.frame.pixels.shape[:2]

    def on_picture(part: Box) -> Box:
        left, top, right, bottom = view_box(width, height, resize, grid.crop_pct, part)
        return left / width, top / height, right / width, bottom / height

    header = {
        "n": number,
        "camera": verdict.frame.camera,
        "seq": verdict.frame.seq,
        "box": on_picture(verdict.crop),
        "side": grid.side,
        "units": verdict.units.tolist(),
        "edge_box": None if verdict.scored is None else on_picture(verdict.scored.edge_view.crop),
        "importance": None if verdict.scored is None else heat(verdict.scored.importance),
    }
    text = to_json(header, compact=True).encode()
    return _LENGTH.pack(len(text)) + text + jpeg(scaled(verdict.frame.pixels, _MAX_SIDE), _QUALITY)


def scaled(pixels: Pixels, max_side: int) -> Pixels:
    """A picture (H, W, 3) whose longer side has at most `max_side` pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return small


def heat(importance: NDArray[np.float32]) -> str:
    """Importance (N,) as base64 of one byte per unit, 255 the highest. Square roots make low values visible."""
    scaled = np.sqrt(np.clip(importance, 0, None) / max(float(importance.max()), 1e-12))
    return base64.b64encode((scaled * 255).astype(np.uint8).tobytes()).decode()


def jpeg(pixels: Pixels, quality: int = 92) -> bytes:
    """RGB uint8 (H, W, 3) as JPEG."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok, "a JPEG of an uint8 picture can always be encoded"
    return data.tobytes()


def small_jpeg(picture: bytes) -> bytes:
    """A JPEG scaled to a height of _SMALL pixels."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    assert pixels is not None, "a JPEG that was coded here can be decoded"
    width = max(1, round(pixels.shape[1] * _SMALL / pixels.shape[0]))
    ok, data = cv2.imencode(".jpg", cv2.resize(pixels, (width, _SMALL), interpolation=cv2.INTER_AREA))
    assert ok, "a JPEG of an uint8 picture can always be encoded"
    return data.tobytes()


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
    picture[rows, :, columns, :, :3] = patches[..., ::-1]
    picture[rows, :, columns, :, 3] = 255
    whole = picture.reshape(canvas.pixels, canvas.pixels, 4)
    if not transparent:
        whole = np.where(whole[..., 3:] > 0, whole[..., :3], np.uint8(_GREY))
    ok, data = cv2.imencode(".png", whole)
    assert ok, "a PNG of an uint8 picture can always be encoded"
    return data.tobytes()


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
