"""Decodes evidence messages: bytes in, units and their pixels or tokens out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.server.memory import StoredUnits
from sagelink.transport.bundle import decode_bundle, is_bundle
from sagelink.transport.codecs import Canvas, Patches, Tokens, codec_by_number
from sagelink.transport.delta_message import DELTA_CODEC, decode_delta, reference_name
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_message import EdgeAnswer, EvidenceMessage, decode_evidence

Recall = Callable[[bytes], StoredUnits | None]  # finds stored units by their name


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    content: Patches | Tokens
    size: int | None = None  # bytes of the message; None where they say nothing about the amount of evidence
    name: bytes | None = None  # under which its units are to be stored
    forgotten: bool = False  # a delta message whose reference is not stored
    edge_answer: EdgeAnswer | None = None


def receive(message: bytes, canvas: Canvas, recall: Recall = lambda name: None) -> Received:
    """Decodes an evidence message or a bundle, whose grid is that of the server model. Raises MalformedMessage.

    `recall` finds the reference of a delta message.
    """
    if not is_bundle(message):
        return _receive(message, canvas, recall)
    seq, parts = decode_bundle(message)
    received = [_receive(part, canvas, None) for part in parts]
    if any(part.seq != seq for part in received):
        raise MalformedMessage("the parts of the bundle belong to different frames")
    units = np.concatenate([part.units for part in received])
    order = np.argsort(units, kind="stable")
    if len(np.unique(units)) < len(units) or len({part.content.shape[1:] for part in received}) > 1:
        raise MalformedMessage("the parts of the bundle overlap or differ in kind")
    content: Patches | Tokens = np.concatenate([part.content for part in received])[order]
    return Received(seq, units[order], content, len(message), edge_answer=received[0].edge_answer)


def _receive(message: bytes, canvas: Canvas, recall: Recall | None) -> Received:
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (canvas.side, canvas.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {canvas.patch_size} pixels on {canvas.side}x{canvas.side}"
        )
    if evidence.codec == DELTA_CODEC and recall is not None:
        return _join_delta(message, evidence, canvas, recall)
    codec = codec_by_number(evidence.codec)
    content = codec.decode(evidence.payload, evidence.units, canvas)
    return Received(evidence.seq, evidence.units, content, len(message), edge_answer=evidence.edge_answer)


def _join_delta(message: bytes, evidence: EvidenceMessage, canvas: Canvas, recall: Recall) -> Received:
    """Joins a delta message with its reference; without the reference, the units of the message alone."""
    delta = decode_delta(evidence)
    units = evidence.units
    content = codec_by_number(delta.codec).decode(delta.payload, units, canvas)
    reference = recall(delta.reference) if len(delta.units) else None
    known = reference.part(delta.units) if reference is not None else None
    if known is None or known.shape[1:] != content.shape[1:]:
        name, forgotten = reference_name(message, completed=False), len(delta.units) > 0
        return Received(evidence.seq, units, content, len(message), name, forgotten, evidence.edge_answer)
    together = np.concatenate([delta.units, units])
    order = np.argsort(together)
    content = np.concatenate([known, content])[order]
    # No size: the length of a delta message does not say how much evidence there is.
    name = reference_name(message, completed=True)
    return Received(evidence.seq, together[order], content, None, name, edge_answer=evidence.edge_answer)
