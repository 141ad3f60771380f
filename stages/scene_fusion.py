"""Estimates the class scores of a camera's scene from edge and server answers to its frames. Pure: no clock, no I/O.

A picture that resembles the previous one shows the same scene, so answers to earlier frames count for later frames too.
The edge's log-probabilities are averaged over the frames of a scene: the errors within one scene are alike, so many
frames count as one. The server's answers are averaged by their weights. The weight of an answer decays with time, and
as the picture moves away from the picture of the answer; their mean counts as much as the answer with the largest
weight. Where the edge is not believed and the server's answers change too fast to be averaged, the newest one counts
alone. A cut begins a new scene and forgets all answers.

Where the classes are states of a fixed scene (own classes), old answers fade soon. A clear answer of another class, by
the edge or by the server, begins a new scene, and so do many unclear ones: a lorry that comes is no cut, but the
answers to the empty yard must not count for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import (
    MIN_EDGE_WEIGHT,
    USUAL_SHARPNESS,
    Answer,
    SceneEstimate,
    ServerObservation,
    Sharpness,
    TaughtClasses,
)
from sagelink.pipeline.types import EdgeView
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.scene_cuts import CutDetector
from sagelink.stages.state_change import StateChange

MAX_OBSERVATIONS = 32  # server answers that count for a scene
_MAX_PENDING = 64  # sent frames without an answer; with more, the oldest are given up
_CLEAR_ODDS = 4.0  # of the new answer's class against the class of the scene
_SAME_ANSWER_S = 0.1  # edge answers within this time count as one where they add up to a change of state
_REPLACED_S = 2.5  # where only the server is believed, its answers replace earlier ones: by a factor e in this time
_MOVE = 0.5  # cosine distance of the class token over which the weight of an answer falls by a factor e
_TINY = 1e-9  # a weight, so that a sum of weights is above 0
_FADED = 0.05  # weight of the server's answers below which the edge's answer counts more and more again
_Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """Where a scene ends, and how long answers count for it."""

    remember: bool = True  # False: each frame is a scene of its own
    cut: float = 0.25  # cosine distance of class tokens: a cut needs a larger one ...
    cut_pixels: float = 0.02  # ... and a larger mean difference of grey levels (0..1) between thumbnails
    accumulate: bool = True  # average the edge's answers over a scene
    forget_s: float = math.inf  # in this time the weight of an edge answer in the average falls by a factor e
    states: bool = False  # the classes are states of a fixed scene: a clear answer of another class begins a new scene
    hold_s: float = 8.0  # in this time the weight of a server answer falls by a factor e; 0: it counts for one frame
    sharpness: Sharpness = USUAL_SHARPNESS  # of the models' own classes; a head has its own


@dataclass(frozen=True, slots=True)
class _PastAnswer:
    """A server answer to an earlier frame of the scene."""

    seq: int
    at_s: float
    view: EdgeView  # of that frame
    log_probs: _Vector
    weight: float  # when it was new


@dataclass(frozen=True, slots=True)
class _SentFrame:
    """A sent frame whose server answer is pending."""

    at_s: float
    view: EdgeView
    edge_class: int  # of the mean of the edge's answers to the scene


class SceneFusion:
    """The scene of one camera.

    Call `observe` for each frame in order; in between, report sent evidence and the server's answers.
    """

    def __init__(self, config: SceneConfig, trust: EdgeTrust | None = None) -> None:
        """`trust`: what is known about the camera's edge answers, and learns on; None: nothing yet."""
        self._config = config
        self._now_s = 0.0
        self._cut_detector = CutDetector(config.cut, config.cut_pixels, every_frame=not config.remember)
        self._taught: TaughtClasses | None = None  # the classes of the scene's answers
        self._start_seq = 0
        self._start_s = 0.0
        self._edge_sum: _Vector | None = None  # log-probabilities, over the scene's frames
        self._frames = 0.0  # in the sum
        self._past: list[_PastAnswer] = []
        self._newest: _Vector | None = None  # log-probabilities of the newest frame's edge answer
        self._sent: dict[int, _SentFrame] = {}  # by seq
        self._trust = trust or EdgeTrust()
        self._free_s = 0.0  # when the last message has passed over a link of the budget's rate
        self._change: StateChange | None = None
        self._computed: tuple[_Vector, float] | None = None  # the result of `current`, until something changes

    def observe(
        self, seq: int, answer: Answer, view: EdgeView, now_s: float, taught: TaughtClasses | None = None
    ) -> SceneEstimate:
        """The estimate for the next frame, with its edge answer and all server answers so far. Time never runs back.

        `taught`: the classes of the answer; other classes begin a new scene.
        """
        self._computed = None
        passed_s = max(0.0, now_s - self._now_s)
        self._now_s = now_s = max(now_s, self._now_s)
        reclassed = taught != self._taught and self._edge_sum is not None
        if reclassed or self._cut_detector.is_cut(view):
            self._begin_scene(seq, now_s)
        elif (changed_s := self._edge_contradicts(answer.log_probs, passed_s)) is not None:
            self._begin_scene(seq, now_s, changed_s)
        self._taught = taught
        self._newest = answer.log_probs.astype(np.float32)
        if self._config.accumulate and self._edge_sum is not None:
            kept = math.exp(-passed_s / self._config.forget_s)
            self._edge_sum = np.float32(kept) * self._edge_sum + answer.log_probs
            self._frames = kept * self._frames + 1
        else:
            self._edge_sum, self._frames = self._newest, 1.0
        if not self._config.hold_s:
            self._past.clear()
        scores, weight = self.current()
        return SceneEstimate(
            scores=scores,
            server_weight=weight,
            edge_weight=self._edge_weight(weight),
            sharpness=self._sharpness(weight),
            server_seq=max((past.seq for past in self._past), default=None),
            server_age_s=now_s - max((past.at_s for past in self._past), default=math.nan),
            scene_start_seq=self._start_seq,
            scene_age_s=now_s - self._start_s,
            busy_s=max(0.0, self._free_s - now_s),
            confirmed=self._trust.changes.confirmed if self._newest_only(weight) else 1.0,
        )

    def current(self) -> tuple[_Vector, float]:
        """Unnormalised log-probabilities (C,) for the newest frame with all answers so far, and the weight of the
        server's answers in them."""
        if self._computed is None:
            self._computed = self._compute()
        return self._computed

    def _compute(self) -> tuple[_Vector, float]:
        assert self._edge_sum is not None
        scores: _Vector = self._edge_sum / np.float32(self._frames)
        weights = self._weights()
        if not weights.any():
            return scores, 0.0
        server_weight = float(weights.max())
        edge_weight = self._edge_weight(server_weight)
        newest_only = self._newest_only(server_weight)
        held = self._newest_reply() if newest_only else self._mean_reply(weights, edge_weight)
        fused = np.float32(edge_weight) * scores + np.float32(server_weight) * held
        return fused * np.float32((1 + server_weight) / (edge_weight + server_weight)), server_weight

    def _weights(self) -> _Vector:
        """The weights now of the server's answers (n,)."""
        return np.array([self._weight(past) for past in self._past], np.float32)

    def _newest_reply(self) -> _Vector:
        return max(self._past, key=lambda past: past.at_s).log_probs

    def _mean_reply(self, weights: _Vector, edge_weight: float) -> _Vector:
        """Mean (C,) of the server's answers. The less the edge counts, the more do newer ones replace older ones."""
        times = np.array([past.at_s for past in self._past], np.float32)
        weights = weights * np.exp((1 - edge_weight) * (times - times.max()) / _REPLACED_S)
        mean: _Vector = weights @ np.stack([past.log_probs for past in self._past]) / max(weights.sum(), _TINY)
        return mean

    def _newest_only(self, server_weight: float) -> bool:
        """Whether the newest server answer is held alone; never where the edge is believed."""
        return self._trust.changes.newest_only and self._edge_weight(server_weight) < MIN_EDGE_WEIGHT

    def verdict(self) -> Answer:
        """The answer for the newest frame with all server answers so far, with a calibrated probability."""
        scores, server_weight = self.current()
        return Answer.from_log_scores(np.float32(self._sharpness(server_weight)) * scores)

    def register_sent(self, seq: int, transfer_s: float = 0.0) -> None:
        """Evidence of the newest frame is on its way. `transfer_s`: time that it takes over a link of the budget's
        rate."""
        self._free_s = self._now_s + transfer_s
        if self._cut_detector.view is not None:
            assert self._edge_sum is not None
            self._sent[seq] = _SentFrame(self._now_s, self._cut_detector.view, int(self._edge_sum.argmax()))
            while len(self._sent) > _MAX_PENDING:
                del self._sent[next(iter(self._sent))]

    def add_server_answers(self, observations: Iterable[ServerObservation]) -> None:
        """Server answers to sent frames; answers to an earlier scene have no effect."""
        for observation in observations:
            sent = self._sent.pop(observation.seq, None)
            if sent is None or observation.weight <= 0:
                continue
            if self._taught is None:
                self._trust.learn(sent.edge_class, observation.log_probs, observation.weight, sent.at_s)
            if self._config.states and _clearly_differs(observation.log_probs, self.current()[0]):
                self._restart(observation.seq, sent.at_s)
            elif self._config.states:
                self._add_to_change(observation.log_probs, self.current()[0], min(1.0, observation.weight))
            past = _PastAnswer(observation.seq, sent.at_s, sent.view, observation.log_probs, observation.weight)
            self._hold(past)
            self._computed = None

    def _hold(self, past: _PastAnswer) -> None:
        """Adds a server answer. Where the edge is not believed, it tells which way of holding answers had predicted
        it."""
        weights = self._weights()
        predictions = []
        if weights.any() and self._edge_weight(float(weights.max())) < MIN_EDGE_WEIGHT:
            predictions = [self._newest_reply(), self._mean_reply(weights, 0.0)]
        self._past.append(past)
        del self._past[:-MAX_OBSERVATIONS]
        if predictions:
            answers = past.log_probs, *predictions, self._mean_reply(self._weights(), 0.0)
            self._trust.changes.learn(*(int(each.argmax()) for each in answers))

    def _edge_contradicts(self, log_probs: _Vector, passed_s: float) -> float | None:
        """Since when the edge sees another state; None if it does not. The scene's class is that of the edge's mean
        alone: the edge may go on to differ from the server."""
        if not self._config.states or self._edge_sum is None:
            return None
        if _clearly_differs(log_probs, self._edge_sum):
            return self._now_s
        return self._add_to_change(log_probs, self._edge_sum, min(1.0, passed_s / _SAME_ANSWER_S))

    def _add_to_change(self, log_probs: _Vector, scores: _Vector, share: float) -> float | None:
        """`scores`: of the scene. `share`: how much the answer counts."""
        if self._change is None:
            self._change = StateChange(len(log_probs))
        return self._change.add(log_probs - log_probs[int(scores.argmax())], share, self._now_s)

    def _restart(self, seq: int, at_s: float) -> None:
        """A new scene, of which the server's answer to frame `seq` is the first one. The newest edge answer stays, and
        so do later frames that wait for an answer."""
        later = {each: sent for each, sent in self._sent.items() if each > seq}
        self._begin_scene(seq, at_s)
        self._edge_sum, self._frames, self._sent = self._newest, 1.0, later

    def _begin_scene(self, seq: int, now_s: float, changed_s: float = math.inf) -> None:
        """Forgets all answers but the server's to frames since `changed_s`."""
        self._start_seq, self._start_s = seq, now_s
        self._edge_sum, self._frames, self._change = None, 0.0, None
        self._past = [past for past in self._past if past.at_s >= changed_s]
        self._sent = {each: sent for each, sent in self._sent.items() if sent.at_s >= changed_s}

    def _sharpness(self, server_weight: float) -> float:
        sharpness = self._taught.sharpness if self._taught else self._config.sharpness
        if not self._config.accumulate and not server_weight:
            return sharpness.factor(0.0, 0.0)  # the frame is answered alone
        age_s = (self._now_s - self._start_s) * self._edge_weight(server_weight)  # the server may contradict it
        return sharpness.factor(age_s, server_weight)

    def _edge_weight(self, server_weight: float) -> float:
        """Weight of the edge's mean beside server answers of this weight; 1 where they have faded."""
        assert self._edge_sum is not None
        if self._taught is not None:
            return 1.0  # of a head, `teach` has measured how far both sides can be believed
        trust = self._trust.weight(int(self._edge_sum.argmax()))
        return 1 - (1 - trust) * min(1.0, server_weight / _FADED)

    def _weight(self, past: _PastAnswer) -> float:
        """The weight of an answer now."""
        moved = max(0.0, self._cut_detector.distance_to(past.view))
        age_s, hold_s = self._now_s - past.at_s, self._config.hold_s
        return past.weight * math.exp(-moved / _MOVE - (age_s / hold_s if hold_s else 0.0))


def _clearly_differs(log_probs: _Vector, scores: _Vector) -> bool:
    """Whether an answer clearly names another class than the scores of the scene do."""
    return bool(log_probs.max() - log_probs[int(scores.argmax())] > math.log(_CLEAR_ODDS))
