"""The answers of models: to one frame, by its head and further heads, and for its scene; and the classes of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "unknown"  # label of a verdict on a picture of none of the taught classes
HEAD_ID_BYTES = 4
MIN_EDGE_WEIGHT = 0.5  # of the edge's answers, beside server answers
_WAIT_S = 0.01  # a shorter wait is none: times of frames are rounded
_SHARPNESS_S, _OLDEST_S = 0.5, 5.0  # age of a scene that counts as one more answer; beyond it, age changes nothing

Origin: TypeAlias = Literal["edge", "server", "fused"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a model, or of several models fused: the most likely class."""

    class_id: int
    prob: float
    log_probs: NDArray[np.float32]  # (C,)

    @classmethod
    def from_log_probs(cls, log_probs: NDArray[np.float32]) -> Answer:
        """From normalised log-probabilities (C,)."""
        best = int(log_probs.argmax())
        return cls(best, float(np.exp(log_probs[best])), log_probs)

    @classmethod
    def from_log_scores(cls, log_scores: NDArray[np.float32]) -> Answer:
        """From log-probabilities (C,) that are not normalised."""
        shifted = log_scores - log_scores.max()
        return cls.from_log_probs((shifted - np.log(np.exp(shifted).sum())).astype(np.float32))

    def no_surer_than(self, most: float) -> Answer:
        """The answer with a probability of at most `most`; the other classes then share the rest equally."""
        classes = len(self.log_probs)
        most = max(most, 1 / classes)
        if self.prob <= most or classes == 1:
            return self
        log_probs = np.full(classes, np.log((1 - most) / (classes - 1)), np.float32)
        log_probs[self.class_id] = np.log(most)
        return Answer(self.class_id, most, log_probs)


def fusion_weight(weights: Sequence[tuple[int, float]], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolates `weights`, pairs of message bytes (rising) and weight, at `sizes` (bytes), on a scale of their
    logarithm."""
    known, values = zip(*weights, strict=True)
    return np.asarray(np.interp(np.log(sizes), np.log(known), values), np.float64)


@dataclass(frozen=True, slots=True)
class SeveralClasses:
    """The classes of a multi-label head, whose answers are combinations of them (`models.heads.combinations`)."""

    classes: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]  # class numbers by class id of an answer

    def probs(self, probs: NDArray[np.floating]) -> dict[str, float]:
        """The probability of each class, from the probabilities (A,) of the answers."""
        sums = dict.fromkeys(self.classes, 0.0)
        for chosen, prob in zip(self.answers, probs.tolist(), strict=True):
            for number in chosen:
                sums[self.classes[number]] += prob
        return sums


@dataclass(frozen=True, slots=True)
class Sharpness:
    """How sure the verdicts on a scene are, in relation to its summed log-scores: these are multiplied by `factor`.

    Errors of answers to one scene are alike, but not the same: an answer that no frame and no reply has contradicted
    for seconds is right more often than the mean of its probabilities says. The class never changes.
    """

    base: float = 1.0
    age: float = 0.0  # exponent of (1 + age of the scene, at most 5 s, / 0.5 s)
    evidence: float = 0.0  # exponent of (1 + weight of the server's answers): -1, errors as alike as they can be

    def factor(self, age_s: float, server_weight: float) -> float:
        """`age_s`: of the scene. `server_weight`: of the server's answers in the log-scores."""
        return float(self.factors(np.array(age_s), np.array(server_weight)))

    def factors(self, age_s: NDArray[np.float64], server_weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for several scenes (n,)."""
        aged = (1 + np.minimum(age_s, _OLDEST_S) / _SHARPNESS_S) ** self.age
        weighed = (1 + server_weight) ** self.evidence
        return np.asarray(self.base * aged * weighed, np.float64)


AS_IT_COMES = Sharpness()
USUAL_SHARPNESS = Sharpness(age=0.5)  # measured on clips of photographs and of own classes: docs/video.md


@dataclass(frozen=True, slots=True)
class TaughtClasses:
    """The classes of a head file, with the numbers of it that the stages need. A frame keeps those it was scored with,
    so a head can be replaced between two frames."""

    fingerprint: bytes  # 16 bytes: of the head file
    labels: tuple[str, ...]
    gate_bits: float  # default threshold of the min-entropy gate
    overlap: float  # how alike the errors of edge and server are
    weights: tuple[tuple[int, float], ...]  # fusion weight of the server's answer by message bytes, rising
    several: SeveralClasses | None = None  # of a multi-label head; None: one class holds
    sharpness: Sharpness = AS_IT_COMES

    @property
    def head_id(self) -> bytes:
        """The bytes that name the head in messages."""
        return self.fingerprint[:HEAD_ID_BYTES]

    def fusion_weight(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the server's answers to messages of these sizes in bytes."""
        return fusion_weight(self.weights, sizes)


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """The answer by a further head: classes of its own on the same features, and on the same evidence."""

    head: str  # name of the head
    taught: TaughtClasses
    edge: Answer
    unknown: bool  # whether the picture is none of its classes
    answer: Answer  # the edge's, until a server answer is fused with it
    server: Answer | None = None
    origin: Origin = "edge"

    @property
    def class_id(self) -> int | None:
        """Class of the answer; None if it is unknown."""
        return None if self.unknown else self.answer.class_id

    @property
    def label(self) -> str:
        """Name of the class, or `UNKNOWN`."""
        return UNKNOWN if self.unknown else self.taught.labels[self.answer.class_id]

    def class_probs(self) -> dict[str, float] | None:
        """Of a multi-label head: the probability of each class; None for all others."""
        return None if self.taught.several is None else self.taught.several.probs(np.exp(self.answer.log_probs))


@dataclass(frozen=True, slots=True)
class SceneEstimate:
    """What is known about a frame's scene when the frame is scored, including the frame's own edge answer."""

    scores: NDArray[np.float32]  # (C,) unnormalised log-probabilities
    server_weight: float  # weight of the mean of the server's answers in `scores`
    edge_weight: float  # of the mean of the edge's answers: below 1 where the server's replies contradict it
    sharpness: float  # factor on `scores` that makes their probabilities those of right verdicts
    server_seq: int | None  # newest frame of the scene with a server answer; None if there is none
    server_age_s: float  # since that frame; NaN if there is none
    scene_start_seq: int  # first frame of the scene
    scene_age_s: float  # since that frame
    busy_s: float = 0.0  # until the last message has passed over a link of the budget's rate
    confirmed: float = 1.0  # where only the newest server answer counts: share of such answers that the next confirmed

    @property
    def answer(self) -> Answer:
        """The answer as the gates use it: no surer than replies have confirmed such answers."""
        return Answer.from_log_scores(np.float32(self.sharpness) * self.scores).no_surer_than(self.confirmed)

    @property
    def believes_edge(self) -> bool:
        """Whether the edge's answers count beside the server's. Else the verdict is the server's, and only evidence
        that gives its full answer is worth sending: whole views, without saving bytes at the cost of agreement."""
        return self.edge_weight >= MIN_EDGE_WEIGHT

    @property
    def waits(self) -> bool:
        """Whether the next message waits. Where the verdict is the server's, its age counts as well as its quality: so
        messages are as far apart as the rate carries them, instead of many small ones, or several at once."""
        return not self.believes_edge and self.busy_s > _WAIT_S


@dataclass(frozen=True, slots=True)
class ServerObservation:
    """A server answer that a scene takes into account."""

    seq: int
    log_probs: NDArray[np.float32]  # (C,)
    weight: float


@dataclass(frozen=True, slots=True)
class ProvisionalAnswer:
    """The answer that is reported at once for a frame of a tracked scene."""

    answer: Answer  # of the scene, including this frame's edge answer, as the gates use it
    verdict: Answer  # the same without that limit, as it is reported
    estimate: SceneEstimate
    observed_seqs: tuple[int, ...]  # frames whose server answers arrived since the previous frame
