"""Fits how sure the verdicts on scenes are: held-out answers to the pictures of sequences in, `Sharpness` out. Pure.

Each sequence is played as a scene: its edge answers are averaged with fading weights, server answers are added with
their weights, and the age of the scene grows. The three numbers of `Sharpness` are those with the least squared
difference of probability and right answer (Brier score). A sequence counts as one observation, however many pictures it
has, because its errors are alike. Few sequences say little, so the numbers stay near `USUAL_SHARPNESS` unless the
sequences contradict it: a penalty that counts less as sequences grow, and limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.probabilities import Ids, Matrix, log_softmax
from sagelink.pipeline.answers import USUAL_SHARPNESS, Sharpness

_SPREAD = (0.4, 0.25, 0.25)  # usual differences of the logarithm of the base, and of both exponents, between sites
_LIMITS = ((-1.4, 0.7), (0.0, 1.0), (-1.0, 0.5))  # of the same three numbers
_PENALTY = 0.05  # Brier score of one usual difference, divided by the number of sequences
_ROUNDS, _STEPS = 2, 15  # of the search
_SEARCHED: tuple[tuple[int, ...], ...] = ((0, 1), (2,))  # base and age make up for each other, so they go together
_MAX_ROWS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class ScenePlay:
    """Answers to the frames of scenes."""

    scores: Matrix  # (R, C) log-scores: the edge's mean plus the weighted server's answer
    age_s: Matrix  # (R,)
    server_weight: Matrix  # (R,) of the server's answer in the scores
    right: NDArray[np.bool_]  # (R,)
    sequence: Ids  # (R,)


def play_sequences(
    edge: Matrix,
    servers: Sequence[tuple[float, Matrix, NDArray[np.bool_]]],
    ids: Ids,
    sequences: Ids,
    times_s: Matrix,
    forget_s: float,
) -> ScenePlay:
    """Plays each sequence (n,) in the order of its times (n,), in s; NaN: the picture is a scene of its own.

    `edge`: (n, C) held-out log-probabilities. `servers`: for each message size the weight of the server's answers, the
    answers (n, C), and for which pictures there is one. `ids`: (n,) true classes. `forget_s`: in this time the weight
    of an edge answer in the mean falls by a factor e.
    """
    mean, age_s = edge.copy(), np.zeros(len(ids))
    for sequence in np.unique(sequences[~np.isnan(times_s)]):
        rows = np.flatnonzero((sequences == sequence) & ~np.isnan(times_s))
        rows = rows[np.argsort(times_s[rows], kind="stable")]
        total, count, last_s = np.zeros(edge.shape[1]), 0.0, times_s[rows[0]]
        for row in rows:
            kept = np.exp(-(times_s[row] - last_s) / forget_s)
            total, count, last_s = kept * total + edge[row], kept * count + 1, times_s[row]
            mean[row], age_s[row] = total / count, last_s - times_s[rows[0]]
    every = np.ones(len(ids), bool)
    parts = [(0.0, mean, every)] + [(weight, mean + weight * answers, sent) for weight, answers, sent in servers]
    scores = np.concatenate([sums[sent] for _, sums, sent in parts])
    truth = np.concatenate([ids[sent] for _, _, sent in parts])
    return ScenePlay(
        scores=scores,
        age_s=np.concatenate([age_s[sent] for _, _, sent in parts]),
        server_weight=np.concatenate([np.full(sent.sum(), weight) for weight, _, sent in parts]),
        right=scores.argmax(1) == truth,
        sequence=np.concatenate([sequences[sent] for _, _, sent in parts]),
    )


def fit_sharpness(play: ScenePlay) -> Sharpness:
    """The `Sharpness` with the least penalised Brier score; the same rows always give the same numbers."""
    chosen = np.unique(np.linspace(0, len(play.right) - 1, _MAX_ROWS).astype(int))
    scores, right, sequence = play.scores[chosen], play.right[chosen], play.sequence[chosen]
    age_s, server_weight = play.age_s[chosen], play.server_weight[chosen]
    _, places, counts = np.unique(sequence, return_inverse=True, return_counts=True)
    shares = 1 / counts[places] / len(counts)  # of each row in the mean over sequences
    usual = np.array([np.log(USUAL_SHARPNESS.base), USUAL_SHARPNESS.age, USUAL_SHARPNESS.evidence])

    def loss(numbers: NDArray[np.float64]) -> float:
        factors = _sharpness_of(numbers).factors(age_s, server_weight)
        probs = np.exp(log_softmax(scores * factors[:, None]).max(1))
        penalty = _PENALTY / len(counts) * np.square((numbers - usual) / _SPREAD).sum()
        return float(shares @ np.square(probs - right) + penalty)

    best = usual
    for _ in range(_ROUNDS):
        for together in _SEARCHED:
            lines = [np.unique([*np.linspace(*_LIMITS[place], _STEPS), best[place]]) for place in together]
            best = min((_with(best, together, values) for values in product(*lines)), key=loss)
    return _sharpness_of(best)


def _with(numbers: NDArray[np.float64], places: Sequence[int], values: Sequence[float]) -> NDArray[np.float64]:
    changed = numbers.copy()
    changed[list(places)] = values
    return changed


def _sharpness_of(numbers: NDArray[np.float64]) -> Sharpness:
    base, age, evidence = numbers.tolist()
    return Sharpness(round(float(np.exp(base)), 4), round(age, 4), round(evidence, 4))
