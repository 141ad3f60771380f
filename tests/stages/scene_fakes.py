"""Frames of one scene at several steps of a run, for the tests of scene tracking and smoothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Reply, Scored, Sent
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.fuse import Fuse
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.scene_tracker import SceneTracker
from tests.fakes import SIDE, make_evidence, make_metered, make_reply, make_scored

FUSE = Fuse(False, {0.0: 4.0}, SIDE**2)
UNSURE = (0.4, 0.3, 0.1, 0.1, 0.1)  # class 0; the server of make_reply answers 2


def scored(seq: int, camera: str = "camera", probs: Iterable[float] = UNSURE) -> Scored:
    """A frame of a scene in which all frames look alike."""
    made, first = make_scored(seq, seq / 10, probs), make_scored(0)
    frame = replace(made.frame, camera=camera, pixels=first.picture)
    return replace(made, frame=frame, picture=first.picture, edge_view=first.edge_view)


def make_tracker(trust: EdgeTrust | None = None) -> SceneTracker:
    return SceneTracker(SceneConfig(), FUSE.weight, trust)


def sent(seq: int, tracker: SceneTracker | None = None) -> Sent:
    """Evidence on its way; with a tracker, its frame is tracked and the evidence registered."""
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    made = make_evidence(seq)
    metered = make_metered(scored(seq))
    if tracker:
        metered = replace(metered, provisional=tracker.track(metered.scored))
    evidence = replace(made, selected=replace(made.selected, metered=metered))
    sent = Sent(evidence, 0.0, evidence.wire_bits, 0, reply)
    if tracker:
        tracker.register_pending(sent)
    return sent


def answered(sent: Sent, units: int = 3) -> Answered:
    return Answered(sent, make_reply(sent.frame.seq, units), 1.0)


def edge_only(seq: int, tracker: SceneTracker, camera: str = "camera") -> EdgeOnly:
    """A tracked frame that the gate stops."""
    metered = make_metered(scored(seq, camera))
    return EdgeOnly(replace(metered, provisional=tracker.track(metered.scored)), Drop.GATE)
