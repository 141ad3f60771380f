"""Encode: the longest prefix of a selection whose whole message fits the allowance."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.types import Drop, Evidence, Kept, Metered, OperatingPoint, Pixels, Selected, Units
from transport.codecs import Canvas, codec_by_name
from transport.wire import EvidenceMessage, encode_evidence

log = logging.getLogger(__name__)


def fit_prefix(
    build: Callable[[int], bytes], fewest: int, most: int, fits: Callable[[bytes], bool]
) -> tuple[int, bytes] | None:
    """The longest prefix length in fewest..most whose message fits, with the message, by bisection; None if none does.

    Message sizes grow with the prefix but for the whims of the coder, so the result may be a unit short of the very
    longest; it always fits.
    """
    message = build(most)
    if fits(message):
        return most, message
    best = None
    low, high = fewest, most - 1
    while low <= high:
        middle = (low + high) // 2
        message = build(middle)
        if fits(message):
            best, low = (middle, message), middle + 1
        else:
            high = middle - 1
    return best


class Encode:
    def __init__(
        self,
        point: OperatingPoint,
        canvas: Canvas,
        wire_bits: Callable[[str, int], int],
        min_units: int,
        max_message: int,
    ) -> None:
        """`point`: how units are coded, whatever their number; `wire_bits`: the link's bits for a camera's message of
        so many bytes."""
        self._point = point
        self._codec = codec_by_name(point.codec)
        self._canvas = canvas
        self._wire_bits = wire_bits
        self._min_units = min_units
        self._max_message = max_message
        self._warned = False

    async def process(self, selected: Selected) -> Evidence | Kept:
        began = time.perf_counter()
        scored = selected.metered.scored
        camera, allowance = scored.frame.camera, selected.metered.allowance_bits

        def build(count: int) -> bytes:
            return self._message(scored.frame.seq, scored.picture, np.sort(selected.order[:count]))

        def fits(message: bytes) -> bool:
            affordable = allowance is None or self._wire_bits(camera, len(message)) <= allowance
            return affordable and len(message) <= self._max_message

        fewest = min(self._min_units, len(selected.order))
        fitted = fit_prefix(build, fewest, len(selected.order), fits)
        if fitted is None:
            self._explain(camera, len(build(fewest)), selected.metered)
            return Kept(selected, Drop.BUDGET)
        count, message = fitted
        return Evidence(
            selected=selected,
            units=np.sort(selected.order[:count]),
            message=message,
            wire_bits=self._wire_bits(camera, len(message)),
            encode_ms=(time.perf_counter() - began) * 1e3,
        )

    def _explain(self, camera: str, message_bytes: int, metered: Metered) -> None:
        """Says, once, when a frame could not be sent even in an empty window."""
        if self._warned:
            return
        if message_bytes > self._max_message:
            limit, mend = f"max_message_bytes={self._max_message}", "raise encode.max_message"
        elif metered.allowance_bits == metered.budget_bits:
            limit, mend = f"window_bits={metered.budget_bits}", "raise the rate or the window"
        else:
            return
        self._warned = True
        log.warning(
            "stage=encode event=budget_too_small %s needed_bits=%d needed_bytes=%d for select.min_units=%d: %s, or "
            "lower select.min_units",
            limit,
            self._wire_bits(camera, message_bytes),
            message_bytes,
            self._min_units,
            mend,
        )

    def _message(self, seq: int, picture: Pixels, units: Units) -> bytes:
        payload = self._codec.encode(picture, units, replace(self._point, units=len(units)), self._canvas)
        grid = self._canvas
        return encode_evidence(EvidenceMessage(seq, grid.side, grid.patch_size, self._codec.number, units, payload))
