"""Decodes evidence for people, as a server decodes it: the picture of the newest of a camera's last messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sagelink.monitor.evidence_png import units_png
from sagelink.server.memory import ReferenceStore
from sagelink.server.receive import receive
from sagelink.transport.codecs import Canvas
from sagelink.transport.patch_embedding import Embedding

_MEMORY_BYTES = 16_000_000  # of the units of one camera while its messages are decoded


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """The picture of one message."""

    png: bytes  # (S, S), transparent or grey where nothing was sent
    seq: int
    units: list[int]
    side: int
    forgotten: bool  # it builds on units of an earlier message that is not here


def decode_view(
    messages: Sequence[bytes], side: int, patch_size: int, embedding: Embedding | None, transparent: bool = True
) -> EvidenceView:
    """Decodes the last of `messages`, which are of one camera, oldest first; those before it are the references of
    delta messages. Blocking. Raises MalformedMessage, also for tokens where `embedding` is None or another one."""
    canvas, memory = Canvas(side, patch_size, embedding), ReferenceStore(_MEMORY_BYTES)
    for message in messages:
        received = receive(message, canvas, partial(memory.recall, "camera", now_s=0.0))
        if received.name:
            memory.keep("camera", received.name, received.units, received.content, 0.0)
    png = units_png(received.units, received.content, canvas, transparent)
    return EvidenceView(png, received.seq, [int(unit) for unit in received.units], side, received.forgotten)
