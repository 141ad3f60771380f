"""A message in parts: evidence messages that fit one datagram each and decode alone, so that the loss of one costs its
units and not the frame.

An image is cut into bands of rows, each coded as a picture of its own: units dealt out in turn cost a picture with
holes in every part. Raw units and tokens have no neighbours to lose, so they are dealt out in order of their worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.codecs import Canvas, codec_by_name
from sagelink.transport.wire import MAX_PARTS, max_datagrams

_MORE = 105  # bytes of a part that a whole message has not: its header, and its picture's
_AIM = 0.88  # of the longest part: what a part is expected to have, so that few have to be cut once more


class Splitter:
    """Of one picture, at whatever operating points."""

    def __init__(self, picture: Pixels, canvas: Canvas, longest: int) -> None:
        """`longest`: bytes of a part."""
        self.longest = longest
        self._side = canvas.side
        detail = np.abs(np.diff(picture.astype(np.int16), axis=1)).sum((1, 2)).reshape(canvas.side, -1).sum(1)
        self._detail = detail + detail.mean() / 2 + 1  # of each row of the grid; no row is free

    def expected_bytes(self, whole_bytes: int) -> int:
        """Of the bundle that holds what one message would."""
        return whole_bytes if whole_bytes <= self.longest else whole_bytes + _MORE * self._count(whole_bytes)

    def _count(self, expected: float) -> int:
        return max(2, math.ceil(expected / (_AIM * self.longest)))

    def split(
        self, units: Units, point: OperatingPoint, expected: float, code: Callable[[Units, OperatingPoint], bytes]
    ) -> list[bytes] | None:
        """Parts that together hold `units` (best first); None if that is not possible.

        `expected`: bytes of the whole message in one part; `code` encodes units at a point. Each part is coded once,
        and once more in two halves if it is too long. There are never more parts than a link charges for.
        """
        if codec_by_name(point.codec).sends == "whole":
            return None
        parts: list[bytes] = []
        left = self._groups(point.codec, units, self._count(expected))
        while left:
            group = left.pop(0)
            part = code(group, point)
            if len(part) <= self.longest:
                parts.append(part)
                continue
            halves = self._groups(point.codec, group, 2)
            if len(halves) < 2 or len(parts) + len(left) >= MAX_PARTS:
                return None
            left[:0] = halves
        total_bytes = sum(map(len, parts))
        if len(parts) > 1 and total_bytes <= self.longest:  # less than expected: one part may hold all units
            whole = code(units, point)
            return [whole] if len(whole) <= self.longest else None
        return parts if len(parts) <= min(MAX_PARTS, max_datagrams(total_bytes)) else None

    def _groups(self, codec: str, units: Units, count: int) -> list[Units]:
        if codec_by_name(codec).sends == "part":
            return self._bands(units, count)
        return [group for start in range(count) if len(group := units[start::count])]

    def _bands(self, units: Units, count: int) -> list[Units]:
        """The units in `count` runs of rows that have about as much detail each, which is what bytes go with."""
        rows = units // self._side
        first, end = int(rows.min()), int(rows.max()) + 1
        share = np.cumsum(self._detail[first:end])
        cuts = first + 1 + np.searchsorted(share, share[-1] * np.arange(1, count) / count)
        edges = np.unique([first, *cuts.clip(max=max(first + 1, end - 1)), end])
        groups = [units[(rows >= low) & (rows < high)] for low, high in pairwise(edges)]
        return [group for group in groups if len(group)]
