"""What every evidence codec offers, and the geometry that both sides share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.patch_embedding import Embedding

Patches: TypeAlias = NDArray[np.uint8]  # (K, patch, patch, 3) RGB
Tokens: TypeAlias = NDArray[np.float32]  # (K, D) of the server's patch embedding, before positions are added

# What a codec codes of a picture: all of it; the part that its units span; or each unit by itself.
Sends: TypeAlias = Literal["whole", "part", "units"]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The server model's square picture, as both sides know it without being told."""

    side: int  # units on a side of the grid
    patch_size: int  # pixels on a side of a unit
    embedding: Embedding | None = None  # of the server's model, where this side has it

    @property
    def units(self) -> int:
        return self.side**2

    @property
    def pixels(self) -> int:
        """On a side of the picture."""
        return self.side * self.patch_size


class Codec(Protocol):
    """Pure, deterministic and bounded: what `decode` allocates depends on the canvas, never on what a payload says."""

    number: int  # stands in the message's header
    sends: Sends

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        """`picture` (S, S, 3) RGB; `units` (K,) ascending, K >= 1; `side` and `quality` of `point`."""
        ...

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches | Tokens:
        """What the server's model needs of `units`, in their order. Raises MalformedMessage."""
        ...


def cut_units(picture: Pixels, units: Units, patch_size: int) -> Patches:
    """The pixels of units, (K, patch, patch, 3)."""
    side = picture.shape[0] // patch_size
    tiles = picture.reshape(side, patch_size, side, patch_size, 3)
    return tiles[units // side, :, units % side]
