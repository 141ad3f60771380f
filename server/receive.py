"""Decodes evidence messages: bytes in, units and their pixels or tokens out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.transport.bundle import decode_bundle, is_bundle
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_message import EdgeAnswer, decode_evidence


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    content: Patches | Tokens
    size: int | None = None  # bytes of the message; None where there was none
    edge_answer: EdgeAnswer | None = None


def receive(message: bytes, canvas: Canvas) -> Received:
    """Decodes an evidence message or a bundle, whose grid is that of the server model. Raises MalformedMessage."""
    if not is_bundle(message):
        return _receive(message, canvas)
    seq, parts = decode_bundle(message)
    received = [_receive(part, canvas) for part in parts]
    if any(part.seq != seq for part in received):
        raise MalformedMessage("the parts of the bundle belong to different frames")
    units = np.concatenate([part.units for part in received])
    order = np.argsort(units, kind="stable")
    if len(np.unique(units)) < len(units) or len({part.content.shape[1:] for part in received}) > 1:
        raise MalformedMessage("the parts of the bundle overlap or differ in kind")
    content: Patches | Tokens = np.concatenate([part.content for part in received])[order]
    return Received(seq, units[order], content, len(message), edge_answer=received[0].edge_answer)


def _receive(message: bytes, canvas: Canvas) -> Received:
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (canvas.side, canvas.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {canvas.patch_size} pixels on {canvas.side}x{canvas.side}"
        )
    codec = codec_by_number(evidence.codec)
    content = codec.decode(evidence.payload, evidence.units, canvas)
    return Received(evidence.seq, evidence.units, content, len(message), edge_answer=evidence.edge_answer)
