"""Assembles the edge's stage graph from the parts of a run. This module is the picture in docs/architecture.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sagelink.app.replay.reply_deadline import REPLAY_DEADLINE_S
from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.clock import BudgetClock, MonotonicClock
from sagelink.pipeline.graph import Chain, Graph, Stage
from sagelink.pipeline.threads import InThread
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Frame, Metered, Scored, Selected, Sent, Verdict
from sagelink.stages.budget_meter import Claim, Meter
from sagelink.stages.capture import MergedCaptures
from sagelink.stages.confidence_gate import EndRequest
from sagelink.stages.encode import Encode
from sagelink.stages.nvr.capture import EventCapture
from sagelink.stages.nvr.private_gate import PrivateGate
from sagelink.stages.rate_control import ValueGate, check_curves
from sagelink.stages.scene_tracker import RegisterPending, SceneTracker, TrackScene, scene_config
from sagelink.stages.score import Score
from sagelink.stages.select import Select
from sagelink.stages.ship import AHEAD, Collect, Pace, Reserve, Ship, Uplink
from sagelink.stages.still_scenes import ScoreChanges, StillDetector
from sagelink.stages.zoom import ZoomCrop, ZoomSchedule

if TYPE_CHECKING:
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.app.replay.script import Script
    from sagelink.models.run_models import RunModels
    from sagelink.pipeline.budget.camera_accounts import CameraAccount
    from sagelink.pipeline.config.schema import Config
    from sagelink.stages.capture import Capture
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.edge_trust import EdgeTrust
    from sagelink.stages.evidence_encoder import EncoderFor
    from sagelink.stages.fuse import Fuse
    from sagelink.stages.verdict_recorder import Recorder
    from sagelink.transport.link import EdgeLink

_MAX_BATCH = 8  # frames that one forward pass of the edge model scores
_USEFUL_BITS = 8 * 2400  # a message that keeps nearly all of the server's accuracy: docs/codec.md
_WORK = (Frame, Scored, Metered, Selected, Evidence, Sent, Answered)

Routes = dict[type[Any], Channel[Any]]


@dataclass(frozen=True, slots=True)
class EdgeParts:
    """The parts of a run that its graph is assembled from."""

    config: Config
    models: RunModels
    captures: Sequence[Capture]
    accounts: Mapping[str, CameraAccount]  # by camera
    gate: Gate
    encoder_for: EncoderFor
    heads: HeadsOfRun
    fuse: Fuse
    recorder: Recorder
    link: EdgeLink
    clock: BudgetClock
    alerts: AlertCharges = field(default_factory=AlertCharges)
    trusts: Mapping[str, EdgeTrust] = field(default_factory=dict)  # by camera, of those whose scenes are tracked
    script: Script | None = None  # in an exact replay: replaces the captures, the clock and the server
    reserve: Reserve | None = None  # where a ledger on disk covers charges

    @property
    def tracked_cameras(self) -> Collection[str]:
        """Cameras whose scenes are tracked."""
        return self.trusts.keys()

    @property
    def live(self) -> bool:
        """A live run drops frames that it has no time for; a replay, whose clock is the stream's time, waits."""
        return isinstance(self.clock, MonotonicClock)


def edge_graph(parts: EdgeParts) -> Graph:
    """capture -> score -> offload (see `_offload`) -> collect -> fuse -> record.

    A frame that keeps its edge answer leaves any stage as `EdgeOnly` and goes straight to fuse, over `decided`.
    """
    config, in_flight = parts.config, parts.config.ship.in_flight
    graph = Graph(partial(_rescue, parts.fuse))
    decided = graph.channel("decided")
    edge_only: Routes = {EdgeOnly: decided}
    deadline_s = config.ship.deadline if parts.live else None
    uplink = Uplink(parts.link, in_flight, deadline_s, parts.alerts.pending)
    score = _score(parts)

    frames = _capture(graph, parts, edge_only)
    scored = graph.stage(
        InThread("score", _score_changes(parts, score)), frames, name="score", routes=edge_only, batch=_max_batch(parts)
    )
    offload = _offload(parts, uplink, score, decided)
    sent = graph.stage(offload, scored, name="offload", routes=edge_only, capacity=in_flight)
    collect = Collect(uplink, config.ship.deadline if parts.live else REPLAY_DEADLINE_S, parts.accounts)
    graph.stage(collect, sent, workers=in_flight, routes={EdgeOnly: decided, Answered: decided})
    fuse = Chain([parts.script.drops, parts.fuse]) if parts.script else parts.fuse
    verdicts = graph.stage(fuse, decided, name="fuse")
    graph.stage(InThread("record", parts.recorder.write), verdicts, name="record")
    return graph


def verdict_on(leftover: object, fuse: Fuse) -> Verdict | None:
    """The verdict on an item that was still inside the graph when it ended; None when the item belongs to no frame."""
    if isinstance(leftover, Verdict):
        return leftover
    if isinstance(leftover, EdgeOnly | Answered):
        return fuse.decide(leftover)
    return fuse.decide(EdgeOnly(leftover, Drop.STOPPED)) if isinstance(leftover, _WORK) else None


def _rescue(fuse: Fuse, item: object, error: Exception | None) -> object:
    """A frame whose stage failed, or that a newer frame displaced, keeps its edge answer."""
    if isinstance(item, Answered):  # the fuse stage could not use the reply, and its arrow carries verdicts
        return fuse.decide(EdgeOnly(item, Drop.ERROR))
    return EdgeOnly(item, Drop.ERROR if error else Drop.SUPERSEDED) if isinstance(item, _WORK) else None


def _capture(graph: Graph, parts: EdgeParts, edge_only: Routes) -> Channel[Any]:
    """Adds the sources; returns the channel of their frames."""
    if parts.script:
        return graph.source(parts.script.frames, name="capture", routes=edge_only)
    if not parts.live:
        return graph.source(MergedCaptures(parts.captures), name="capture", routes=edge_only)
    # Only the newest frame of each camera waits; frames of several cameras are scored as one batch. An event does
    # not replace another one; few of them wait here, because their source waits for verdicts.
    frames = graph.channel("frames", "latest", key=lambda frame: (frame.camera, frame.event and frame.event.id))
    for capture in parts.captures:
        if isinstance(capture, EventCapture):
            capture.limit_by(partial(_has_bits, parts.accounts[capture.name], parts.clock))
        graph.source(capture, name=f"capture-{capture.name}", routes=edge_only | {Frame: frames})
    return frames


def _has_bits(account: CameraAccount, clock: BudgetClock) -> bool:
    """Whether an event finds enough bits for a useful message, or half of what the budget ever grants."""
    assert isinstance(clock, MonotonicClock)
    allowance, limit = account.allowance(clock.elapsed_s()), account.limit_bits
    return allowance is None or limit is None or allowance >= min(limit // 2, _USEFUL_BITS)


def _score(parts: EdgeParts) -> Score:
    config = parts.config
    schedules = {camera: ZoomSchedule() for camera in parts.tracked_cameras} if config.zooms else {}
    grid, heads = parts.models.server.grid, parts.heads
    importance, resize = config.select.importance, config.capture.resize
    return Score(parts.models.edge, grid, importance, resize, schedules, heads.edge_model, heads.further.of_frame)


def _score_changes(parts: EdgeParts, score: Score) -> Score | ScoreChanges:
    interval_s = parts.config.video.still_interval
    if interval_s is None:
        return score
    detectors = {camera: StillDetector(interval_s) for camera in parts.tracked_cameras}
    return ScoreChanges(score, detectors, parts.heads.classes_of)


def _max_batch(parts: EdgeParts) -> int:
    """A run that must be repeatable scores its frames one by one: a batch changes the last bits of the answers, and
    timing decides which frames share a batch."""
    return _MAX_BATCH if parts.live and parts.config.output.record is None else 1


def _offload(parts: EdgeParts, uplink: Uplink, score: Score, decided: Channel[Any]) -> Chain:
    """private gate, pace, meter, track scene, gate, value gate, claim, select, encode, ship, register pending.

    One frame at a time is inside, from asking the budget to charging it, so the bits that a frame may spend do not
    depend on timing.
    """
    config, accounts, script = parts.config, parts.accounts, parts.script
    scripted: list[Stage] = [script] if script else []
    trackers = {
        name: SceneTracker(scene_config(config.video, config.head is not None), parts.fuse.weight, trust)
        for name, trust in parts.trusts.items()
    }
    stages = [
        PrivateGate(),
        *scripted,
        *_pace(parts, uplink),
        Meter(accounts, script.ask_clock if script else parts.clock),
        TrackScene(trackers, script.received if script else None),
        parts.gate,
        *_value_gate(parts),
        Claim(accounts),
        Select(config.select),
        Encode(
            parts.encoder_for,
            parts.link.wire_bits,
            config.encode.max_message,
            _zoom_crop(parts, score),
            parts.link.max_message_bytes,
            config.ship.edge_answer or (parts.live and config.sends_digest),
            script.further if script else partial(_further_ids, parts),
            score.draw,
        ),
        *scripted,
        Ship(uplink, accounts, script.charge_clock if script else parts.clock, not parts.live, parts.reserve),
        EndRequest(parts.gate),
        RegisterPending(trackers, decided),
    ]
    return Chain(stages, exits=(EdgeOnly,))


def _further_ids(parts: EdgeParts, scored: Scored) -> tuple[bytes, ...]:
    """Ids of the frame's further heads, each once. A live run leaves out those with which the server cannot answer yet;
    in a replay the server waits for them, so that the results do not depend on timing."""
    link, first = parts.link, scored.taught.head_id if scored.taught else b""
    found = {
        answer.taught.head_id: None
        for answer in scored.further
        if not parts.live or link.head_refusal(answer.taught.fingerprint) is None
    }
    return tuple(head_id for head_id in found if head_id != first)


def _pace(parts: EdgeParts, uplink: Uplink) -> list[Stage]:
    """In a replay a frame waits for the replies to earlier ones: what is known of its scene must not depend on the time
    at which replies arrive."""
    if parts.live:
        return []
    return [Pace(uplink, lambda camera: 1 if camera in parts.tracked_cameras else AHEAD)]


def _value_gate(parts: EdgeParts) -> list[Stage]:
    """The gate on expected gain needs the measured weights of server answers. It lets all frames pass that are neither
    of a tracked scene nor priced; the pace may change during the run."""
    if not parts.config.weighs_messages:
        return []
    link, server = parts.link, parts.models.server
    if parts.tracked_cameras or parts.config.pace == "adaptive":
        check_curves(parts.config, server)
    return [ValueGate.from_config(parts.config, server, link.wire_bits, link.max_message_bytes)]


def _zoom_crop(parts: EdgeParts, score: Score) -> Callable[[Scored], ZoomCrop | None]:
    """Returns a function that offers the encoder a zoom into a frame. Where scenes are tracked, `ZoomSchedule` has
    chosen the crop before scoring, so there is none."""

    def zoom_crop(scored: Scored) -> ZoomCrop | None:
        if scored.frame.camera in parts.tracked_cameras:
            return None
        return ZoomCrop(scored.edge_view.crop, scored.importance, partial(score.draw, scored.frame))

    return zoom_crop
