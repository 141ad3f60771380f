"""Linear discriminant with shrinkage (Friedman 1989), grouped cross-validation and calibration. Pure NumPy.

Features (n, F) and class ids (n,) in; weights (C, F), biases (C,) and log-probabilities out. All classes have the same
prior: how often a class was photographed says nothing about how often the camera will see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Ids = NDArray[np.intp]

SHRINKAGES = (0.1, 0.3, 0.5, 0.8)
MAX_FOLDS = 5
_TEMPERATURES = np.geomspace(0.1, 100, 61)
_WEIGHTS = np.concatenate([[0.0], np.geomspace(0.1, 4.0, 23)])
_OVERLAPS = np.linspace(0, 1, 21)
_MIN_STD = 1e-6


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear classifier: logits are `features @ weight.T + bias`."""

    weight: Matrix  # (C, F)
    bias: Matrix  # (C,)

    def logits(self, features: Matrix) -> Matrix:
        return np.asarray(features @ self.weight.T + self.bias)


class Discriminant:
    """Class means and the covariance within classes of some rows; classifiers for any shrinkage follow at once."""

    def __init__(self, features: Matrix, ids: Ids, classes: int) -> None:
        """Each class has at least one row."""
        self.means = np.stack([features[ids == c].mean(0) for c in range(classes)])  # (C, F)
        within = features - self.means[ids]
        self.std = np.maximum(within.std(0), _MIN_STD)
        scaled = within / self.std
        self.spectrum, self.axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))  # (F,), (F, F)

    def linear(self, shrinkage: float) -> Linear:
        """`shrinkage`: share of the diagonal covariance in the mixture, above 0 and up to 1."""
        variance = (1 - shrinkage) * np.maximum(self.spectrum, 0) + shrinkage
        scaled = self.means / self.std
        weight = ((scaled @ self.axes) / variance) @ self.axes.T / self.std
        bias = -0.5 * (weight * self.means).sum(1)
        return Linear(weight - weight.mean(0), bias - bias.mean())  # a common part changes no answer


def folds_of(groups: Ids, ids: Ids, classes: int) -> Ids:
    """A fold (n,) for each row, so that no group is in two folds and each class is in all of them if it can.

    Groups are dealt out largest first, each to the fold with the fewest pictures of its classes.
    """
    per_class = [len(np.unique(groups[ids == c])) for c in range(classes)]
    count = max(2, min(MAX_FOLDS, *per_class))
    filled = np.zeros((count, classes))
    folds = np.zeros(len(ids), np.intp)
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    for rows in sorted(members.values(), key=len, reverse=True):
        counts = np.bincount(ids[rows], minlength=classes)
        fold = int((filled[:, counts > 0].sum(1) + 1e-3 * filled.sum(1)).argmin())
        filled[fold] += counts
        folds[rows] = fold
    return folds


def held_out_logits(
    features: Matrix, ids: Ids, folds: Ids, classes: int, shrinkages: Sequence[float]
) -> dict[float, Matrix]:
    """By shrinkage: logits (n, C) of each row from a classifier that has not seen its fold.

    A class that only the held-out fold has keeps the mean of all other rows: its rows then count as mistakes.
    """
    results = {shrinkage: np.zeros((len(ids), classes)) for shrinkage in shrinkages}
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        known = np.unique(ids[rest])
        discriminant = Discriminant(features[rest], np.searchsorted(known, ids[rest]), len(known))
        for shrinkage, logits in results.items():
            found = discriminant.linear(shrinkage).logits(features[held])
            rows = np.full((int(held.sum()), classes), found.min(1, keepdims=True) - 10.0)
            rows[:, known] = found
            logits[held] = rows
    return results


def log_softmax(logits: Matrix) -> Matrix:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def smoothed_losses(log_probs: Matrix, ids: Ids) -> Matrix:
    """(n,) cross-entropies against labels that keep some doubt (Platt 1999); classes count equally in their mean.

    The doubt is as if one more picture had been a mistake: a few perfect answers do not make a classifier certain.
    """
    counts = np.bincount(ids, minlength=log_probs.shape[1]).astype(float)
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
