"""Calibrates probabilities on held-out logits: temperature, fusion weight, overlap, and their losses and errors.

In: logits (n, C) and class ids (n,). Out: numbers, and log-probabilities (n, C). Pure NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Ids = NDArray[np.intp]

_TEMPERATURES = np.geomspace(0.1, 100, 61)
_WEIGHTS = np.concatenate([[0.0], np.geomspace(0.1, 4.0, 23)])
_OVERLAPS = np.linspace(0, 1, 21)
_MAX_WEIGHT = 4  # of a rare class, in relation to its pictures
# A few dozen held-out answers cannot tell how sure all answers may be: what is expected counts as this many pictures.
_EXPECTED_TEMPERATURE_PICTURES = 25
_EXPECTED_OVERLAP, _EXPECTED_OVERLAP_PICTURES = 0.5, 30


def log_softmax(logits: Matrix) -> Matrix:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def smoothed_losses(log_probs: Matrix, ids: Ids) -> Matrix:
    """(n,) cross-entropies against labels that keep some doubt (Platt 1999); classes count equally in their mean.

    The doubt is as if one more picture had been a mistake: a few perfect answers do not make a classifier certain.
    """
    counts = np.bincount(ids, minlength=log_probs.shape[1]).astype(float)
    counts = np.maximum(counts, (counts > 0) * len(ids) / np.count_nonzero(counts) / _MAX_WEIGHT)
    doubt = 1 / (len(ids) + 2)
    others = (log_probs.sum(1) - log_probs[np.arange(len(ids)), ids]) / max(log_probs.shape[1] - 1, 1)
    losses = -(1 - doubt) * log_probs[np.arange(len(ids)), ids] - doubt * others
    return np.asarray(losses / counts[ids] * len(ids) / np.count_nonzero(counts))


def smoothed_loss(log_probs: Matrix, ids: Ids) -> float:
    return float(smoothed_losses(log_probs, ids).mean())


def best_temperature(logits: Matrix, ids: Ids) -> float:
    """The divisor of held-out logits with the least loss."""
    return float(min(_TEMPERATURES, key=lambda t: smoothed_loss(log_softmax(logits / t), ids)))


def expected_temperature(measured: float, expected: float, pictures: int) -> float:
    """The temperature between the best one for the answers to some pictures and an expected one, on a scale of
    logarithms."""
    share = pictures / (pictures + _EXPECTED_TEMPERATURE_PICTURES)
    return float(np.clip(measured**share * expected ** (1 - share), _TEMPERATURES[0], _TEMPERATURES[-1]))


def best_fusion_weight(edge: Matrix, server: Matrix, ids: Ids, groups: Ids) -> float:
    """Weight of the server's log-probabilities, relative to 1 for the edge's.

    It is the one nearest to 1 whose loss, with the best temperature, is within one standard error of the least loss.
    Pictures of the same place make the edge look too good, and a few dozen of them cannot tell weights apart; where
    they cannot, both sides count alike. Pictures of one group (n,) err alike, so a group counts as one observation.
    """
    sums = [edge + weight * server for weight in _WEIGHTS]
    losses = np.stack([smoothed_losses(log_softmax(s / best_temperature(s, ids)), ids) for s in sums])
    above = losses - losses[losses.mean(1).argmin()]
    error = above.std(1) / np.sqrt(len(np.unique(groups)))
    good = _WEIGHTS[above.mean(1) <= error]
    return float(good[np.abs(good - 1).argmin()])


def best_overlap(sums: Matrix, weights: Matrix, ids: Ids, pictures: int) -> float:
    """How alike the errors of both sides are, 0 to 1 (see `stages.fuse.fuse`).

    With it, the mean confidence is the share of right answers; of few pictures, this share is mixed with the mean
    confidence at an overlap of 0.5. A loss would pay more heed to a few sure mistakes, and leave all other answers too
    unsure (calibration error 8 points, not 4).
    `sums`: (n, C) edge plus weighted server log-probabilities; `weights`: (n,) of the server in them; `pictures`: of
    which there are n answers.
    """
    right = float((sums.argmax(1) == ids).mean())

    def confidence(overlap: float) -> float:
        log_probs = log_softmax(sums / (1 + overlap * weights)[:, None])
        return float(np.exp(log_probs.max(1)).mean())

    share = pictures / (pictures + _EXPECTED_OVERLAP_PICTURES)
    goal = share * right + (1 - share) * confidence(_EXPECTED_OVERLAP)
    overlaps: list[float] = _OVERLAPS.tolist()
    return min(overlaps, key=lambda overlap: abs(confidence(overlap) - goal))


def calibration_error(probs: Matrix, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: mean difference of confidence and accuracy over bins of equal mass."""
    order = np.argsort(probs, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(probs[p].mean() - right[p].mean()) for p in parts) / max(len(probs), 1))
