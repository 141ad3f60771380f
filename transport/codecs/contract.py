"""The contract of every evidence codec, and the geometry of the picture that both sides share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.patch_embedding import Embedding

Patches: TypeAlias = NDArray[np.uint8]  # (K, patch, patch, 3) RGB
Tokens: TypeAlias = NDArray[np.float32]  # (K, D) of the server's patch embedding, before positions are added

# The part of a picture that a codec encodes: the whole picture, the rectangle around its units, or each unit alone.
Sends: TypeAlias = Literal["whole", "part", "units"]


class CodecFailed(Exception):
    """An encoder of this installation does not work, or writes a form that the codec does not know."""

    def __init__(self, codec: str, cause: Exception) -> None:
        super().__init__(f"{codec} cannot be coded with the libraries of this machine: {cause}")
        self.codec = codec


@dataclass(frozen=True, slots=True)
class Canvas:
    """The server model's square picture; both sides know it, so no message contains it."""

    side: int  # units on a side of the grid
    patch_size: int  # pixels on a side of a unit
    embedding: Embedding | None = None  # of the server's model, if this side has it

    @property
    def units(self) -> int:
        return self.side**2

    @property
    def pixels(self) -> int:
        """Pixels on a side of the picture."""
        return self.side * self.patch_size


class Codec(Protocol):
    """Pure, deterministic and bounded: the memory of `decode` depends on the canvas, never on fields of the payload."""

    number: int  # in the message header
    sends: Sends

    def encode(self, picture: Pixels, units: Units, point: OperatingPoint, canvas: Canvas) -> bytes:
        """The payload of `units` (K,), ascending, K >= 1, of `picture` (S, S, 3) RGB. Uses `side` and `quality` of
        `point`."""
        ...

    def decode(self, payload: bytes, units: Units, canvas: Canvas) -> Patches | Tokens:
        """The pixels or tokens of `units`, in the same order. Raises MalformedMessage."""
        ...


def cut_units(picture: Pixels, units: Units, patch_size: int) -> Patches:
    """The pixels (K, patch, patch, 3) of `units` (K,) of a picture (S, S, 3)."""
    side = picture.shape[0] // patch_size
    tiles = picture.reshape(side, patch_size, side, patch_size, 3)
    return tiles[units // side, :, units % side]
