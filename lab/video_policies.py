"""The policies that a video evaluation compares: each turns a clip and a rate into verdicts and a ledger.

Wherever a server answer and the edge's are both at hand, they are fused as a run does it, so no policy loses for want
of that; the plain video streams are the exception, because nobody who streams has an edge model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sagelink.lab.harness import Harness, answers_of
from sagelink.lab.scored_clips import ScoredClip, ScoredFrame
from sagelink.lab.video_streams import STREAMS, stream
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.config import Config
from sagelink.pipeline.types import Answer, OperatingPoint, Pixels, ServerObservation
from sagelink.server.receive import Received
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.encoder import Encoder
from sagelink.stages.fuse import fuse
from sagelink.stages.planner import Plan
from sagelink.stages.rate_control import RateControl, RateControlConfig, UtilityCurve, rate_control_config
from sagelink.stages.scene_state import SceneConfig, SceneState
from sagelink.stages.scene_tracker import scene_config
from sagelink.stages.usable_curves import usable_curves
from sagelink.transport.codecs import cut_units


@dataclass(slots=True)
class Outcome:
    """What a policy made of one clip."""

    hits: list[bool]  # one a frame
    ages_ms: list[float | None]  # one a frame: of the newest frame that a server answer in the verdict is about
    total_bits: int
    peak_window_bits: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to spend bits."""

    play: Callable[[ScoredClip, float], dict[str, Outcome]]  # a clip, bit/s; outcomes by name
    settings: object = ""  # on which they depend, too


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that was paid for."""

    number: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Settings:
    """Of ours."""

    scene: SceneConfig
    spend: RateControlConfig
    closer: bool


class Bench:
    """All policies over one pair of models."""

    def __init__(self, harness: Harness, config: Config, fps: float) -> None:
        """Raises UsageError when the frontier lacks a codec that is needed."""
        self._rig = harness
        self._config = config
        self._fps = fps
        self._window_s = config.budget.window
        self.settings = Settings(scene_config(config.video), rate_control_config(config.video), config.zooms)
        self._gate = Gate(config.gate)
        self._encoder = Encoder.from_config(config, harness.pair.server)
        self._worth = UtilityCurve.from_curves(usable_curves(config, harness.pair.server.name, harness.canvas))
        self._webp = self._encoder_of("webp-frame")
        self._raw = self._encoder_of("raw-zstd")

    def policies(self) -> dict[str, Policy]:
        """By the name of what they measure."""
        return {
            "edge": Policy(self.edge),
            "webp-each": Policy(self.webp_each),
            "webp-periodic": Policy(self.webp_periodic),
            **{name: Policy(self._stream(name)) for name in STREAMS},
            "paper": Policy(lambda footage, rate: self._greedy(footage, rate, "paper")),
            "stateless": Policy(lambda footage, rate: self._greedy(footage, rate, "stateless")),
            "auto": self._ours("auto", self.settings),
        }

    def ablations(self) -> dict[str, Policy]:
        """Ours with one part switched the other way, by name."""
        scene, spend, closer = self.settings.scene, self.settings.spend, self.settings.closer
        changes = {
            "auto-each-frame-alone": Settings(replace(scene, remember=False), spend, False),
            f"auto-{'no-' if closer else ''}closer-look": Settings(scene, spend, not closer),
            "auto-no-cuts": Settings(replace(scene, cut=2.0), spend, closer),
            "auto-edge-not-averaged": Settings(replace(scene, accumulate=False), spend, closer),
            "auto-answers-not-held": Settings(replace(scene, hold_s=0.0), spend, closer),
            "auto-saving": Settings(scene, replace(spend, save=True), closer),
            "auto-any-gain": Settings(scene, replace(spend, least_gain=0.0), closer),
        }
        return {name: self._ours(name, settings) for name, settings in changes.items()}

    def edge(self, footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Nothing is sent."""
        answers = [shot.whole.answer for shot in footage.shots]
        return {"edge": _outcome(footage, answers, [None] * len(answers), self._budget(rate_bps))}

    def webp_each(self, footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Every frame as the best WebP of an equal share of the window."""
        budget = self._budget(rate_bps)
        assert budget.limit_bits is not None
        share = budget.limit_bits // (math.floor(self._fps * self._window_s) + 1)  # a window may meet one frame more
        return self._each(
            footage, "webp-each", self._webp, budget, lambda shot, number: shot.whole.order, share, always=True
        )

    def _greedy(self, footage: ScoredClip, rate_bps: float, name: str) -> dict[str, Outcome]:
        """Every frame that the edge is unsure of takes what the window has left, and is forgotten."""
        paper = name == "paper"
        encoder = self._raw if paper else self._encoder
        return self._each(
            footage,
            name,
            encoder,
            self._budget(rate_bps),
            lambda shot, number: shot.paper if paper else shot.whole.order,
        )

    def _each(
        self,
        footage: ScoredClip,
        name: str,
        encoder: Encoder,
        budget: UplinkBudget,
        order: Callable[[ScoredFrame, int], np.ndarray],
        share: int | None = None,
        always: bool = False,
    ) -> dict[str, Outcome]:
        sent: list[_Sent] = []
        for number, shot in enumerate(footage.shots):
            if not always and not self._gate.offloads(shot.whole.answer):
                continue
            allowance = budget.allowance(shot.stream_s)
            assert allowance is not None
            cap = self._cap(allowance if share is None else min(share, allowance))
            plan = encoder.fit(number, shot.whole.draw(), order(shot, number), cap)
            if isinstance(plan, Plan) and budget.charge(shot.stream_s, 8 * len(plan.message)):
                sent.append(_Sent(number, plan))
        answers = [shot.whole.answer for shot in footage.shots]
        about: list[int | None] = [None] * len(answers)
        for each, server in zip(sent, self._answers([each.plan.message for each in sent]), strict=True):
            answers[each.number] = fuse(answers[each.number], server, each.plan.weight)
            about[each.number] = each.number
        return {name: _outcome(footage, answers, about, budget)}

    def webp_periodic(self, footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """A WebP of full quality as often as the window has room for one, or the best that fills an empty window; the
        last answer holds until the next."""
        budget = self._budget(rate_bps)
        assert budget.limit_bits is not None
        point = OperatingPoint("webp-frame", self._rig.canvas.units, self._rig.canvas.pixels, 80)
        sent: list[_Sent] = []
        for number, shot in enumerate(footage.shots):
            allowance = budget.allowance(shot.stream_s)
            assert allowance is not None
            if allowance < budget.limit_bits:
                full = 8 * len(self._encoder.message(number, shot.whole.draw(), shot.whole.order, point))
                if allowance < full:
                    continue
            plan = self._webp.fit(number, shot.whole.draw(), shot.whole.order, self._cap(allowance))
            if isinstance(plan, Plan) and budget.charge(shot.stream_s, 8 * len(plan.message)):
                sent.append(_Sent(number, plan))
        answers = [shot.whole.answer for shot in footage.shots]
        about: list[int | None] = [None] * len(answers)
        ends = [each.number for each in sent[1:]] + [len(answers)]
        servers = self._answers([each.plan.message for each in sent])
        for each, end, server in zip(sent, ends, servers, strict=True):
            for number in range(each.number, end):
                answers[number] = fuse(footage.shots[number].whole.answer, server, each.plan.weight)
                about[number] = each.number
        return {"webp-periodic": _outcome(footage, answers, about, budget)}

    def _stream(self, name: str) -> Callable[[ScoredClip, float], dict[str, Outcome]]:
        """A video stream: the server on each decoded frame, and the same fused with the edge."""

        def policy(footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
            budget = self._budget(rate_bps)
            times = [shot.stream_s for shot in footage.shots]
            seen = [*stream(name, [shot.whole.draw() for shot in footage.shots], times, self._fps, budget)]
            pictures: dict[int, Pixels] = {each[0]: each[1] for each in seen if each}
            servers = dict(zip(pictures, self._pictures([*pictures.values()]), strict=True))
            edge = [shot.whole.answer for shot in footage.shots]
            about = [each[0] if each else None for each in seen]
            alone = [own if of is None else servers[of] for own, of in zip(edge, about, strict=True)]
            weight = self._worth.weight(math.inf)
            both = [own if of is None else fuse(own, servers[of], weight) for own, of in zip(edge, about, strict=True)]
            return {
                name: _outcome(footage, alone, about, budget),
                f"{name}+edge": _outcome(footage, both, about, budget),
            }

        return policy

    def _ours(self, name: str, settings: Settings) -> Policy:

        def policy(footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
            budget = self._budget(rate_bps)
            assert budget.limit_bits is not None
            scene, spend = SceneState(settings.scene), RateControl(settings.spend, self._worth)
            answers: list[Answer] = []
            about: list[int | None] = []
            for number, shot in enumerate(footage.shots):
                now_s = shot.stream_s
                view = shot.turn if settings.closer else shot.whole
                estimate = scene.observe(number, view.answer, view.look, now_s)
                answer = Answer.from_log_scores(estimate.scores)
                of = estimate.server_seq
                allowance = budget.allowance(now_s)
                assert allowance is not None
                most = (
                    spend.max_bytes(1 - answer.prob, estimate, allowance / 8, budget.limit_bits / 8, self._window_s)
                    if self._gate.offloads(answer)
                    else None
                )
                if most is not None:
                    plan = self._encoder.fit(number, view.draw(), view.order, self._cap(min(8 * most, allowance)))
                    if isinstance(plan, Plan) and budget.charge(now_s, 8 * len(plan.message)):
                        scene.register_sent(number)
                        (server,) = self._answers([plan.message])
                        scene.add_server_answers([ServerObservation(number, server.log_probs, plan.weight)])
                        answer = Answer.from_log_scores(scene.current()[0])
                        of = number
                answers.append(answer)
                about.append(of)
            return {name: _outcome(footage, answers, about, budget)}

        return Policy(policy, settings)

    def _budget(self, rate_bps: float) -> UplinkBudget:
        return UplinkBudget(rate_bps, self._window_s)

    def _cap(self, bits: int) -> int:
        return min(bits // 8, self._config.encode.max_message)

    def _encoder_of(self, codec: str) -> Encoder:
        encode = self._config.encode.model_copy(update={"codec": codec})
        return Encoder.from_config(self._config.model_copy(update={"encode": encode}), self._rig.pair.server)

    def _answers(self, messages: Sequence[bytes]) -> list[Answer]:
        return self._rig.answers(messages, lambda done: None)

    def _pictures(self, pictures: Sequence[Pixels]) -> list[Answer]:
        """The server's answers to whole pictures."""
        canvas = self._rig.canvas
        everything = np.arange(canvas.units)
        evidence = [Received(0, everything, cut_units(each, everything, canvas.patch_size)) for each in pictures]
        return answers_of(self._rig.classifier, evidence)


def _outcome(
    footage: ScoredClip, answers: Sequence[Answer], about: Sequence[int | None], budget: UplinkBudget
) -> Outcome:
    shots = footage.shots
    return Outcome(
        hits=[answer.class_id == shot.truth for answer, shot in zip(answers, shots, strict=True)],
        ages_ms=[
            None if of is None else round((shot.stream_s - shots[of].stream_s) * 1e3, 3)
            for shot, of in zip(shots, about, strict=True)
        ],
        total_bits=budget.total_bits,
        peak_window_bits=budget.peak_window_bits,
    )
