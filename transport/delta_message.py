"""Encodes and decodes delta messages: evidence that adds units to those that the server retains for a camera.

A delta message is an evidence message with the codec number DELTA_CODEC, so a server without this feature refuses it
by that number. It refers to retained units by name: a digest of the messages that they came from. Two sides that use
the same name have the same units, whatever was lost, restarted or reordered between them. Layout: docs/wire.md.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.unit_set_codec import pack_units, set_bytes, unpack_units

DELTA_CODEC = 10  # codec number of evidence that adds to retained units
REFERENCE_NAME_BYTES = 8  # name of the units that a server retains for a camera
NO_REFERENCE = bytes(REFERENCE_NAME_BYTES)  # names no retained units: the message stands alone, but is to be retained
NO_UNITS: Units = np.empty(0, np.intp)

_HEAD = struct.Struct(f"!{REFERENCE_NAME_BYTES}sHB")  # name, number of retained units, codec of the payload


@dataclass(frozen=True, slots=True)
class DeltaPayload:
    """The decoded payload of a delta message."""

    reference: bytes  # name of the retained units
    units: Units  # ascending: the retained units that are still valid; the message contains none of them
    codec: int
    payload: bytes


def encode_delta(message: EvidenceMessage, reference: bytes, retained: Units) -> bytes:
    """Encodes `message` as an addition to the units `retained` (ascending) of the reference with this name."""
    head = _HEAD.pack(reference, len(retained), message.codec)
    payload = head + (pack_units(retained, message.side**2) if len(retained) else b"") + message.payload
    return encode_evidence(replace(message, codec=DELTA_CODEC, payload=payload))


def delta_overhead_bytes(units: int, retained: int) -> int:
    """Bytes by which a delta message is longer than the plain one. `units`: of the grid; `retained`: retained ones."""
    return _HEAD.size + (set_bytes(units, retained) if retained else 0)


def claimed_retained_units(payload: bytes) -> int:
    """The number of retained units in the payload of a delta message, unchecked; 0 where it is cut short."""
    return int(_HEAD.unpack_from(payload)[1]) if len(payload) >= _HEAD.size else 0


def decode_delta(evidence: EvidenceMessage) -> DeltaPayload:
    """Decodes the payload of a message whose codec is DELTA_CODEC. Raises MalformedMessage."""
    payload, total = evidence.payload, evidence.side**2
    if len(payload) < _HEAD.size:
        raise MalformedMessage("the delta message is cut short")
    reference, count, codec = _HEAD.unpack_from(payload)
    if count > total - len(evidence.units) or (count > 0) == (reference == NO_REFERENCE):
        raise MalformedMessage(f"{count} units retained besides {len(evidence.units)} on a grid of {total}")
    retained, end = NO_UNITS, _HEAD.size
    if count:
        end += set_bytes(total, count)
        if len(payload) < end:
            raise MalformedMessage("the delta message is cut short")
        try:
            retained = unpack_units(payload[_HEAD.size : end], total, count)
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
    if np.intersect1d(retained, evidence.units).size:
        raise MalformedMessage("a unit is both retained and sent")
    return DeltaPayload(reference, retained, codec, payload[end:])


def reference_name(message: bytes, completed: bool) -> bytes:
    """Name of the units that a server retains after `message`: with the units that the message refers to
    (`completed`), or only the message's own."""
    return hashlib.blake2b(
        message, digest_size=REFERENCE_NAME_BYTES, person=b"complete" if completed else b"alone"
    ).digest()
