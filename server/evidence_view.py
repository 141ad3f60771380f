"""Decodes evidence for people, as a server decodes it: the picture of one message."""

from __future__ import annotations

from dataclasses import dataclass

from sagelink.monitor.evidence_png import units_png
from sagelink.server.receive import receive
from sagelink.transport.codecs import Canvas
from sagelink.transport.patch_embedding import Embedding


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """The picture of one message."""

    png: bytes  # (S, S), transparent or grey where nothing was sent
    seq: int
    units: list[int]
    side: int


def decode_view(
    message: bytes, side: int, patch_size: int, embedding: Embedding | None, transparent: bool = True
) -> EvidenceView:
    """Decodes evidence. Blocking. Raises MalformedMessage, also for tokens where `embedding` is None or another one."""
    canvas = Canvas(side, patch_size, embedding)
    received = receive(message, canvas)
    png = units_png(received.units, received.content, canvas, transparent)
    return EvidenceView(png, received.seq, [int(unit) for unit in received.units], side)
