"""Encodes pictures for the dashboard: live pictures and heat maps.

Each function blocks; the dashboard calls them in a separate thread.
"""

from __future__ import annotations

import base64
import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from sagelink.models.preprocess import Resize, view_box
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.types import Box, Pixels, Verdict
from sagelink.stages.small_pictures import reduced

_MAX_SIDE = 640  # pixels
_SMALL = 150  # pixels
_QUALITY = 75  # of a live picture
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
    return _LENGTH.pack(len(text)) + text + jpeg(reduced(verdict.frame.pixels, _MAX_SIDE), _QUALITY)


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
