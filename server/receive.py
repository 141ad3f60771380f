"""Receive and decode: from message bytes to what the model needs of the units, within limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.server.memory import Held
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.delta_message import decode_delta, reference_name
from sagelink.transport.wire import (
    DELTA_CODEC,
    EvidenceMessage,
    MalformedMessage,
    decode_bundle,
    decode_evidence,
    is_bundle,
)

Recall = Callable[[bytes], Held | None]  # what a camera's server holds under a name


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    content: Patches | Tokens
    size: int | None = None  # bytes of the message; None for what never was one
    name: bytes | None = None  # under which it is to be remembered
    forgotten: bool = False  # it completes what is not remembered


def receive(message: bytes, canvas: Canvas, recall: Recall = lambda name: None) -> Received:
    """Decodes evidence, or a bundle of it, that was cut on the server model's grid. Raises MalformedMessage."""
    if not is_bundle(message):
        return _receive(message, canvas, recall)
    seq, parts = decode_bundle(message)
    received = [_receive(part, canvas, None) for part in parts]
    if any(part.seq != seq for part in received):
        raise MalformedMessage("the bundle's parts are about several frames")
    units = np.concatenate([part.units for part in received])
    order = np.argsort(units, kind="stable")
    if len(np.unique(units)) < len(units) or len({part.content.shape[1:] for part in received}) > 1:
        raise MalformedMessage("the bundle's parts do not go together")
    content: Patches | Tokens = np.concatenate([part.content for part in received])[order]
    return Received(seq, units[order], content, len(message))


def _receive(message: bytes, canvas: Canvas, recall: Recall | None) -> Received:
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (canvas.side, canvas.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {canvas.patch_size} pixels on {canvas.side}x{canvas.side}"
        )
    if evidence.codec == DELTA_CODEC and recall is not None:
        return _complete(message, evidence, canvas, recall)
    codec = codec_by_number(evidence.codec)
    return Received(evidence.seq, evidence.units, codec.decode(evidence.payload, evidence.units, canvas), len(message))


def _complete(message: bytes, evidence: EvidenceMessage, canvas: Canvas, recall: Recall) -> Received:
    """With the units that are remembered; where they are not, the units of the message alone."""
    completion = decode_delta(evidence)
    units = evidence.units
    content = codec_by_number(completion.codec).decode(completion.payload, units, canvas)
    held = recall(completion.reference) if len(completion.units) else None
    kept = held.part(completion.units) if held is not None else None
    if kept is None or kept.shape[1:] != content.shape[1:]:
        name, forgotten = reference_name(message, completed=False), len(completion.units) > 0
        return Received(evidence.seq, units, content, len(message), name, forgotten)
    together = np.concatenate([completion.units, units])
    order = np.argsort(together)
    content = np.concatenate([kept, content])[order]
    # Its length says nothing of how much there is to see.
    return Received(evidence.seq, together[order], content, None, reference_name(message, completed=True))
