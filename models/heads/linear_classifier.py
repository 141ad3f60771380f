"""A linear classifier on what an edge model can read: NumPy in, NumPy out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagelink.models.heads.head import Floats, HeadSide, Reads

Number = TypeVar("Number", np.float32, np.float64)


def part_of(features: NDArray[Number], reads: Reads) -> NDArray[Number]:
    """(R, F) of (R, 2 D), the class token followed by the mean of the units."""
    half = features.shape[1] // 2
    return {"token": features[:, :half], "mean": features[:, half:], "token+mean": features}[reads]


@dataclass(frozen=True, slots=True, eq=False)
class LinearClassifier:
    """The features that it reads, and its weights."""

    weight: Floats  # (C, F)
    bias: Floats  # (C,)
    reads: Reads

    @classmethod
    def of_side(cls, side: HeadSide) -> LinearClassifier:
        """The classifier of a side of a head; its logits are already divided by the temperature."""
        scale = 1 / side.card.temperature
        weight, bias = (np.asarray(values * scale, np.float32) for values in (side.weight, side.bias))
        return cls(weight, bias, side.card.reads)

    def logits(self, features: Floats) -> Floats:
        """(B, C) of features (B, 2 D): class token and mean of the units."""
        return np.asarray(part_of(features, self.reads) @ self.weight.T + self.bias, np.float32)
