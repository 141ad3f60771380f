"""Watch: one camera's scene in a run, in three stages of the way from a scored frame to its evidence.

`TrackScene` says of a frame at once what is known of its scene, with the server answers that are in by then; `ValueGate` keeps
the bits where a message is not worth them; `RegisterPending` tells the scene what is on its way, and has what was said at once
told until the reply is there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sagelink.pipeline.accounts import CameraAccount
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.config import Config, VideoConfig
from sagelink.pipeline.types import (
    Answer,
    Drop,
    EdgeOnly,
    Evidence,
    Frame,
    Metered,
    PendingVerdict,
    ProvisionalAnswer,
    Reply,
    Scored,
    Sent,
    ServerObservation,
)
from sagelink.stages.encode import canvas_of, paid_bytes, usable_lines
from sagelink.stages.fuse import spread
from sagelink.stages.rate_control import RateControl, RateControlConfig, UtilityCurve
from sagelink.stages.scene_state import SceneConfig, SceneState

if TYPE_CHECKING:
    from sagelink.models.loading import Model

_NO_CUT = 2.0  # a cosine distance is at most that


def scene_config(video: VideoConfig) -> SceneConfig:
    config = SceneConfig(accumulate=video.average_edge)
    if not video.cuts:
        config = replace(config, cut=_NO_CUT)
    return config if video.hold_answers else replace(config, hold_s=0.0)


def rate_control_config(video: VideoConfig) -> RateControlConfig:
    config = RateControlConfig(save=video.saving)
    return config if video.value_gate else replace(config, least_gain=0.0)


class SceneTracker:
    """What a run knows of one camera's scene while replies are on their way."""

    def __init__(self, config: SceneConfig, weight: Callable[[Evidence, int], float]) -> None:
        """`weight`: of the server's answer to evidence of which it used so many units."""
        self._scene = SceneState(config)
        self._weight = weight
        self._awaited: dict[int, Sent] = {}

    def track(self, scored: Scored, heard: Collection[int] | None = None) -> ProvisionalAnswer:
        """The camera's next frame. `heard`: the frames whose answers count from now on; None: of all that are in."""
        frame = scored.frame
        news = self._news(len(scored.answer.log_probs), heard)
        self._scene.add_server_answers(news)
        estimate = self._scene.observe(frame.seq, scored.answer, scored.edge_view, frame.stream_s)
        return ProvisionalAnswer(Answer.from_log_scores(estimate.scores), estimate, tuple(each.seq for each in news))

    def register_pending(self, sent: Sent) -> None:
        """Evidence of the frame seen last is on its way."""
        self._scene.register_sent(sent.frame.seq)
        self._awaited[sent.frame.seq] = sent

    def _news(self, classes: int, heard: Collection[int] | None) -> list[ServerObservation]:
        """The answers that came in, in order of their frames; those that will not come are forgotten."""
        news = []
        for seq, sent in [*self._awaited.items()]:
            if not sent.reply.done() or (heard is not None and seq not in heard and _reply(sent.reply)):
                continue
            del self._awaited[seq]
            reply = _reply(sent.reply)
            if reply and reply.refusal is None and max(reply.class_ids) < classes:
                news.append(ServerObservation(seq, spread(reply, classes), self._weight(sent.evidence, reply.units)))
        return news


def _reply(future: asyncio.Future[Reply]) -> Reply | None:
    """What came; None where the wait is over without."""
    return None if future.cancelled() or future.exception() else future.result()


class TrackScene:
    def __init__(
        self, trackers: Mapping[str, SceneTracker], heard: Callable[[Frame], Collection[int]] | None = None
    ) -> None:
        """`trackers`: by camera, of those whose scenes are remembered; `heard`: see `SceneTracker.see`."""
        self._trackers = trackers
        self._heard = heard

    async def process(self, metered: Metered) -> Metered:
        watch = self._trackers.get(metered.frame.camera)
        if watch is None:
            return metered
        heard = self._heard(metered.frame) if self._heard else None
        return replace(metered, provisional=watch.track(metered.scored, heard))


class ValueGate:
    def __init__(
        self,
        config: Config,
        worth: UtilityCurve,
        accounts: Mapping[str, CameraAccount],
        wire_bits: Callable[[str, int], int],
    ) -> None:
        """`accounts`: by camera; `wire_bits`: the link's bits for a camera's message of so many bytes."""
        self._spend = RateControl(rate_control_config(config.video), worth)
        self._worth = worth
        self._accounts = accounts
        self._wire_bits = wire_bits
        self._max_message = config.encode.max_message

    @classmethod
    def from_config(
        cls, config: Config, server: Model, accounts: Mapping[str, CameraAccount], wire_bits: Callable[[str, int], int]
    ) -> ValueGate:
        """As a configuration wants it. Raises UsageError."""
        return cls(
            config, UtilityCurve.from_curves(usable_lines(config, server.name, canvas_of(server))), accounts, wire_bits
        )

    async def process(self, metered: Metered) -> Metered | EdgeOnly:
        if metered.provisional is None:
            return metered
        camera = metered.frame.camera
        allowed, limit = (self._bytes(camera, bits) for bits in (metered.allowance_bits, metered.budget_bits))
        if self._worth.weight(limit) == 0:
            return metered  # not even an empty window has room for a message: Encode says so
        doubt, window_s = 1 - metered.answer.prob, self._accounts[camera].own.window_s
        most = self._spend.max_bytes(doubt, metered.provisional.estimate, allowed, limit, window_s)
        if most is None:
            return EdgeOnly(metered, Drop.WORTH if self._worth.weight(allowed) > 0 else Drop.BUDGET)
        return replace(metered, max_bytes=most)

    def _bytes(self, camera: str, bits: int | None) -> float:
        """Of a message that so many bits pay for."""
        return math.inf if bits is None else paid_bytes(partial(self._wire_bits, camera), bits, self._max_message)


class RegisterPending:
    def __init__(self, trackers: Mapping[str, SceneTracker], early: Channel[PendingVerdict]) -> None:
        self._trackers = trackers
        self._early = early

    async def process(self, sent: Sent) -> Sent:
        if watch := self._trackers.get(sent.frame.camera):
            watch.register_pending(sent)
            await self._early.put(PendingVerdict(sent))
        return sent
