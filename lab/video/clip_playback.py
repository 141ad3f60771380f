"""Plays a scored clip under a budget: the common part of all policies of a video evaluation.

In: a scored clip, a budget, messages and answers. Out: `Outcome` with one verdict per frame and the bits spent.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from sagelink.lab.video.scored_clips import ScoredClip, ScoredView
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.types import Units
from sagelink.stages.codec_planner import Plan, SizeRatios
from sagelink.stages.evidence_encoder import Encoder

NO_CLASS = -1  # in place of the class id of a verdict: the frame is called unknown


@dataclass(slots=True)
class Outcome:
    """Result of a policy on one clip."""

    class_ids: list[int]  # one per frame: the class of the verdict, or NO_CLASS
    probs: list[float]  # one per frame: the probability of that class
    ages_ms: list[float | None]  # one per frame: age of the newest frame whose server answer is in the verdict
    total_bits: int
    peak_window_bits: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to spend bits."""

    evaluate: Callable[[ScoredClip, float], dict[str, Outcome]]  # from a clip and a rate in bit/s; outcomes by name
    settings: object = ""  # other inputs of `evaluate`, part of the key of cached outcomes


class ClipPlayback:
    """Plays one clip under a budget: sends messages and records the verdicts."""

    def __init__(self, clip: ScoredClip, budget: UplinkBudget, max_message: int) -> None:
        self.frames = clip.frames
        self.answers = [frame.whole.answer for frame in clip.frames]  # one per frame; at first the edge's
        self.unknown = [frame.whole.unknown for frame in clip.frames]  # one per frame
        self.evidence_seqs: list[int | None] = [None] * len(clip.frames)  # newest frame whose server answer is used
        self.budget = budget
        self._max_message = max_message
        self._ratios = SizeRatios()

    def allowance_bits(self, seq: int) -> int:
        allowance = self.budget.allowance(self.frames[seq].stream_s)
        assert allowance is not None
        return allowance

    def send(self, seq: int, encoder: Encoder, view: ScoredView, order: Units, limit_bits: int) -> Plan | None:
        """Encodes and charges the best message of at most `limit_bits`; None if nothing fits."""
        limit_bytes = min(limit_bits // 8, self._max_message)
        plan = encoder.fit(seq, view.draw(), order, limit_bytes, ratios=self._ratios)
        if isinstance(plan, Plan) and self.budget.charge(self.frames[seq].stream_s, 8 * len(plan.message)):
            return plan
        return None

    def copy(self) -> ClipPlayback:
        """The same clip and budget, with verdicts of its own."""
        other = copy(self)
        other.answers, other.unknown = [*self.answers], [*self.unknown]
        other.evidence_seqs = [*self.evidence_seqs]
        return other

    def outcome(self) -> Outcome:
        return Outcome(
            class_ids=[
                NO_CLASS if unknown else answer.class_id
                for answer, unknown in zip(self.answers, self.unknown, strict=True)
            ],
            probs=[round(answer.prob, 6) for answer in self.answers],
            ages_ms=[
                None if seq is None else round((frame.stream_s - self.frames[seq].stream_s) * 1e3, 3)
                for frame, seq in zip(self.frames, self.evidence_seqs, strict=True)
            ],
            total_bits=self.budget.total_bits,
            peak_window_bits=self.budget.peak_window_bits,
        )
