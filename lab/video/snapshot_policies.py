"""Baselines that send single pictures: periodic and motion-gated snapshots, filtered frames, and a second look.

In: a scored clip and an uplink rate. Out: outcomes with the server's answers alone (a camera without an edge model) and
fused with the edge's (`NAME+edge`). An answer holds until the next one. Sources:

- motion-gated snapshots: what video recorders do that classify a snapshot when something moves.
- frame filtering: Reducto (SIGCOMM 2020): frames that differ little from the last sent one are dropped at the camera;
  the threshold follows the differences of the last frames, so that the sent ones use the rate.
- second look: DDS (SIGCOMM 2020) and Arena (arXiv:2404.09245): each picture in low quality first; in high quality where
  the server is unsure, or the picture has changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sagelink.lab.harness import Harness
from sagelink.lab.video.clip_playback import ClipPlayback, Outcome, Policy
from sagelink.lab.video.scored_clips import ScoredClip
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.codec_planner import Plan
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.fuse import fuse

SNAPSHOT_QUALITY = {"webp-frame": 80, "avif-frame": 60}  # a full snapshot, by codec
_MOTION = 0.02  # mean difference of grey levels (0..1) to the last sent picture
_HISTORY = 50  # frames whose differences set the threshold of the filter
_LOW_SHARE = 0.1  # of the window: a picture in low quality


@dataclass(slots=True)
class _Run:
    """A policy on a clip: what was sent, and when."""

    playback: ClipPlayback
    sent: dict[int, Plan] = field(default_factory=dict)  # by seq
    last: int | None = None  # seq of the last picture that differences are taken from

    def difference(self, seq: int) -> float:
        """To the last sent picture; infinite before the first."""
        if self.last is None:
            return float("inf")
        frames = self.playback.frames
        return float(np.abs(frames[seq].whole.look.thumbnail - frames[self.last].whole.look.thumbnail).mean())


class SnapshotPolicies:
    def __init__(
        self,
        harness: Harness,
        encoders: Mapping[str, Encoder],
        gate: Gate,
        playback: Callable[[ScoredClip, float], ClipPlayback],
        fps: float,
    ) -> None:
        """`encoders`: by codec, of `SNAPSHOT_QUALITY`. `gate`: whether the server is unsure."""
        self._harness = harness
        self._encoders = encoders
        self._gate = gate
        self._playback = playback
        self._fps = fps

    def policies(self) -> dict[str, Policy]:
        """The policies by name; each gives two outcomes."""
        return {
            "webp-periodic": Policy(partial(self._periodic, "webp-frame")),
            "avif-periodic": Policy(partial(self._periodic, "avif-frame")),
            "motion-snapshots": Policy(self._motion_snapshots),
            "frame-filter": Policy(self._frame_filter),
            "second-look": Policy(self._second_look),
        }

    def _periodic(self, codec: str, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """A full snapshot, or the best that fills an empty window, whenever the window has room for it."""
        run = _Run(self._playback(clip, rate_bps))
        for seq in range(len(clip.frames)):
            self._send_full(run, seq, codec)
        return self._outcomes(f"{codec.removesuffix('-frame')}-periodic", run)

    def _motion_snapshots(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """A full snapshot when the picture differs from the last sent one."""
        run = _Run(self._playback(clip, rate_bps))
        for seq in range(len(clip.frames)):
            if run.difference(seq) > _MOTION and self._send_full(run, seq, "webp-frame"):
                run.last = seq
        return self._outcomes("motion-snapshots", run)

    def _frame_filter(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """A full snapshot of the frames that differ most, as many as the rate carries."""
        run = _Run(self._playback(clip, rate_bps))
        differences: deque[float] = deque(maxlen=_HISTORY)
        share = 1.0  # of the frames that the rate carries as full snapshots
        for seq in range(len(clip.frames)):
            difference = run.difference(seq)
            threshold = float(np.quantile(differences, 1 - share)) if differences else -1.0
            if difference > threshold and (plan := self._send_full(run, seq, "webp-frame")):
                run.last = seq
                share = min(1.0, rate_bps / (8 * len(plan.message) * self._fps))
            if np.isfinite(difference):
                differences.append(difference)
        return self._outcomes("frame-filter", run)

    def _second_look(self, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Low quality first; then high quality if the server is unsure, or the picture has changed since the last."""
        run = _Run(self._playback(clip, rate_bps))
        limit_bits = run.playback.budget.limit_bits or 0
        encoder = self._encoders["webp-frame"]
        for seq, frame in enumerate(clip.frames):
            view = frame.whole
            low_bits = min(round(_LOW_SHARE * limit_bits), run.playback.allowance_bits(seq))
            low = run.playback.send(seq, encoder, view, view.order, low_bits)
            changed = run.difference(seq) > _MOTION
            if low is not None and not changed:
                (answer,) = self._harness.answers([low.message])
                if not self._gate.offloads(answer):
                    run.sent[seq] = low
                    continue
            if self._send_full(run, seq, "webp-frame"):
                run.last = seq
            elif low is not None:
                run.sent[seq] = low
        return self._outcomes("second-look", run)

    def _send_full(self, run: _Run, seq: int, codec: str) -> Plan | None:
        """Sends a full snapshot, or the best that fills an empty window; None if the window has no room for it."""
        playback, encoder, view = run.playback, self._encoders[codec], run.playback.frames[seq].whole
        allowance = playback.allowance_bits(seq)
        if allowance < (playback.budget.limit_bits or 0):
            canvas = self._harness.canvas
            point = OperatingPoint(codec, canvas.units, canvas.pixels, SNAPSHOT_QUALITY[codec])
            if allowance < 8 * len(encoder.message(seq, view.draw(), view.order, point)):
                return None
        plan = playback.send(seq, encoder, view, view.order, allowance)
        if plan is not None:
            run.sent[seq] = plan
        return plan

    def _outcomes(self, name: str, run: _Run) -> dict[str, Outcome]:
        """The outcome with each answer held until the next one: alone, and fused with the edge's answers."""
        fused = run.playback
        alone = fused.copy()
        alone.unknown = [False] * len(alone.frames)  # the rule for unknown pictures is the edge's
        answers: list[Answer] = self._harness.answers([plan.message for plan in run.sent.values()])
        ends = [*run.sent, len(fused.frames)][1:]
        for (seq, plan), end, server in zip(run.sent.items(), ends, answers, strict=True):
            for later in range(seq, end):
                alone.answers[later] = server
                fused.answers[later] = fuse(fused.answers[later], server, plan.weight)
                alone.evidence_seqs[later] = fused.evidence_seqs[later] = seq
        return {name: alone.outcome(), f"{name}+edge": fused.outcome()}
