"""Pictures for the page. Each function blocks; the dashboard calls them in a thread of its own."""

from __future__ import annotations

import base64
import json
import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from models.picture import Resize, view_box
from models.zoo import UnitGrid
from pipeline.types import Pixels, Verdict
from transport.codecs import Canvas, Patches, Tokens, codec_by_number
from transport.wire import decode_evidence

_LONGEST = 640  # pixels
_QUALITY = 75  # of a live picture
_GREY = 127
_LENGTH = struct.Struct("!I")


def live_picture(number: int, verdict: Verdict, grid: UnitGrid, resize: Resize) -> bytes:
    """Length of the header (32 bits, big-endian), header (JSON), JPEG of the camera's frame.

    The header says which part of the picture the unit grid lies on (`box`: left, top, right, bottom as shares), which
    units were sent, and the importance of each as a byte, 255 the highest.
    """
    height, width = verdict.frame.pixels.shape[:2]
    left, top, right, bottom = view_box(width, height, resize, grid.crop_pct)
    header = {
        "n": number,
        "camera": verdict.frame.camera,
        "box": [left / width, top / height, right / width, bottom / height],
        "side": grid.side,
        "units": verdict.units.tolist(),
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
    """The pixels (K, patch, patch, 3) nearest to grey that have these tokens: the part that the embedding keeps."""
    embedding = canvas.embedding
    assert embedding is not None, "who sends tokens has the embedding"
    grey = np.full(len(embedding.matrix), _GREY, np.float32)
    beyond = tokens - embedding.bias - grey @ embedding.matrix
    pixels = grey + np.linalg.lstsq(embedding.matrix.T, beyond.T, rcond=1e-4)[0].T
    shape = (len(tokens), canvas.patch_size, canvas.patch_size, 3)
    patches: Patches = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).reshape(shape)
    return patches
