"""Receive and decode: from message bytes to what the model needs of the units, within limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.types import Units
from transport.codecs import Canvas, Patches, Tokens, codec_by_number
from transport.wire import MalformedMessage, decode_bundle, decode_evidence, is_bundle


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    content: Patches | Tokens
    size: int | None = None  # bytes of the message; None for what never was one


def receive(message: bytes, canvas: Canvas) -> Received:
    """Decodes evidence, or a bundle of it, that was cut on the server model's grid. Raises MalformedMessage."""
    if not is_bundle(message):
        return _receive(message, canvas)
    seq, parts = decode_bundle(message)
    received = [_receive(part, canvas) for part in parts]
    if any(part.seq != seq for part in received):
        raise MalformedMessage("the bundle's parts are about several frames")
    units = np.concatenate([part.units for part in received])
    order = np.argsort(units, kind="stable")
    if len(np.unique(units)) < len(units) or len({part.content.shape[1:] for part in received}) > 1:
        raise MalformedMessage("the bundle's parts do not go together")
    content: Patches | Tokens = np.concatenate([part.content for part in received])[order]
    return Received(seq, units[order], content, len(message))


def _receive(message: bytes, canvas: Canvas) -> Received:
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (canvas.side, canvas.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {canvas.patch_size} pixels on {canvas.side}x{canvas.side}"
        )
    codec = codec_by_number(evidence.codec)
    return Received(evidence.seq, evidence.units, codec.decode(evidence.payload, evidence.units, canvas), len(message))
