"""Evidence that completes what the server remembers of a camera. The layout is documented in docs/wire.md.

It is an evidence message with a codec number of its own, so a server that knows nothing of it refuses it by name. What
a server remembers is named by a digest of the messages that it came from: two sides that name the same hold the same,
whatever was lost, restarted or exchanged between them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.transport.unit_set import pack_units, set_bytes, unpack_units
from sagelink.transport.wire import NAME_BYTES, REMEMBERED, EvidenceMessage, MalformedMessage, encode_evidence

NOTHING = bytes(NAME_BYTES)  # what a message names that completes nothing, but is to be remembered
NO_UNITS: Units = np.empty(0, np.intp)

_HEAD = struct.Struct(f"!{NAME_BYTES}sHB")  # name, number of units kept, codec of the rest


@dataclass(frozen=True, slots=True)
class DeltaPayload:
    """The payload of such a message."""

    reference: bytes  # name of what it completes
    units: Units  # ascending: units of the base that still hold; none of them is in the message
    codec: int
    payload: bytes


def encode_delta(message: EvidenceMessage, base: bytes, kept: Units) -> bytes:
    """`message` as the completion of `base`, of which `kept` still hold."""
    head = _HEAD.pack(base, len(kept), message.codec)
    payload = head + (pack_units(kept, message.side**2) if len(kept) else b"") + message.payload
    side, patch_size = message.side, message.patch_size
    return encode_evidence(EvidenceMessage(message.seq, side, patch_size, REMEMBERED, message.units, payload))


def delta_overhead_bytes(units: int, kept: int) -> int:
    """Bytes of a completion beside those of the plain message; `units` are those of the grid."""
    return _HEAD.size + (set_bytes(units, kept) if kept else 0)


def decode_delta(evidence: EvidenceMessage) -> DeltaPayload:
    """The completion in a message whose codec is REMEMBERED. Raises MalformedMessage."""
    payload, total = evidence.payload, evidence.side**2
    if len(payload) < _HEAD.size:
        raise MalformedMessage("the completion is cut short")
    base, count, codec = _HEAD.unpack_from(payload)
    if count > total - len(evidence.units) or (count > 0) == (base == NOTHING):
        raise MalformedMessage(f"{count} units kept beside {len(evidence.units)} on a grid of {total}")
    kept, end = NO_UNITS, _HEAD.size
    if count:
        end += set_bytes(total, count)
        if len(payload) < end:
            raise MalformedMessage("the completion is cut short")
        try:
            kept = unpack_units(payload[_HEAD.size : end], total, count)
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
    if np.intersect1d(kept, evidence.units).size:
        raise MalformedMessage("a unit is both kept and sent")
    return DeltaPayload(base, kept, codec, payload[end:])


def name_of(message: bytes, completed: bool) -> bytes:
    """Name of what a server holds once it has answered a message: with the units kept, or without (`completed`)."""
    return hashlib.blake2b(message, digest_size=NAME_BYTES, person=b"complete" if completed else b"alone").digest()
