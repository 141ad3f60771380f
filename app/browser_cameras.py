"""Browsers that show the server their camera: the page, what becomes of a picture, what is said of a reply."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sagelink.models.loading import Model, UnitGrid, labels_fingerprint
from sagelink.models.preprocess import Resize, make_picture
from sagelink.monitor.camera_page import camera_page
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import OperatingPoint, Pixels
from sagelink.transport.codecs import Canvas
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc.browser_session import BrowserSettings
from sagelink.transport.wire import EvidenceMessage, decode_reply, encode_evidence

if TYPE_CHECKING:
    import av

_DEADLINE_S = 5.0  # of a picture at the model
_RAW = RawZstd()


@contextlib.contextmanager
def audience(model: Model, resize: Resize, most: int) -> Iterator[BrowserSettings]:
    """Up to `most` browsers, whose pictures become the model's as those of cameras do."""
    grid = model.grid
    artist = Worker("artist")

    def evidence(seq: int, frame: av.VideoFrame) -> bytes:
        pixels: Pixels = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]  # rgb24 is uint8
        return evidence_of(seq, pixels, grid, resize)

    try:
        yield BrowserSettings(
            most=most,
            page=camera_page(),
            camera_info=CameraInfo(grid.side, grid.patch_size, labels_fingerprint(model.labels), _DEADLINE_S),
            evidence=lambda seq, frame: artist.call(evidence, seq, frame),
            words=lambda reply, ms: words_of(reply, ms, model.labels),
        )
    finally:
        artist.close()


def evidence_of(seq: int, pixels: Pixels, grid: UnitGrid, resize: Resize) -> bytes:
    """A message of every unit of RGB (H, W, 3), as it is."""
    picture = make_picture(pixels, grid.image_size, resize, grid.interpolation, grid.crop_pct)
    units = np.arange(grid.units)
    point = OperatingPoint("raw-zstd", grid.units, grid.image_size, 0)
    payload = _RAW.encode(picture, units, point, Canvas(grid.side, grid.patch_size))
    return encode_evidence(EvidenceMessage(seq, grid.side, grid.patch_size, _RAW.number, units, payload))


def words_of(data: bytes, ms: float, labels: tuple[str, ...]) -> str:
    """A reply as JSON for the page, with the time from the picture's arrival to the reply."""
    reply = decode_reply(data)
    said: dict[str, object] = {"seq": reply.seq, "ms": round(ms, 1)}
    if reply.refusal is not None:
        return json.dumps(said | {"refusal": reply.refusal})
    probs = [round(math.exp(log_prob), 4) for log_prob in reply.log_probs]
    top = [[labels[number], prob] for number, prob in zip(reply.class_ids, probs, strict=True)]
    return json.dumps(said | {"top": top})
