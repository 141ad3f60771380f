"""Splits a message into parts: evidence messages that fit one datagram each and decode on their own.

The loss of a part then costs its units, not the whole frame. An image is split into bands of rows, each coded as a
picture of its own: any other split would leave holes in every part, and holes cost an image codec bytes. Raw units and
tokens do not depend on their neighbours, so they are dealt out to the parts in turn, best first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.transport.bundle import MAX_PARTS, max_datagrams
from sagelink.transport.codecs import Canvas, codec_by_name

_PART_OVERHEAD = 105  # bytes that a part adds to the whole message: its header and its picture's header
_FILL_TARGET = 0.88  # of the longest part: expected size of a part, so that few parts have to be split again


class Splitter:
    """Splits messages about one picture, at any operating point."""

    def __init__(self, picture: Pixels, canvas: Canvas, part_bytes: int) -> None:
        """`picture`: (S, S, 3). `part_bytes`: size of the longest part."""
        self.part_bytes = part_bytes
        self._side = canvas.side
        detail = np.abs(np.diff(picture.astype(np.int16), axis=1)).sum((1, 2)).reshape(canvas.side, -1).sum(1)
        self._detail = detail + detail.mean() / 2 + 1  # per row of the grid; even an empty row costs bytes

    def bundle_bytes(self, whole_bytes: int) -> int:
        """Expected size of the bundle with the same units as a whole message of `whole_bytes`."""
        if whole_bytes <= self.part_bytes:
            return whole_bytes
        return whole_bytes + _PART_OVERHEAD * self._part_count(whole_bytes)

    def _part_count(self, whole_bytes: float) -> int:
        return max(2, math.ceil(whole_bytes / (_FILL_TARGET * self.part_bytes)))

    def split(
        self,
        units: Units,
        point: OperatingPoint,
        whole_bytes: float,
        encode: Callable[[Units, OperatingPoint], bytes],
    ) -> list[bytes] | None:
        """Parts that together hold each of `units`, best first, once; None where no split is possible.

        `whole_bytes`: expected size of the unsplit message. `encode` makes a message of some units at a point. Each
        part is coded once; one that is too long is split in two and coded again. There are never more parts than the
        number of datagrams that a link charges for.
        """
        if codec_by_name(point.codec).sends == "whole":
            return None
        parts: list[bytes] = []
        pending = self._groups(point.codec, units, self._part_count(whole_bytes))
        while pending:
            group = pending.pop(0)
            part = encode(group, point)
            if len(part) <= self.part_bytes:
                parts.append(part)
                continue
            halves = self._groups(point.codec, group, 2)
            if len(halves) < 2 or len(parts) + len(pending) >= MAX_PARTS:
                return None
            pending[:0] = halves
        total_bytes = sum(map(len, parts))
        if len(parts) > 1 and total_bytes <= self.part_bytes:  # less than expected: one part may hold all units
            whole = encode(units, point)
            return [whole] if len(whole) <= self.part_bytes else None
        return parts if len(parts) <= min(MAX_PARTS, max_datagrams(total_bytes)) else None

    def _groups(self, codec: str, units: Units, count: int) -> list[Units]:
        if codec_by_name(codec).sends == "part":
            return self._bands(units, count)
        return [group for start in range(count) if len(group := units[start::count])]

    def _bands(self, units: Units, count: int) -> list[Units]:
        """The units in up to `count` bands of rows with about equal detail, because bytes grow with detail."""
        rows = units // self._side
        first, end = int(rows.min()), int(rows.max()) + 1
        share = np.cumsum(self._detail[first:end])
        cuts = first + 1 + np.searchsorted(share, share[-1] * np.arange(1, count) / count)
        edges = np.unique([first, *cuts.clip(max=max(first + 1, end - 1)), end])
        groups = [units[(rows >= low) & (rows < high)] for low, high in pairwise(edges)]
        return [group for group in groups if len(group)]
