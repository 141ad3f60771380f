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


def best_overlap(sums: Matrix, weights: Matrix, ids: Ids) -> float:
    """How alike the errors of both sides are, 0 to 1 (see `stages.fuse.fuse`).

    With it, the mean confidence is the share of right answers, as if one more picture had been half right: a loss would
    pay more heed to a few sure mistakes, and leave all other answers too unsure (calibration error 8 points, not 4).
    `sums`: (n, C) edge plus weighted server log-probabilities; `weights`: (n,) of the server in them.
    """
    goal = float(((sums.argmax(1) == ids).sum() + 0.5) / (len(ids) + 1))

    def gap(overlap: float) -> float:
        log_probs = log_softmax(sums / (1 + overlap * weights)[:, None])
        return abs(float(np.exp(log_probs.max(1)).mean()) - float(goal))

    overlaps: list[float] = _OVERLAPS.tolist()
    return min(overlaps, key=gap)


def calibration_error(probs: Matrix, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: mean difference of confidence and accuracy over bins of equal mass."""
    order = np.argsort(probs, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(probs[p].mean() - right[p].mean()) for p in parts) / max(len(probs), 1))
