"""Tracks the scene of each camera in a run: scored frames and server replies in, provisional answers out.

`TrackScene` gives each frame at once the answer for its scene, from all server answers that have arrived.
`RegisterPending` tells the scene which evidence is on its way, and passes on the frame's provisional verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from sagelink.pipeline.answers import ProvisionalAnswer, ServerObservation
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.config.stages import VideoConfig
from sagelink.pipeline.types import Evidence, Frame, Metered, PendingVerdict, Reply, Scored, Sent
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.fuse import spread
from sagelink.stages.scene_fusion import SceneConfig, SceneFusion

STATE_S, _STATE_HOLD_S = 0.4, 2.0  # memory for edge and server answers where the classes are states
_NO_CUT = 2.0  # the largest cosine distance


def scene_config(video: VideoConfig, own_classes: bool = False) -> SceneConfig:
    """`own_classes`: they are taught, and may be states of one scene."""
    config = SceneConfig(accumulate=video.average_edge)
    if own_classes:  # a state may change slowly, without a cut and without a clear answer
        config = replace(config, states=True, forget_s=STATE_S, hold_s=_STATE_HOLD_S)
    if not video.cuts:
        config = replace(config, cut=_NO_CUT)
    return config if video.hold_answers else replace(config, hold_s=0.0)


class SceneTracker:
    """The scene of one camera, with the replies that it waits for."""

    def __init__(
        self, config: SceneConfig, weight: Callable[[Evidence, int], float], trust: EdgeTrust | None = None
    ) -> None:
        """`weight`: of the server's answer, by the evidence and the number of units that the server used. `trust`: see
        `SceneFusion`."""
        self._scene = SceneFusion(config, trust)
        self._weight = weight
        self.pending: dict[int, Sent] = {}  # by seq

    def track(self, scored: Scored, observed_seqs: Collection[int] | None = None) -> ProvisionalAnswer:
        """The answer to the camera's next frame. `observed_seqs`: frames whose server answers count from now on; None:
        all that have arrived."""
        frame = scored.frame
        observations = self._new_observations(scored, observed_seqs)
        self._scene.add_server_answers(observations)
        estimate = self._scene.observe(frame.seq, scored.answer, scored.edge_view, frame.stream_s, scored.taught)
        observed = tuple(observation.seq for observation in observations)
        return ProvisionalAnswer(estimate.answer, self._scene.verdict(), estimate, observed)

    def register_pending(self, sent: Sent) -> None:
        """Evidence of the newest tracked frame is on its way."""
        rate_bps = sent.evidence.selected.metered.rate_bps
        self._scene.register_sent(sent.frame.seq, sent.evidence.wire_bits / rate_bps if rate_bps else 0.0)
        self.pending[sent.frame.seq] = sent

    def _new_observations(self, scored: Scored, observed_seqs: Collection[int] | None) -> list[ServerObservation]:
        """The answers that have arrived, in order of their frames; messages that get no answer are given up, and so are
        answers with other classes than those of the newest frame."""
        observations, classes = [], len(scored.answer.log_probs)
        for seq, sent in [*self.pending.items()]:
            reply = _reply(sent.reply)
            if not sent.reply.done() or (reply and observed_seqs is not None and seq not in observed_seqs):
                continue
            del self.pending[seq]
            same = sent.evidence.selected.metered.scored.taught == scored.taught
            if same and reply and reply.refusal is None and max(reply.class_ids) < classes:
                weight = self._weight(sent.evidence, reply.units)
                observations.append(ServerObservation(seq, spread(reply.top, classes), weight))
        return observations


def _reply(future: asyncio.Future[Reply]) -> Reply | None:
    """The reply; None where there is none yet, or will be none."""
    return None if not future.done() or future.cancelled() or future.exception() else future.result()


class TrackScene:
    """Stage: adds the provisional answer to each frame of a tracked camera."""

    def __init__(
        self,
        trackers: Mapping[str, SceneTracker],
        observed_seqs: Callable[[Frame], Collection[int]] | None = None,
    ) -> None:
        """`trackers`: by camera, of those that are tracked. `observed_seqs`: see `SceneTracker.track`."""
        self._trackers = trackers
        self._observed_seqs = observed_seqs

    async def process(self, metered: Metered) -> Metered:
        tracker = self._trackers.get(metered.frame.camera)
        if tracker is None:
            return metered
        observed_seqs = self._observed_seqs(metered.frame) if self._observed_seqs else None
        return replace(metered, provisional=tracker.track(metered.scored, observed_seqs))


class RegisterPending:
    """Stage: registers sent evidence with its scene, and puts its provisional verdict into `pending`."""

    def __init__(self, trackers: Mapping[str, SceneTracker], pending: Channel[PendingVerdict]) -> None:
        """`trackers`: by camera, of those that are tracked."""
        self._trackers = trackers
        self._pending = pending

    async def process(self, sent: Sent) -> Sent:
        if tracker := self._trackers.get(sent.frame.camera):
            tracker.register_pending(sent)
            await self._pending.put(PendingVerdict(sent))
        return sent
