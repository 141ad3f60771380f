"""Pictures for the page. Each function blocks; the dashboard calls them in a thread of its own."""

from __future__ import annotations

import base64
import json
import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from sagelink.models.loading import UnitGrid
from sagelink.models.preprocess import Resize, view_box
from sagelink.pipeline.types import Box, Pixels, Verdict
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.wire import decode_evidence

_LONGEST = 640  # pixels
_QUALITY = 75  # of a live picture
_GREY = 127
_LIKENESS = 0.95  # of a pixel to the next
_NOISE = 1e-3  # of a token, as a share of its variance
_LENGTH = struct.Struct("!I")


def live_picture(number: int, verdict: Verdict, grid: UnitGrid, resize: Resize) -> bytes:
    """Length of the header (32 bits, big-endian), header (JSON), JPEG of the camera's frame.

    The header says which part of the picture the grid of what was sent lies on (`box`: left, top, right, bottom as
    shares) and which units were sent; on which part the grid of what the edge looked at lies (`seen`), and the
    importance of each of its units as a byte, 255 the highest.
    """
    height, width = verdict.frame.pixels.shape[:2]

    def on_picture(part: Box) -> Box:
        left, top, right, bottom = view_box(width, height, resize, grid.crop_pct, part)
        return left / width, top / height, right / width, bottom / height

    header = {
        "n": number,
        "camera": verdict.frame.camera,
        "box": on_picture(verdict.crop),
        "side": grid.side,
        "units": verdict.units.tolist(),
        "seen": None if verdict.scored is None else on_picture(verdict.scored.edge_view.crop),
        "importance": None if verdict.scored is None else heat(verdict.scored.importance),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    scale = min(1.0, _LONGEST / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: Pixels = cv2.resize(verdict.frame.pixels, size, interpolation=cv2.INTER_AREA)
    return _LENGTH.pack(len(text)) + text + jpeg(small, _QUALITY)


def heat(importance: NDArray[np.float32]) -> str:
    """Importance (N,) as base64 of one byte a unit. Square roots, so that more than the peak is seen."""
    scaled = np.sqrt(np.clip(importance, 0, None) / max(float(importance.max()), 1e-12))
    return base64.b64encode((scaled * 255).astype(np.uint8).tobytes()).decode()


def jpeg(pixels: Pixels, quality: int = 92) -> bytes:
    """RGB (H, W, 3) as JPEG."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok, "a JPEG of an uint8 picture always can be made"
    return data.tobytes()


def evidence_png(message: bytes, canvas: Canvas) -> bytes:
    """What the server decoded from a message: PNG (S, S), transparent where no unit came."""
    evidence = decode_evidence(message)
    content = codec_by_number(evidence.codec).decode(evidence.payload, evidence.units, canvas)
    patches = np.asarray(content if content.ndim == 4 else pixels_of(content.astype(np.float32), canvas))
    side, patch = canvas.side, canvas.patch_size
    picture = np.zeros((side, patch, side, patch, 4), np.uint8)
    rows, columns = np.divmod(evidence.units, side)
    picture[rows, :, columns, :, :3] = patches[..., ::-1]
    picture[rows, :, columns, :, 3] = 255
    ok, data = cv2.imencode(".png", picture.reshape(canvas.pixels, canvas.pixels, 4))
    assert ok, "a PNG of an uint8 picture always can be made"
    return data.tobytes()


def pixels_of(tokens: Tokens, canvas: Canvas) -> Patches:
    """The likeliest pixels (K, patch, patch, 3) that have these tokens, for pixels that resemble their neighbours.

    An embedding keeps fewer numbers than a patch has, so many patches have the same token. Taken is the mean of the
    normal distribution about grey whose correlation falls by _LIKENESS a pixel, given the tokens and a little noise.
    """
    embedding = canvas.embedding
    assert embedding is not None, "who sends tokens has the embedding"
    matrix, side = embedding.matrix.astype(np.float64), canvas.patch_size
    line = _LIKENESS ** np.abs(np.subtract.outer(range(side), range(side)))
    colours = np.full((3, 3), 0.8) + 0.2 * np.eye(3)
    shared = matrix.T @ np.kron(np.kron(line, line), colours)  # covariance of token and pixel
    noisy = shared @ matrix
    noisy += _NOISE * np.trace(noisy) / len(noisy) * np.eye(len(noisy))
    grey = np.full(len(matrix), _GREY)
    pixels = grey + np.linalg.solve(noisy, (tokens - embedding.bias - grey @ matrix).T).T @ shared
    shape = (len(tokens), side, side, 3)
    patches: Patches = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(shape)
    return patches
