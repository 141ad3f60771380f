"""Receive and decode: from message bytes to the units' pixels, within limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.zoo import UnitGrid
from pipeline.types import Units
from transport.codecs import codec_by_number
from transport.wire import MalformedMessage, decode_evidence


@dataclass(frozen=True, slots=True)
class Received:
    """Evidence of one frame, decoded."""

    seq: int
    units: Units  # (K,) ascending
    patches: NDArray[np.uint8]  # (K, patch, patch, 3) RGB


def receive(message: bytes, grid: UnitGrid) -> Received:
    """Decodes evidence that was cut on the server model's grid. Raises MalformedMessage."""
    evidence = decode_evidence(message)
    if (evidence.side, evidence.patch_size) != (grid.side, grid.patch_size):
        raise MalformedMessage(
            f"units of {evidence.patch_size} pixels on a grid of {evidence.side}x{evidence.side}; this server's model "
            f"has units of {grid.patch_size} pixels on {grid.side}x{grid.side}"
        )
    codec = codec_by_number(evidence.codec)
    patches = codec.decode(evidence.payload, evidence.units, evidence.side, evidence.patch_size)
    return Received(evidence.seq, evidence.units, patches)
