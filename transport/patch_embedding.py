"""The server model's patch embedding as NumPy arrays: turns the pixels of units into tokens, for the token codec."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """token (D,) = pixels (p * p * 3, row by row, 0..255) @ matrix + bias; input normalisation is part of both."""

    matrix: NDArray[np.float32]  # (p * p * 3, D)
    bias: NDArray[np.float32]  # (D,)
    digest: bytes = field(init=False)  # equal on both sides if the weights are equal

    def __post_init__(self) -> None:
        content = self.matrix.astype("<f4").tobytes() + self.bias.astype("<f4").tobytes()
        object.__setattr__(self, "digest", hashlib.blake2b(content, digest_size=HASH_BYTES).digest())

    @property
    def width(self) -> int:
        return len(self.bias)

    def tokens(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patches (K, p, p, 3) to tokens (K, D)."""
        return patches.reshape(len(patches), -1).astype(np.float32) @ self.matrix + self.bias
