"""A message in parts: evidence messages that fit one datagram each and decode alone, so that the loss of one costs its
units and not the frame.

An image is cut into bands of rows, each coded as a picture of its own: units dealt out in turn cost a picture with
holes in every part. Raw units and tokens have no neighbours to lose, so they are dealt out in order of their worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from pipeline.types import OperatingPoint, Pixels, Units
from transport.codecs import Canvas
from transport.wire import MAX_PARTS

BANDS = {"webp": "webp-band", "avif": "avif-band"}
DEALT = ("raw-zstd", "token-zstd")
_FILLED = 640  # bytes a part at least, on average: a link charges for no more datagrams than that
_ATTEMPTS = 4


def split(
    picture: Pixels,
    order: Units,
    point: OperatingPoint,
    canvas: Canvas,
    whole_bytes: int,
    longest: int,
    code: Callable[[Units, OperatingPoint], bytes],
) -> list[bytes] | None:
    """Parts of at most `longest` bytes that hold `order`'s units between them; None where that is not possible.

    `whole_bytes`: of the message in one; `code` makes a message of units, best first, at a point.
    """
    if point.codec not in BANDS and point.codec not in DEALT:
        return None
    count = -(-whole_bytes // longest)
    for _ in range(_ATTEMPTS):
        if point.codec in BANDS:
            groups = _bands(picture, order, count, canvas)
            parts = [code(units, replace(point, codec=BANDS[point.codec], units=len(units))) for units in groups]
        else:
            groups = [order[start::count] for start in range(count)]
            parts = [code(units, replace(point, units=len(units))) for units in groups if len(units)]
        total = sum(len(part) for part in parts)
        largest = max(len(part) for part in parts)
        if largest <= longest:
            return parts if _FILLED * (len(parts) - 1) < total and len(parts) <= MAX_PARTS else None
        count = max(count + 1, -(-count * largest // longest))
    return None


def _bands(picture: Pixels, order: Units, count: int, canvas: Canvas) -> list[Units]:
    """The units in `count` runs of rows that have about as much detail each, which is what bytes go with."""
    detail = np.abs(np.diff(picture.astype(np.int16), axis=1)).sum((1, 2)).reshape(canvas.side, -1).sum(1)
    share = np.cumsum(detail + detail.mean() / 2 + 1)
    ends = np.searchsorted(share, share[-1] * np.arange(1, count) / count) + 1
    edges = np.unique([0, *ends, canvas.side])
    rows = order // canvas.side
    groups = [order[(rows >= first) & (rows < end)] for first, end in pairwise(edges)]
    return [group for group in groups if len(group)]
