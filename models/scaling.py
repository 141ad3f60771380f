"""Scales a picture with antialiasing in NumPy, to the same pixels as PyTorch: `torch.nn.functional.interpolate`, uint8.

PyTorch takes the arithmetic of Pillow-SIMD: first the columns, then the rows, both with weights of 16 bits and a result
of 8 bits. Here the sums are matrix products of float32. They are whole numbers, and float32 holds nearly all of them
exactly: where a picture is made more than eight times smaller, a few values in a million may differ by 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_BLOCK = 16  # new values that share a matrix product
_ROWS = 128  # that are scaled together: they fit the cache
_CENTRE = 128  # subtracted from pixels: smaller sums
_MAX_BITS, _WEIGHT_BITS = 22, 15


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """New values `first` to `last` from the old values `start` to `end`."""

    first: int
    last: int
    start: int
    end: int
    weights: NDArray[np.float32]  # (end - start, last - first), whole numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Scales one axis."""

    blocks: tuple[_Block, ...]
    offset: NDArray[np.int32]  # (new,) what is added to the sums before they are shifted
    bits: int


def scale(picture: NDArray[np.uint8], size: int, interpolation: str) -> NDArray[np.uint8]:
    """(H, W, C) to (size, size, C). `interpolation`: `bilinear` or `bicubic`."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))  # (C, H, W)
    height, width = planes.shape[1:]
    columns = _along_rows(planes.reshape(-1, width), size, interpolation).reshape(-1, height, size)
    turned = np.ascontiguousarray(columns.swapaxes(1, 2)).reshape(-1, height)
    rows = _along_rows(turned, size, interpolation).reshape(-1, size, size)
    return np.ascontiguousarray(rows.transpose(2, 1, 0))


def _along_rows(values: NDArray[np.uint8], size: int, interpolation: str) -> NDArray[np.uint8]:
    """(R, N) to (R, size)."""
    if values.shape[1] == size:
        return values
    plan = _plan(values.shape[1], size, interpolation)
    scaled = np.empty((len(values), size), np.uint8)
    for top in range(0, len(values), _ROWS):
        centred = values[top : top + _ROWS].astype(np.float32)
        centred -= _CENTRE
        sums = np.empty((len(centred), size), np.int32)
        for block in plan.blocks:
            sums[:, block.first : block.last] = centred[:, block.start : block.end] @ block.weights
        sums += plan.offset
        sums >>= plan.bits
        scaled[top : top + _ROWS] = np.clip(sums, 0, 255, out=sums)
    return scaled


@lru_cache(64)
def _plan(before: int, after: int, interpolation: str) -> _Plan:
    scale_ = before / after
    stretch = max(scale_, 1.0)
    support = _SUPPORT[interpolation] * stretch
    centres = (np.arange(after) + 0.5) * scale_
    starts = np.maximum((centres - support + 0.5).astype(int), 0)
    ends = np.minimum((centres + support + 0.5).astype(int), before)
    old = np.arange(before)
    weights = _filter((old - centres[:, None] + 0.5) / stretch, interpolation)
    weights *= (old >= starts[:, None]) & (old < ends[:, None])
    weights /= weights.sum(1, keepdims=True)
    bits = 0
    while bits < _MAX_BITS and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << _WEIGHT_BITS:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int64)
    offset = _CENTRE * whole.sum(1) + (1 << bits >> 1)
    blocks = []
    for first in range(0, after, _BLOCK):
        last = min(first + _BLOCK, after)
        start, end = starts[first], ends[last - 1]
        part = np.ascontiguousarray(whole[first:last, start:end].T, np.float32)
        blocks.append(_Block(first, last, int(start), int(end), part))
    return _Plan(tuple(blocks), offset.astype(np.int32), bits)


def _filter(distances: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """The weight of an old value at this distance; cubic: Keys with a = -0.5."""
    x = np.abs(distances)
    if interpolation == "bilinear":
        return np.maximum(0.0, 1.0 - x)
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
