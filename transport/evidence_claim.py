"""Reads the header of evidence or of a bundle: enough to queue or to refuse it, without decoding its payload."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sagelink.transport.bundle import decode_bundle, is_bundle
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_message import EdgeAnswer, decode_header


@dataclass(frozen=True, slots=True)
class EvidenceClaim:
    """What evidence says about itself."""

    seq: int
    units: int
    head: bytes = b""
    edge_answer: EdgeAnswer | None = None
    further: tuple[bytes, ...] = ()


def peek(data: bytes) -> EvidenceClaim | None:
    """Like `read_claim`; None where that raises."""
    try:
        return read_claim(data)
    except MalformedMessage:
        return None


def read_claim(data: bytes) -> EvidenceClaim:
    """The claim of evidence or of a bundle. Raises MalformedMessage if its checksum or header is wrong."""
    if is_bundle(data):
        seq, parts = decode_bundle(data)
        claims = [claim for part in parts if not is_bundle(part) and (claim := peek(part)) is not None]
        first = claims[0] if claims else EvidenceClaim(seq, 0)
        return replace(first, seq=seq, units=sum(claim.units for claim in claims))
    header = decode_header(data)
    return EvidenceClaim(header.seq, header.count, header.head, header.edge_answer, header.further)
