"""Encode: the best message that fits the allowance, by what the frontier says that messages are worth."""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import (
    Drop,
    EdgeOnly,
    Evidence,
    Metered,
    OperatingPoint,
    Pixels,
    Reference,
    Scored,
    Selected,
    Units,
)
from sagelink.stages.delta import DeltaCurves, expected
from sagelink.stages.frontier import RateQualityCurve, find_frontier, read_frontier
from sagelink.stages.packetize import Splitter
from sagelink.stages.planner import Coder, Plan, plan
from sagelink.stages.reference_tracker import ReferenceTracker
from sagelink.stages.unit_rectangle import rectangle
from sagelink.stages.zoom import ZoomCrop
from sagelink.transport.codecs import Canvas, codec_by_name
from sagelink.transport.delta_message import encode_delta
from sagelink.transport.patch_embedding import Embedding
from sagelink.transport.wire import PART_BYTES, EvidenceMessage, encode_bundle, encode_evidence

if TYPE_CHECKING:
    from sagelink.models.loading import Model

log = logging.getLogger(__name__)

Closely: TypeAlias = Callable[[float], Pixels]  # draws a closer look, by `view` of an operating point

AUTO, TOKENS = "auto", "token-zstd"
_ROWS_FILLED = 0.75  # of the bytes of as many parts as the grid has rows: a part has a row at least, few rows fill one
_WORTH_KEEPING = 0.01  # agreement that may be given up for a message that later ones can build on


def canvas_of(server: Model) -> Canvas:
    """The server model's picture as the edge knows it; without the embedding where the server is elsewhere."""
    embedding = None if server.is_outline else Embedding(*server.embedding())
    return Canvas(server.grid.side, server.grid.patch_size, embedding)


def usable_lines(config: Config, server: str, canvas: Canvas) -> list[RateQualityCurve]:
    """The frontier's lines for the codec and the numbers of units that a configuration allows. Raises UsageError."""
    lines, fewest, path = _measured(config, server, canvas)
    codec, most = config.encode.codec, min(config.select.units or canvas.units, canvas.units)
    usable = [line.limited(fewest, most) for line in lines]
    if config.fuse.rule == "weighted" and config.fuse.weights is None:
        usable = [line and line.with_weight() for line in usable]  # an answer without weight is not worth a message
    if not any(line is not None and line.point.view == 1 for line in usable):
        raise UsageError(
            f"select.units {most}: frontier {str(path)!r} has no point of encode.codec {codec} with {fewest} to {most} "
            f"units whose answer weighs anything; accepted: up to {canvas.units} units, another codec, or fuse.weights"
        )
    return [line for line in usable if line is not None]


def _measured(config: Config, server: str, canvas: Canvas) -> tuple[list[RateQualityCurve], int, Path]:
    """The frontier's lines for the codec that a configuration allows, the fewest units of a message, and the file.
    Raises UsageError."""
    path = find_frontier(server, config.encode.frontier, config.server.checkpoint)
    lines = read_frontier(path, canvas)
    known = sorted({line.point.codec for line in lines})
    if canvas.embedding is None:  # this side has only the outline of the server's model
        lines = [line for line in lines if line.point.codec != TOKENS]
    if not config.encode.zoom:
        lines = [line for line in lines if line.point.view == 1]
    codec, most = config.encode.codec, min(config.select.units or canvas.units, canvas.units)
    if codec != AUTO:
        codec_by_name(codec)
        lines = [line for line in lines if line.point.codec == codec]
        if not lines and codec == TOKENS and codec in known:
            raise UsageError(
                f"encode.codec {codec} needs the server model's patch embedding at the edge: name its weights as "
                "server.checkpoint (--server-checkpoint) here too"
            )
        if not lines:
            raise UsageError(
                f"encode.codec: frontier {str(path)!r} has no points of {codec!r}; accepted: {AUTO}, "
                f"{', '.join(known)}, or a frontier that `sagelink calibrate` has measured with it"
            )
    return lines, min(config.select.min_units, most), path


class Encoder:
    """From a picture and its units, best first, to the message that is worth most within a cap. Pure."""

    def __init__(
        self,
        lines: Sequence[RateQualityCurve],
        canvas: Canvas,
        slack: float = 0.0,
        part_bytes: int | None = None,
        completing: DeltaCurves | None = None,
    ) -> None:
        """`slack`: expected agreement that may be given up for fewer bytes; `part_bytes`: longest piece that the
        transport carries as a whole, where it loses pieces; `completing`: for a server that remembers."""
        self._lines = lines
        self._canvas = canvas
        self._slack = slack
        self._part_bytes = part_bytes
        self._completing = completing

    @classmethod
    def from_config(cls, config: Config, server: Model) -> Encoder:
        """As a configuration wants it. Raises UsageError."""
        canvas = canvas_of(server)
        lines, part_bytes = usable_lines(config, server.name, canvas), PART_BYTES if config.uses_datagrams else None
        completing = None
        if config.select.memory is not None:
            measured, fewest, _ = _measured(config, server.name, canvas)
            completing = DeltaCurves.from_curves(measured, canvas.units, fewest, config.select.units or canvas.units)
        return cls(lines, canvas, config.encode.slack, part_bytes, completing)

    def fit_delta(self, seq: int, picture: Pixels, base: Reference, rest: Units, cap_bytes: int) -> Plan | None:
        """The best message of at most `cap_bytes` that completes `base` by units of `rest`; None where one that stands
        alone is expected to be worth more."""
        assert self._completing is not None
        lines = self._completing.curves(len(base.units), len(rest))
        if not lines or expected(lines, cap_bytes) < expected(self._lines, cap_bytes) - _WORTH_KEEPING:
            return None

        def code(point: OperatingPoint, _: float) -> bytes:
            plain = self._evidence(seq, picture, rest[: point.units], point)
            return encode_delta(plain, base.name, base.units)

        planned = plan(lines, code, cap_bytes, self._slack)
        if isinstance(planned, int):
            return None
        return replace(
            planned,
            reference_units=len(base.units),
            standalone_weight=self._completing.standalone_weight(planned.point),
        )

    def fit(self, seq: int, picture: Pixels, order: Units, cap_bytes: int, closer: Closely | None = None) -> Plan | int:
        """The best message of at most `cap_bytes`, or the bytes that the shortest would need. `closer` draws closer
        looks at the picture, where those may be sent too."""
        lines = [line for line in self._lines if closer is not None or line.point.view == 1]

        def code(point: OperatingPoint, _: float) -> bytes:
            return self.message(seq, picture, order, point, closer)

        longest = self._part_bytes
        if longest is None or cap_bytes <= longest:
            planned = plan(lines, code, cap_bytes, self._slack)
        else:
            most = min(cap_bytes, int(_ROWS_FILLED * self._canvas.side * longest))
            code_in_parts, probe = self._in_parts(seq, partial(_seen, picture, closer), order, longest)
            planned = plan(lines, code_in_parts, most, self._slack, probe)
            if isinstance(planned, int):
                planned = plan(lines, code, longest, self._slack)
        if isinstance(planned, int):
            return planned
        return replace(planned, point=replace(planned.point, units=len(self.chosen_units(order, planned.point))))

    def _in_parts(
        self, seq: int, seen: Closely, order: Units, longest: int
    ) -> tuple[Coder, Callable[[OperatingPoint], int]]:
        """What codes bundles of parts of up to so many bytes, and what fits one or cannot be split as it is; and what
        tells before how many bytes that will be about."""

        @cache
        def splitter(view: float) -> Splitter:
            return Splitter(seen(view), self._canvas, longest)

        def whole(point: OperatingPoint) -> bytes:
            return self.encode_units(seq, seen(point.view), self.chosen_units(order, point), point)

        def code(point: OperatingPoint, expected: float) -> bytes | None:
            unsplit = codec_by_name(point.codec).sends == "whole"
            if unsplit or expected <= longest:
                message = whole(point)
                if unsplit or len(message) <= longest:
                    return message
                expected = len(message)
            coded = partial(self.encode_units, seq, seen(point.view))
            parts = splitter(point.view).split(self.chosen_units(order, point), point, expected, coded)
            return None if parts is None else encode_bundle(seq, parts)

        return code, lambda point: splitter(point.view).expected_bytes(len(whole(point)))

    def message(
        self, seq: int, picture: Pixels, order: Units, point: OperatingPoint, closer: Closely | None = None
    ) -> bytes:
        """The whole message at one operating point."""
        return self.encode_units(seq, _seen(picture, closer, point.view), self.chosen_units(order, point), point)

    def chosen_units(self, order: Units, point: OperatingPoint) -> Units:
        """The units that are sent at a point: the first of `order`, or in an image the rectangle with most of them."""
        if point.units < self._canvas.units and codec_by_name(point.codec).sends == "part":
            return rectangle(order, point.units, self._canvas.side)
        return order[: point.units]

    def encode_units(self, seq: int, picture: Pixels, units: Units, point: OperatingPoint) -> bytes:
        """The message of these units, whatever number of them the point names."""
        return encode_evidence(self._evidence(seq, picture, units, point))

    def _evidence(self, seq: int, picture: Pixels, units: Units, point: OperatingPoint) -> EvidenceMessage:
        canvas, codec = self._canvas, codec_by_name(point.codec)
        units = np.sort(units)
        payload = codec.encode(picture, units, point, canvas)
        return EvidenceMessage(seq, canvas.side, canvas.patch_size, codec.number, units, payload)


def _seen(picture: Pixels, closer: Closely | None, view: float) -> Pixels:
    if view == 1:
        return picture
    assert closer is not None, "a line of closer looks is only used where they can be drawn"
    return closer(view)


def paid_bytes(wire_bits: Callable[[int], int], bits: int, most: int) -> int:
    """The longest message, up to `most` bytes, that so many bits on the wire pay for; 0 where they pay for none."""
    return max(0, bisect_right(range(most + 1), bits, key=wire_bits) - 1)


class Encode:
    def __init__(
        self,
        encoder: Encoder,
        wire_bits: Callable[[str, int], int],
        max_message: int,
        reference_trackers: Mapping[str, ReferenceTracker] | None = None,
        closer: Callable[[Scored], ZoomCrop | None] = lambda scored: None,
    ) -> None:
        """`wire_bits`: the link's bits for a camera's message of so many bytes; `reference_trackers`: by camera; `closer`: looks
        that may be sent instead of a frame's own, None where none may."""
        self._encoder = encoder
        self._wire_bits = wire_bits
        self._max_message = max_message
        self._reference_trackers = reference_trackers or {}
        self._closer = closer
        self._warned = False

    async def process(self, selected: Selected) -> Evidence | EdgeOnly:
        began = time.perf_counter()
        frame, scored = selected.frame, selected.metered.scored
        picture = scored.picture
        cap_bytes, base, order = self._cap_bytes(selected), selected.reference, selected.order
        closer = self._closer(scored)
        planned: Plan | int | None = None
        if base is not None and selected.new_units is not None:
            planned = self._encoder.fit_delta(frame.seq, picture, base, selected.new_units, cap_bytes)
        if base is not None and isinstance(planned, Plan):
            order = selected.new_units if selected.new_units is not None else order
            units = np.sort(order[: planned.point.units])
            self._reference_trackers[frame.camera].register_sent(
                frame.seq, planned.message, base, units, picture, frame.stream_s
            )
        else:
            planned = self._encoder.fit(frame.seq, picture, order, cap_bytes, closer)
        if isinstance(planned, int):
            self._explain(frame.camera, planned, selected.metered)
            return EdgeOnly(selected, Drop.BUDGET)
        return Evidence(
            selected=selected,
            units=np.sort(self._encoder.chosen_units(order, planned.point)),
            point=planned.point,
            weight=planned.weight,
            message=planned.message,
            wire_bits=self._wire_bits(frame.camera, len(planned.message)),
            encode_ms=(time.perf_counter() - began) * 1e3,
            reference_units=planned.reference_units,
            standalone_weight=planned.standalone_weight,
            crop=closer.crop(planned.point.view) if closer and planned.point.view < 1 else scored.edge_view.crop,
        )

    def _cap_bytes(self, selected: Selected) -> int:
        """The longest message that the allowance pays for and that is worth its bits."""
        metered, most = selected.metered, self._max_message
        if metered.max_bytes is not None:
            most = min(most, metered.max_bytes)
        if metered.allowance_bits is None:
            return most
        return paid_bytes(partial(self._wire_bits, selected.frame.camera), metered.allowance_bits, most)

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
            "stage=encode event=budget_too_small %s needed_bits=%d needed_bytes=%d: %s, or lower select.min_units",
            limit,
            self._wire_bits(camera, message_bytes),
            message_bytes,
            mend,
        )
