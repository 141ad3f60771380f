"""The policies that a video evaluation compares.

In: a scored clip and an uplink rate. Out: `Outcome` with one verdict per frame and the bits spent. Every policy charges
the same hard budget, and the same server with the same classes answers. If a frame has both a server answer and an edge
answer, they are fused as in a run. A sender of plain video or of snapshots has no edge model: such policies are
measured with the server answer alone, and fused, as `NAME+edge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sagelink.lab.harness import Harness, full_evidence, server_answers
from sagelink.lab.video.clip_playback import ClipPlayback, Outcome, Policy
from sagelink.lab.video.scored_clips import ScoredClip
from sagelink.lab.video.snapshot_policies import SNAPSHOT_QUALITY, SnapshotPolicies
from sagelink.lab.video.streams import STREAMS, stream
from sagelink.models.model_contract import own_bits
from sagelink.pipeline.answers import Answer, ServerObservation
from sagelink.pipeline.budget.pace_control import PaceControl
from sagelink.pipeline.budget.pacing import PaceName
from sagelink.pipeline.budget.quota import count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.types import Pixels
from sagelink.stages.codec_planner import Plan
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier_filter import usable_curves
from sagelink.stages.fuse import fuse
from sagelink.stages.lasting_doubt import LastingDoubt
from sagelink.stages.rate_control import RateControl, UtilityCurve, least_gain
from sagelink.stages.scene_fusion import SceneConfig, SceneFusion
from sagelink.stages.scene_tracker import scene_config


@dataclass(frozen=True, slots=True)
class AutoSettings:
    """Settings of the policy `auto`."""

    scene: SceneConfig
    least_gain: float
    zoom: bool
    pace: PaceName


class VideoPolicies:
    """All policies for one pair of models."""

    def __init__(self, harness: Harness, config: Config, fps: float) -> None:
        """Raises UsageError if the frontier lacks a codec that a policy needs."""
        self._harness = harness
        self._config = config
        self._fps = fps
        self._window_s = config.budget.window
        self._auto_settings = AutoSettings(
            scene_config(config.video, config.head is not None), least_gain(config.video), config.zooms, config.pace
        )
        self._gate = Gate(config.gate, own_bits(harness.pair.edge))
        server = harness.pair.server
        self._taught = server.head.taught if server.head else None  # a head has fusion weights of its own
        self._encoder = Encoder.from_config(config, server, self._taught)
        self._utility = UtilityCurve.from_curves(usable_curves(config, server.name, harness.canvas, server.head))
        self._webp = self._encoder_of("webp-frame")
        self._raw = self._encoder_of("raw-zstd")
        encoders = {codec: self._encoder_of(codec) for codec in SNAPSHOT_QUALITY}
        self._snapshots = SnapshotPolicies(harness, encoders, self._gate, self._playback, fps)

    def policies(self) -> dict[str, Policy]:
        """The baselines and `auto`, by name."""
        return {
            "edge": Policy(self._edge_only),
            "webp-each": Policy(self._webp_each),
            **self._snapshots.policies(),
            **{name: Policy(partial(self._stream, name)) for name in STREAMS},
            "paper": Policy(self._paper),
            "stateless": Policy(self._stateless),
            "auto": self._auto_policy("auto", self._auto_settings),
        }

    def ablations(self) -> dict[str, Policy]:
        """`auto` with one setting changed, by name."""
        auto = self._auto_settings
        scene, priced = auto.scene, auto.pace == "adaptive"
        changes = {
            "auto-each-frame-alone": replace(auto, scene=replace(scene, remember=False), zoom=False),
            f"auto-{'no-' if auto.zoom else ''}closer-look": replace(auto, zoom=not auto.zoom),
            "auto-no-cuts": replace(auto, scene=replace(scene, cut=2.0)),
            "auto-edge-not-averaged": replace(auto, scene=replace(scene, accumulate=False)),
            "auto-answers-not-held": replace(auto, scene=replace(scene, hold_s=0.0)),
            f"auto-{'as-needed' if priced else 'adaptive'}": replace(auto, pace="as-needed" if priced else "adaptive"),
            "auto-any-gain": replace(auto, least_gain=0.0),
        }
        return {name: self._auto_policy(name, settings) for name, settings in changes.items()}

    def _edge_only(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Sends nothing."""
        return {"edge": self._playback(clip, rate_bps).outcome()}

    def _webp_each(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Sends every frame as the best WebP within an equal share of the window."""
        playback = self._playback(clip, rate_bps)
        assert playback.budget.limit_bits is not None
        window_frames = math.floor(self._fps * self._window_s) + 1  # a window can hold one frame more than fps x length
        share = playback.budget.limit_bits // window_frames
        plans = {
            seq: self._send_whole(playback, seq, self._webp, min(share, playback.allowance_bits(seq)))
            for seq in range(len(clip.frames))
        }
        return {"webp-each": self._fuse_own_answers(playback, plans)}

    def _stateless(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Sends every frame with an uncertain edge answer with all bits that the window has left."""
        playback = self._playback(clip, rate_bps)
        plans = {
            seq: self._send_whole(playback, seq, self._encoder, playback.allowance_bits(seq))
            for seq in self._unsure_frames(clip)
        }
        return {"stateless": self._fuse_own_answers(playback, plans)}

    def _paper(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Like `stateless`, with raw units in the order of the paper's SAGE."""
        playback = self._playback(clip, rate_bps)
        plans = {}
        for seq in self._unsure_frames(clip):
            frame = clip.frames[seq]
            plans[seq] = playback.send(seq, self._raw, frame.whole, frame.paper_order, playback.allowance_bits(seq))
        return {"paper": self._fuse_own_answers(playback, plans)}

    def _stream(self, name: str, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Sends a video stream; the server classifies the newest decoded frame. With and without fusion."""
        alone = self._playback(clip, rate_bps)
        alone.unknown = [False] * len(clip.frames)  # the rule for unknown pictures is the edge's
        times_s = [frame.stream_s for frame in clip.frames]
        pictures = [frame.whole.draw() for frame in clip.frames]
        received = [*stream(name, pictures, times_s, self._fps, alone.budget)]
        decoded: dict[int, Pixels] = {item[0]: item[1] for item in received if item}
        evidence = [full_evidence(picture, self._harness.canvas) for picture in decoded.values()]
        servers = dict(zip(decoded, server_answers(self._harness.classifier, evidence), strict=True))
        fused = self._playback(clip, rate_bps)
        fused.budget = alone.budget
        weight = self._utility.weight(math.inf)
        for seq, item in enumerate(received):
            if item:
                alone.evidence_seqs[seq] = fused.evidence_seqs[seq] = item[0]
                alone.answers[seq] = servers[item[0]]
                fused.answers[seq] = fuse(fused.answers[seq], servers[item[0]], weight)
        return {name: alone.outcome(), f"{name}+edge": fused.outcome()}

    def _auto_policy(self, name: str, settings: AutoSettings) -> Policy:
        return Policy(lambda clip, rate_bps: {name: self._auto(clip, rate_bps, settings)}, settings)

    def _auto(self, clip: ScoredClip, rate_bps: float, settings: AutoSettings) -> Outcome:
        """Tracks the scene and sends a message where it is expected to improve the verdicts, as `sagelink run` does."""
        playback = self._playback(clip, rate_bps, settings.pace)
        scene, rate_control = SceneFusion(settings.scene), RateControl(self._utility, settings.least_gain)
        lasting = LastingDoubt() if self._taught and settings.scene.remember else None
        for seq, frame in enumerate(clip.frames):
            view = frame.scheduled if settings.zoom and frame.scheduled else frame.whole
            playback.unknown[seq] = view.unknown
            estimate = scene.observe(seq, view.answer, view.look, frame.stream_s, self._taught)
            playback.answers[seq], answer = scene.verdict(), estimate.answer
            playback.evidence_seqs[seq] = estimate.server_seq
            allowance, bit_price = playback.allowance_bits(seq), playback.budget.bit_price(frame.stream_s)
            sends = self._gate.sends(answer, view.answer, self._taught)
            if not (lasting.lasts(sends, frame.stream_s) if lasting else sends):
                continue
            doubt = 1 - (min(answer.prob, view.answer.prob) if self._taught else answer.prob)
            max_bytes = rate_control.max_bytes(
                doubt, estimate.server_weight, allowance / 8, bit_price, estimate.edge_weight
            )
            if max_bytes is None or estimate.waits:
                continue
            encoder = self._encoder
            if not estimate.believes_edge:
                view, encoder = frame.whole, encoder.complete()
            plan = playback.send(seq, encoder, view, view.order, min(8 * max_bytes, allowance))
            if plan is not None:
                scene.register_sent(seq, 8 * len(plan.message) / rate_bps)
                (server,) = self._harness.answers([plan.message])
                scene.add_server_answers([ServerObservation(seq, server.log_probs, plan.weight)])
                playback.answers[seq] = scene.verdict()
                playback.evidence_seqs[seq] = seq
        return playback.outcome()

    def _playback(self, clip: ScoredClip, rate_bps: float, pace: PaceName = "as-needed") -> ClipPlayback:
        """A clip with a budget of its own; the quotas begin with the clip."""
        counts = [count_of(quota.quota()) for quota in self._config.budget.quotas]
        budget = UplinkBudget(rate_bps, self._window_s, counts)
        pacing = PaceControl({"": counts})
        pacing.govern(budget, "")
        pacing.change(pace)
        return ClipPlayback(clip, budget, self._config.encode.max_message)

    def _unsure_frames(self, clip: ScoredClip) -> list[int]:
        return [seq for seq, frame in enumerate(clip.frames) if self._gate.offloads(frame.whole.answer)]

    @staticmethod
    def _send_whole(playback: ClipPlayback, seq: int, encoder: Encoder, limit_bits: int) -> Plan | None:
        whole = playback.frames[seq].whole
        return playback.send(seq, encoder, whole, whole.order, limit_bits)

    def _fuse_own_answers(self, playback: ClipPlayback, plans: dict[int, Plan | None]) -> Outcome:
        """Fuses each server answer into the verdict of its own frame only. `plans`: sent messages by frame."""
        sent = {seq: plan for seq, plan in plans.items() if plan is not None}
        answers: Sequence[Answer] = self._harness.answers([plan.message for plan in sent.values()])
        for (seq, plan), server in zip(sent.items(), answers, strict=True):
            playback.answers[seq] = fuse(playback.answers[seq], server, plan.weight)
            playback.evidence_seqs[seq] = seq
        return playback.outcome()

    def _encoder_of(self, codec: str) -> Encoder:
        encode = self._config.encode.model_copy(update={"codec": codec})
        config = self._config.model_copy(update={"encode": encode})
        return Encoder.from_config(config, self._harness.pair.server, self._taught)
