"""Receive and decode: from message bytes to what the model needs of the units, within limits."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import Units
from transport.codecs import Canvas, Patches, Tokens, codec_by_number
from transport.wire import MalformedMessage, decode_evidence


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    content: Patches | Tokens


def receive(message: bytes, canvas: Canvas) -> Received:
    """Decodes evidence that was cut on the server model's grid. Raises MalformedMessage."""
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (canvas.side, canvas.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {canvas.patch_size} pixels on {canvas.side}x{canvas.side}"
        )
    codec = codec_by_number(evidence.codec)
    return Received(evidence.seq, evidence.units, codec.decode(evidence.payload, evidence.units, canvas))
