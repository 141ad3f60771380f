"""Browsers as cameras of a server: turns a browser's picture into evidence, and the reply into JSON for the page."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sagelink.models.labels import labels_fingerprint
from sagelink.models.loading import Model
from sagelink.models.preprocess import Resize, make_picture
from sagelink.models.unit_grid import UnitGrid
from sagelink.monitor.camera_page import camera_page
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import OperatingPoint, Pixels
from sagelink.transport.codecs import Canvas
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.reply_message import decode_reply
from sagelink.transport.webrtc.browser_session import BrowserSettings

if TYPE_CHECKING:
    import av

_DEADLINE_S = 5.0  # for the answer to a picture
_RAW = RawZstd()


@contextlib.contextmanager
def browser_settings(model: Model, resize: Resize, max_browsers: int) -> Iterator[BrowserSettings]:
    """Settings for up to `max_browsers` browsers, whose pictures are prepared for the model like those of cameras."""
    grid = model.grid
    worker = Worker("browser-pictures")

    def evidence(seq: int, frame: av.VideoFrame) -> bytes:
        pixels: Pixels = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]  # rgb24 is uint8
        return full_evidence(seq, pixels, grid, resize)

    try:
        yield BrowserSettings(
            max_browsers=max_browsers,
            pages=camera_page(),
            camera_info=CameraInfo(grid.side, grid.patch_size, labels_fingerprint(model.labels), _DEADLINE_S),
            encode_picture=lambda seq, frame: worker.call(evidence, seq, frame),
            format_reply=lambda reply, ms: reply_json(reply, ms, model.labels),
        )
    finally:
        worker.close()


def full_evidence(seq: int, pixels: Pixels, grid: UnitGrid, resize: Resize) -> bytes:
    """A message with every unit of a picture, lossless. `pixels`: (H, W, 3), RGB, uint8."""
    picture = make_picture(pixels, grid.image_size, resize, grid.interpolation, grid.crop_pct)
    units = np.arange(grid.units)
    point = OperatingPoint("raw-zstd", grid.units, grid.image_size, 0)
    payload = _RAW.encode(picture, units, point, Canvas(grid.side, grid.patch_size))
    return encode_evidence(EvidenceMessage(seq, grid.side, grid.patch_size, _RAW.number, units, payload))


def reply_json(data: bytes, ms: float, labels: tuple[str, ...]) -> str:
    """A reply as JSON for the page. `ms`: from the picture's arrival to the reply."""
    reply = decode_reply(data)
    message: dict[str, object] = {"seq": reply.seq, "ms": round(ms, 1)}
    if reply.refusal is not None:
        return to_json(message | {"refusal": reply.refusal})
    probs = [round(math.exp(log_prob), 4) for log_prob in reply.log_probs]
    top = [[labels[number], prob] for number, prob in zip(reply.class_ids, probs, strict=True)]
    return to_json(message | {"top": top})
