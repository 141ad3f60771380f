"""Resamples values along an axis, linear with antialiasing: the same weights as PyTorch's and Pillow's `bilinear`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def resample(values: Floats, size: int) -> Floats:
    """(N, ...) to (size, ...): the first axis is scaled."""
    return np.tensordot(_weights(len(values), size), values, axes=1)


@lru_cache(16)
def _weights(before: int, after: int) -> Floats:
    """(after, before): each row holds the weights of the old values in a new one; they sum to 1."""
    scale = before / after
    reach = max(scale, 1.0)  # of the triangle, in old values
    centres = (np.arange(after) + 0.5) * scale
    distances = np.abs(np.arange(before) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(0.0, 1.0 - distances)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
