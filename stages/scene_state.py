"""What is known of the scene that a camera looks at: the edge's answers to its frames and the server's, with their age.

A picture that resembles the last one shows the same scene, so answers to earlier frames say something about it. The
edge's log-probabilities are averaged over the frames of the scene: frames of one scene err together, so that many of
them count as one. The server's are averaged likewise, by the weight of their evidence, less as time passes and as the
picture moves away from the one that they are about; their mean weighs as much as the weightiest of them. A cut forgets
it all. Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import WHOLE, Answer, EdgeView, SceneEstimate, ServerObservation

MOST_HELD = 32  # server answers of a scene
_MOST_AWAITED = 64  # answers that may still come; with more, the oldest are given up
_MOVE = 0.5  # of the class token's cosine distance: what an answer loses a factor e by
_Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """How scenes are kept apart and what of them is remembered."""

    remember: bool = True  # off: each frame is a scene of its own
    cut: float = 0.25  # a scene begins where the class token turns by more (cosine distance)
    cut_pixels: float = 0.02  # and grey levels differ by more, in the mean over a small picture
    accumulate: bool = True  # average the edge's answers over a scene
    hold_s: float = 8.0  # in which a server answer loses weight by a factor e; 0: it counts until the next frame only


@dataclass(frozen=True, slots=True)
class _Held:
    seq: int
    at_s: float
    look: EdgeView  # at the frame that the answer is about
    log_probs: _Vector
    weight: float


class SceneState:
    """Of one camera. `see` each of its frames in turn; tell it what was `sent`, and what was heard of it."""

    def __init__(self, config: SceneConfig) -> None:
        self._config = config
        self._now_s = 0.0
        self._look: EdgeView | None = None  # at the last frame
        self._last: dict[float, EdgeView] = {}  # of the scene's looks of each width
        self._jump = 0.0  # most that two frames differed by since the last look at the whole
        self._began_seq = 0
        self._began_s = 0.0
        self._edge: _Vector | None = None  # sum over the scene's frames
        self._frames = 0.0
        self._held: list[_Held] = []
        self._sent: dict[int, tuple[float, EdgeView]] = {}  # frames whose answer is awaited
        self._cuts: list[float] = []  # times of the last cuts

    def observe(self, seq: int, answer: Answer, look: EdgeView, now_s: float) -> SceneEstimate:
        """The next frame, as the edge model scored it; what was heard before it counts."""
        self._now_s = now_s = max(now_s, self._now_s)
        look = replace(look, class_token=_unit(look.class_token))
        if self._look is not None:
            self._jump = max(self._jump, float(np.abs(look.thumbnail - self._look.thumbnail).mean()))
        if self._is_cut(look):
            self._began_seq, self._began_s = seq, now_s
            self._edge, self._frames = None, 0.0
            self._held.clear()
            self._sent.clear()
            self._last.clear()
            self._cuts = [*self._cuts[-7:], now_s]
        if look.crop == WHOLE:
            self._jump = 0.0
        self._look = self._last[_width(look)] = look
        if self._config.accumulate and self._edge is not None:
            self._edge = self._edge + answer.log_probs
            self._frames += 1
        else:
            self._edge, self._frames = answer.log_probs.astype(np.float32), 1.0
        if not self._config.hold_s:
            self._held.clear()
        scores, weight = self.current()
        return SceneEstimate(
            scores=scores,
            server_weight=weight,
            server_seq=max((held.seq for held in self._held), default=None),
            server_age_s=now_s - max((held.at_s for held in self._held), default=math.nan),
            scene_start_seq=self._began_seq,
            scene_age_s=now_s - self._began_s,
            mean_scene_s=self._cut_every_s(),
        )

    def current(self) -> tuple[_Vector, float]:
        """Unnormalised log-probabilities (C,) of the frame seen last, with all that was heard since, and the weight of
        the server's answers in them."""
        assert self._edge is not None
        scores: _Vector = self._edge / np.float32(self._frames)
        weights = np.array([self._weight(held) for held in self._held], np.float32)
        if not weights.any():
            return scores, 0.0
        mean = weights @ np.stack([held.log_probs for held in self._held]) / weights.sum()
        most = weights.max()
        return scores + most * mean, float(most)

    def register_sent(self, seq: int) -> None:
        """Evidence of the frame seen last is on its way."""
        if self._look is not None:
            self._sent[seq] = (self._now_s, self._look)
            while len(self._sent) > _MOST_AWAITED:
                del self._sent[next(iter(self._sent))]

    def add_server_answers(self, heard: Iterable[ServerObservation]) -> None:
        """Answers of the server, about frames of this scene or of one that is over."""
        for each in heard:
            about = self._sent.pop(each.seq, None)
            if about is not None and each.weight > 0:
                self._held.append(_Held(each.seq, *about, each.log_probs, each.weight))
        del self._held[:-MOST_HELD]

    def _is_cut(self, look: EdgeView) -> bool:
        """Only looks at the whole tell. One is taken at once where the picture changes much (`sagelink.stages.zoom`)."""
        if self._look is None or not self._config.remember or len(look.class_token) != len(self._look.class_token):
            return True
        last = self._last.get(_width(look))
        if look.crop != WHOLE or last is None:
            return False
        return _moved(look, last) > self._config.cut and self._jump > self._config.cut_pixels

    def _weight(self, held: _Held) -> float:
        """What is left of an answer's weight."""
        moved = max(0.0, _moved(self._last[_width(held.look)], held.look))
        age_s, hold_s = self._now_s - held.at_s, self._config.hold_s
        return held.weight * math.exp(-moved / _MOVE - (age_s / hold_s if hold_s else 0.0))

    def _cut_every_s(self) -> float:
        """Mean time between cuts lately; the scene so far, where there was one only."""
        return max(self._now_s - self._cuts[0], 1e-3) / max(len(self._cuts) - 1, 1)


def _width(look: EdgeView) -> float:
    return round(look.crop[2] - look.crop[0], 6)


def _moved(look: EdgeView, before: EdgeView) -> float:
    """Cosine distance of what was looked at."""
    return 1 - float(look.class_token @ before.class_token)


def _unit(vector: _Vector) -> _Vector:
    """Of length 1; zeros stay zeros, so they resemble nothing."""
    length = float(np.linalg.norm(vector))
    unit: _Vector = vector / np.float32(length or 1.0)
    return unit
