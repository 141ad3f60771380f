"""Encodes one picture into the best message of at most N bytes: picture, unit order and limit in, `Plan` out. Pure."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.stages.codec_planner import Plan, SizeRatios, plan_packetized, plan_whole
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.frontier_filter import usable_curves
from sagelink.stages.packetize import Splitter
from sagelink.stages.unit_rectangle import best_rectangle
from sagelink.transport.bundle import PART_BYTES, encode_bundle
from sagelink.transport.codecs import Canvas, CodecFailed, codec_by_name
from sagelink.transport.evidence_message import EdgeAnswer, EvidenceMessage, encode_evidence
from sagelink.transport.patch_embedding import Embedding

if TYPE_CHECKING:
    from sagelink.models.model_contract import ServerModel

log = logging.getLogger(__name__)

# From the side of the crop, as a share of the picture's side, to the crop as a picture (S, S, 3).
ZoomDrawer: TypeAlias = Callable[[float], Pixels]

EncoderFor: TypeAlias = "Callable[[TaughtClasses | None], Encoder]"

_ROWS_FILLED = 0.75  # of one part per grid row: each part holds at least one row, and few rows fill a whole part
_MAX_ENCODERS = 32  # sets of classes


def canvas_of(server: ServerModel) -> Canvas:
    """The picture layout of the server model; without its patch embedding where the edge does not have the weights."""
    embedding = None if server.is_outline else Embedding(*server.embedding())
    return Canvas(server.grid.side, server.grid.patch_size, embedding)


class Encoder:
    """Plans and codes the message with the highest expected agreement under a limit of bytes."""

    def __init__(
        self,
        curves: Sequence[RateQualityCurve],
        canvas: Canvas,
        slack: float = 0.0,
        part_bytes: int | None = None,
    ) -> None:
        """
        `slack`: expected agreement that may be given up for a shorter message.
        `part_bytes`: longest message that fits one datagram, where the transport loses some; longer ones are split.
        """
        self._curves = [*curves]
        whole = (curve.limited(canvas.units, canvas.units) for curve in curves if curve.point.view == 1)
        self._complete = [curve for curve in whole if curve is not None]  # those with all units
        self._canvas = canvas
        self._slack = slack
        self._part_bytes = part_bytes
        self._head = b""
        self._edge_answer: EdgeAnswer | None = None
        self._further: tuple[bytes, ...] = ()

    @classmethod
    def from_config(cls, config: Config, server: ServerModel, taught: TaughtClasses | None = None) -> Encoder:
        """`taught`: the classes that the answers are about; None: those of the server model. Raises UsageError when
        the configuration leaves no usable curve."""
        canvas = canvas_of(server)
        curves = usable_curves(config, server.name, canvas, taught)
        part_bytes = PART_BYTES if config.uses_datagrams else None
        return cls(curves, canvas, config.encode.slack, part_bytes)

    def asking(self, head: bytes, edge_answer: EdgeAnswer | None = None, further: tuple[bytes, ...] = ()) -> Encoder:
        """The same encoder, whose messages name this head and further ones, and hold the edge's own answer."""
        encoder = copy.copy(self)
        encoder._head, encoder._edge_answer, encoder._further = head, edge_answer, further
        return encoder

    @property
    def has_complete(self) -> bool:
        """Whether the frontier has messages with all units."""
        return bool(self._complete)

    def complete(self) -> Encoder:
        """The same encoder for answers that are to be the server's alone: it gives up no agreement for a shorter
        message, and sends all units where the frontier has such messages."""
        encoder = copy.copy(self)
        encoder._slack, encoder._curves = 0.0, self._complete or self._curves
        return encoder

    def fit(
        self,
        seq: int,
        picture: Pixels,
        order: Units,
        max_bytes: int,
        zoom: ZoomDrawer | None = None,
        ratios: SizeRatios | None = None,
    ) -> Plan | int:
        """The best message of at most `max_bytes`; when none fits, the number of bytes that the shortest one needs.

        `picture`: (S, S, 3). `order`: units, best first. `zoom`: draws crops of the picture; None: no crop may be sent.
        `ratios`: of the camera's last frame, see `plan_whole`.
        Raises CodecFailed when every codec fails. A codec that fails where another one works is not used again.
        """
        curves = self._curves
        while True:
            try:
                planned = self._fit_with(curves, seq, picture, order, max_bytes, zoom, ratios)
                break
            except CodecFailed as failure:
                log.debug("event=codec_failed", exc_info=True)
                curves = [curve for curve in curves if curve.point.codec != failure.codec]
                if not any(curve.point.view == 1 for curve in curves):
                    raise
                reason = failure
        if curves is not self._curves:
            log.warning("event=codec_left_out codec=%s reason=%r: using others", reason.codec, str(reason))
            self._curves[:] = curves  # for the encoders that `asking` returned as well
        if isinstance(planned, int):
            return planned
        return replace(planned, point=replace(planned.point, units=len(self.units_at(order, planned.point))))

    def _fit_with(
        self,
        curves: Sequence[RateQualityCurve],
        seq: int,
        picture: Pixels,
        order: Units,
        max_bytes: int,
        zoom: ZoomDrawer | None,
        ratios: SizeRatios | None,
    ) -> Plan | int:
        curves = [curve for curve in curves if zoom is not None or curve.point.view == 1]
        part_bytes = self._part_bytes
        if part_bytes is None or max_bytes <= part_bytes:
            return self._fit_whole(curves, seq, picture, order, max_bytes, zoom, ratios)
        planned = self._fit_packetized(curves, seq, picture, order, max_bytes, part_bytes, zoom)
        if isinstance(planned, int):
            planned = self._fit_whole(curves, seq, picture, order, part_bytes, zoom, ratios)
        return planned

    def _fit_whole(
        self,
        curves: Sequence[RateQualityCurve],
        seq: int,
        picture: Pixels,
        order: Units,
        max_bytes: int,
        zoom: ZoomDrawer | None,
        ratios: SizeRatios | None,
    ) -> Plan | int:
        def encode(point: OperatingPoint, _: float) -> bytes:
            return self.message(seq, picture, order, point, zoom)

        return plan_whole(curves, encode, max_bytes, self._slack, ratios)

    def _fit_packetized(
        self,
        curves: Sequence[RateQualityCurve],
        seq: int,
        picture: Pixels,
        order: Units,
        max_bytes: int,
        part_bytes: int,
        zoom: ZoomDrawer | None,
    ) -> Plan | int:
        coder = PacketCoder(self, self._canvas, part_bytes, seq, order, partial(_picture_at, picture, zoom))
        max_bytes = min(max_bytes, int(_ROWS_FILLED * self._canvas.side * part_bytes))
        return plan_packetized(curves, coder.encode, coder.estimate_bytes, max_bytes, self._slack)

    def message(
        self, seq: int, picture: Pixels, order: Units, point: OperatingPoint, zoom: ZoomDrawer | None = None
    ) -> bytes:
        """The message at one operating point, not split."""
        return self.encode_units(seq, _picture_at(picture, zoom, point.view), self.units_at(order, point), point)

    def units_at(self, order: Units, point: OperatingPoint) -> Units:
        """The units that a message at `point` holds.

        They are the first of `order`; for an image codec, the rectangle with the best of them.
        """
        if point.units < self._canvas.units and codec_by_name(point.codec).sends == "part":
            return best_rectangle(order, point.units, self._canvas.side)
        return order[: point.units]

    def encode_units(self, seq: int, picture: Pixels, units: Units, point: OperatingPoint) -> bytes:
        """The message with exactly these units; `point.units` is ignored."""
        canvas, codec = self._canvas, codec_by_name(point.codec)
        units = np.sort(units)
        try:
            payload = codec.encode(picture, units, point, canvas)
        except Exception as error:  # whatever an image library raises
            raise CodecFailed(point.codec, error) from error
        asked = self._head, self._edge_answer, self._further
        message = EvidenceMessage(seq, canvas.side, canvas.patch_size, codec.number, units, payload, *asked)
        return encode_evidence(message)


def encoders(config: Config, server: ServerModel) -> EncoderFor:
    """Returns a function that gives the encoder for a set of classes: they differ in the weight of the server's
    answers. It raises UsageError when the configuration leaves no usable curve."""
    return lru_cache(_MAX_ENCODERS)(partial(Encoder.from_config, config, server))


class PacketCoder:
    """Codes one frame as a bundle of parts of at most `part_bytes`, so that each part fits one datagram.

    A message that fits one part is returned whole. So is a message whose codec cannot be split (a whole-frame file).
    """

    def __init__(
        self, encoder: Encoder, canvas: Canvas, part_bytes: int, seq: int, order: Units, picture_at: ZoomDrawer
    ) -> None:
        """`order`: units, best first. `picture_at`: the picture, or a crop of it, by `OperatingPoint.view`."""
        self._encoder = encoder
        self._part_bytes = part_bytes
        self._seq = seq
        self._order = order
        self._picture_at = picture_at
        self._splitter = cache(lambda view: Splitter(picture_at(view), canvas, part_bytes))

    def encode(self, point: OperatingPoint, expected_bytes: float) -> bytes | None:
        """The bundle at `point`; None where the message cannot be split into parts that are short enough.

        `expected_bytes`: of the message before the split; a short one is first coded whole.
        """
        splittable = codec_by_name(point.codec).sends != "whole"
        if not splittable or expected_bytes <= self._part_bytes:
            message = self._whole(point)
            if not splittable or len(message) <= self._part_bytes:
                return message
            expected_bytes = len(message)
        encode_part = partial(self._encoder.encode_units, self._seq, self._picture_at(point.view))
        units = self._encoder.units_at(self._order, point)
        parts = self._splitter(point.view).split(units, point, expected_bytes, encode_part)
        return None if parts is None else encode_bundle(self._seq, parts)

    def estimate_bytes(self, point: OperatingPoint) -> int:
        """About the size of the bundle at `point`, from one coding of the whole message."""
        return self._splitter(point.view).bundle_bytes(len(self._whole(point)))

    def _whole(self, point: OperatingPoint) -> bytes:
        units = self._encoder.units_at(self._order, point)
        return self._encoder.encode_units(self._seq, self._picture_at(point.view), units, point)


def _picture_at(picture: Pixels, zoom: ZoomDrawer | None, view: float) -> Pixels:
    """The picture itself for view 1, else the crop whose side is `view` of the picture's."""
    if view == 1:
        return picture
    assert zoom is not None, "a curve with view < 1 is used only where crops can be drawn"
    return zoom(view)
