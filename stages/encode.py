"""Encode stage: codes a frame's units into the best message that its allowance pays for. `Selected` in, `Evidence` out.

A frame for which no message fits leaves as `EdgeOnly`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np

from sagelink.pipeline.types import WHOLE, Box, Drop, EdgeOnly, Evidence, Frame, Metered, Pixels, Scored, Selected
from sagelink.stages.budget_meter import affordable_bytes
from sagelink.stages.codec_planner import SizeRatios
from sagelink.stages.evidence_encoder import Encoder, EncoderFor
from sagelink.stages.zoom import ZoomCrop
from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.evidence_message import EdgeAnswer

log = logging.getLogger(__name__)


class Encode:
    def __init__(
        self,
        encoder_for: EncoderFor,
        wire_bits: Callable[[str, int], int],
        max_message: int,
        zoom_crop: Callable[[Scored], ZoomCrop | None] = lambda scored: None,
        link_limit: Callable[[str], int] = lambda camera: MAX_MESSAGE_BYTES,
        edge_answer: bool = False,
        further: Callable[[Scored], tuple[bytes, ...]] = lambda scored: (),
        draw: Callable[[Frame, Box], Pixels] | None = None,
    ) -> None:
        """
        `encoder_for`: by the classes of a frame.
        `wire_bits`: bits on the wire of a message, by camera and message bytes.
        `max_message`: bytes of the longest message.
        `zoom_crop`: the crops of a frame that may be sent in place of its whole view; None: no crop.
        `link_limit`: bytes of the longest message that the link carries now, by camera.
        `edge_answer`: messages hold the edge's own answer.
        `further`: ids of the further heads that are to answer for a frame.
        `draw`: the picture of a part of a frame; needed where the edge scores crops of tracked scenes.
        """
        self._draw = draw
        self._further = further
        self._encoder_for = encoder_for
        self._edge_answer = edge_answer
        self._wire_bits = wire_bits
        self._max_message = max_message
        self._zoom_crop = zoom_crop
        self._link_limit = link_limit
        self._warned = False
        self._ratios: defaultdict[str, SizeRatios] = defaultdict(SizeRatios)  # by camera

    async def process(self, selected: Selected) -> Evidence | EdgeOnly:
        began = time.perf_counter()
        frame, scored, order = selected.frame, selected.metered.scored, selected.order
        max_bytes, zoom = self._max_bytes(selected), self._zoom_crop(scored)
        further = self._further(scored)
        encoder, provisional = self._encoder(scored, further), selected.metered.provisional
        picture, crop = scored.picture, scored.edge_view.crop
        if provisional is not None and not provisional.estimate.believes_edge:
            encoder = encoder.complete()
            if crop != WHOLE and encoder.has_complete:  # the edge has chosen the crop, and ordered its units
                assert self._draw is not None
                picture, crop = self._draw(frame, WHOLE), WHOLE
        planned = encoder.fit(frame.seq, picture, order, max_bytes, zoom, self._ratios[frame.camera])
        if isinstance(planned, int):
            self._warn_too_small(frame.camera, planned, selected.metered)
            return EdgeOnly(selected, Drop.BUDGET)
        return Evidence(
            selected=selected,
            units=np.sort(encoder.units_at(order, planned.point)),
            point=planned.point,
            weight=planned.weight,
            message=planned.message,
            wire_bits=self._wire_bits(frame.camera, len(planned.message)),
            encode_ms=(time.perf_counter() - began) * 1e3,
            crop=zoom.crop(planned.point.view) if zoom and planned.point.view < 1 else crop,
            further=further,
        )

    def _encoder(self, scored: Scored, further: tuple[bytes, ...]) -> Encoder:
        """The encoder for the frame's classes; its messages name the heads."""
        encoder, answer = self._encoder_for(scored.taught), None
        if self._edge_answer:
            answer = EdgeAnswer(None if scored.unknown else scored.answer.class_id, scored.answer.prob)
        return encoder.asking(scored.taught.head_id if scored.taught else b"", answer, further)

    def _max_bytes(self, selected: Selected) -> int:
        """Bytes of the longest message that the link, the allowance and the value gate permit."""
        metered, max_bytes = selected.metered, min(self._max_message, self._link_limit(selected.frame.camera))
        if metered.max_bytes is not None:
            max_bytes = min(max_bytes, metered.max_bytes)
        if metered.allowance_bits is None:
            return max_bytes
        return affordable_bytes(partial(self._wire_bits, selected.frame.camera), metered.allowance_bits, max_bytes)

    def _warn_too_small(self, camera: str, message_bytes: int, metered: Metered) -> None:
        """Warns once about a frame that could not be sent even in an empty window."""
        if self._warned:
            return
        if message_bytes > (link_limit := self._link_limit(camera)):
            limit, remedy = (
                f"link_max_message_bytes={link_limit}",
                "raise the broker's longest packet (max_packet_size)",
            )
        elif message_bytes > self._max_message:
            limit, remedy = f"max_message_bytes={self._max_message}", "raise encode.max_message"
        elif metered.budget_bits is not None and self._wire_bits(camera, message_bytes) > metered.budget_bits:
            limit, remedy = f"limit_bits={metered.budget_bits}", "raise the rate, the window or the quota"
        else:
            return
        self._warned = True
        log.warning(
            "stage=encode event=budget_too_small %s needed_bits=%d needed_bytes=%d: %s, or lower select.min_units",
            limit,
            self._wire_bits(camera, message_bytes),
            message_bytes,
            remedy,
        )
