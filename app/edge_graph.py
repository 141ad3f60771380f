"""The edge's stage graph, assembled from a configuration. This module is the picture in docs/architecture.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sagelink.app.deadlines import REPLAY_DEADLINE_S
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.clock import BudgetClock, MonotonicClock
from sagelink.pipeline.graph import Chain, Graph
from sagelink.pipeline.threads import InThread
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Frame, Metered, Scored, Selected, Sent, Verdict

if TYPE_CHECKING:
    from sagelink.app.script import Script
    from sagelink.models.pair import Pair
    from sagelink.pipeline.accounts import CameraAccount
    from sagelink.pipeline.config import Config
    from sagelink.stages.capture import Capture
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.encoder import Encoder
    from sagelink.stages.fuse import Fuse
    from sagelink.stages.record import Recorder
    from sagelink.stages.reference_tracker import ReferenceTracker
    from sagelink.stages.zoom import ZoomCrop
    from sagelink.transport.link import EdgeLink

_LARGEST_BATCH = 8
_WORK = (Frame, Scored, Metered, Selected, Evidence, Sent, Answered)


def edge_graph(
    config: Config,
    models: Pair,
    captures: Sequence[Capture],
    encoder: Encoder,
    link: EdgeLink,
    accounts: Mapping[str, CameraAccount],
    fuse: Fuse,
    recorder: Recorder,
    gate: Gate,
    clock: BudgetClock,
    video: Collection[str] = (),
    script: Script | None = None,
) -> Graph:
    """capture -> score -> meter, see, gate, afford, claim, select, encode, ship, await -> collect -> fuse -> record.

    A frame that keeps its edge answer leaves as Kept for the fuse stage, from wherever it is. Live runs, whose budget
    is on the monotonic clock, drop what they cannot keep up with; replays, on the stream's time, wait. A `script` takes
    the place of the captures and of all that the outside world decides. `video`: cameras whose scenes are remembered.
    """
    from sagelink.stages.capture import MergedCaptures
    from sagelink.stages.encode import Encode
    from sagelink.stages.meter import Claim, Meter
    from sagelink.stages.rate_control import ValueGate
    from sagelink.stages.scene_tracker import RegisterPending, SceneTracker, TrackScene, scene_config
    from sagelink.stages.score import Score
    from sagelink.stages.select import Select
    from sagelink.stages.ship import AHEAD, Collect, Pace, Ship, Uplink
    from sagelink.stages.zoom import ZoomCrop, ZoomSchedule

    live = isinstance(clock, MonotonicClock)
    reference_trackers = _reference_trackers(config, models, [*accounts])
    uplink = Uplink(link, config.ship.in_flight, config.ship.deadline if live else None, reference_trackers)
    looks = {name: ZoomSchedule() for name in video} if config.zooms else {}
    score = Score(models.edge, models.server.grid, config.select.importance, config.capture.resize, looks)
    asked, charged = (script.asked, script.charged) if script else (clock, clock)
    told = [script] if script else []
    # What a scene knows, and what the server is known to remember, must not depend on when replies come: frames wait.
    paced = [] if live else [Pace(uplink, lambda camera: 1 if camera in video or reference_trackers else AHEAD)]
    trackers = {name: SceneTracker(scene_config(config.video), fuse.weight) for name in video}
    by_worth = video and config.fuse.rule == "weighted" and config.fuse.weights is None
    afford = [ValueGate.from_config(config, models.server, accounts, link.wire_bits)] if by_worth else []

    def rescue(item: object, error: Exception | None) -> object:
        """A frame whose stage failed, or that a newer one displaced, keeps its edge answer."""
        if isinstance(item, Answered):  # the reply made no sense to the fuse stage, whose arrow carries verdicts
            return fuse.decide(EdgeOnly(item, Drop.ERROR))
        return EdgeOnly(item, Drop.ERROR if error else Drop.SUPERSEDED) if isinstance(item, _WORK) else None

    def closer(scored: Scored) -> ZoomCrop | None:
        """Where scenes are remembered, `looks` decide what is looked at."""
        if scored.frame.camera in video:
            return None
        return ZoomCrop(scored.edge_view.crop, scored.importance, partial(score.draw, scored.frame))

    graph = Graph(rescue)
    decided = graph.channel("decided")
    # One frame at a time from asking the budget to charging it: what a frame may spend never depends on timing.
    offload = Chain(
        [
            *told,
            *paced,
            Meter(accounts, asked),
            TrackScene(trackers, script.heard if script else None),
            gate,
            *afford,
            Claim(accounts),
            Select(config.select, reference_trackers),
            Encode(encoder, link.wire_bits, config.encode.max_message, reference_trackers, closer),
            *told,
            Ship(uplink, accounts, charged, wait_for_place=not live),
            RegisterPending(trackers, decided),
        ],
        exits=(EdgeOnly,),
    )
    collect = Collect(uplink, config.ship.deadline if live else REPLAY_DEADLINE_S)
    keep: dict[type[Any], Channel[Any]] = {EdgeOnly: decided}
    if script:
        frames = graph.source(script.frames, name="capture", routes=keep)
    elif live:
        # The newest frame of each camera; when several wait, they are scored as one batch.
        frames = graph.channel("frames", "latest", key=lambda frame: frame.camera)
        for capture in captures:
            graph.source(capture, name=f"capture-{capture.name}", routes=keep | {Frame: frames})
    else:
        frames = graph.source(MergedCaptures(captures), name="capture", routes=keep)
    # What has to come out the same again is scored one by one: a batch changes the last bits of the answers, and who
    # waits together depends on timing.
    batch = _LARGEST_BATCH if live and config.output.record is None else 1
    scored = graph.stage(InThread("score", score), frames, name="score", routes=keep, batch=batch)
    sent = graph.stage(offload, scored, name="offload", routes=keep, capacity=config.ship.in_flight)
    graph.stage(collect, sent, workers=config.ship.in_flight, routes={EdgeOnly: decided, Answered: decided})
    verdicts = graph.stage(Chain([script.outcomes, fuse]) if script else fuse, decided, name="fuse")
    graph.stage(InThread("record", recorder.write), verdicts, name="record")
    return graph


def _reference_trackers(config: Config, models: Pair, cameras: Sequence[str]) -> dict[str, ReferenceTracker]:
    """By camera; none where the server is not to remember."""
    from sagelink.stages.reference_tracker import ReferenceTracker

    if (age_s := config.select.memory) is None:
        return {}
    return {name: ReferenceTracker(models.server.grid.patch_size, age_s, config.select.min_units) for name in cameras}


def verdict_on(leftover: object, fuse: Fuse) -> Verdict | None:
    """The verdict on what was still inside the graph when it ended; None for what is no frame's."""
    if isinstance(leftover, Verdict):
        return leftover
    if isinstance(leftover, EdgeOnly | Answered):
        return fuse.decide(leftover)
    return fuse.decide(EdgeOnly(leftover, Drop.STOPPED)) if isinstance(leftover, _WORK) else None
