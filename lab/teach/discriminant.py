"""Linear discriminant with shrinkage (Friedman 1989), and its grouped cross-validation. Pure NumPy.

Features (n, F) and class ids (n,) in; weights (C, F) and biases (C,) out. All classes have the same prior: how often a
class was photographed says nothing about how often the camera will see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.probabilities import Ids, Matrix

SHRINKAGES = (0.1, 0.3, 0.5, 0.8)
MAX_FOLDS = 5
_MIN_STD = 1e-6


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear classifier: logits are `features @ weight.T + bias`."""

    weight: Matrix  # (C, F)
    bias: Matrix  # (C,)

    def logits(self, features: Matrix) -> Matrix:
        return np.asarray(features @ self.weight.T + self.bias)


class Whitening:
    """The covariance of features within classes; it turns differences of means into weights, for any shrinkage."""

    def __init__(self, within: Matrix) -> None:
        """`within`: (n, F) features minus the means of their classes."""
        self._std = np.maximum(within.std(0), _MIN_STD)
        scaled = within / self._std
        self._spectrum, self._axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))  # (F,), (F, F)

    def weights(self, means: Matrix, shrinkage: float) -> Matrix:
        """(C, F) to (C, F). `shrinkage`: share of the diagonal covariance in the mixture, above 0 and up to 1."""
        variance = (1 - shrinkage) * np.maximum(self._spectrum, 0) + shrinkage
        scaled = means / self._std
        return np.asarray(((scaled @ self._axes) / variance) @ self._axes.T / self._std)


class Discriminant:
    """Class means and the covariance within classes of some rows; classifiers for any shrinkage follow at once."""

    def __init__(self, features: Matrix, ids: Ids, classes: int) -> None:
        """Each class has at least one row."""
        self.means = np.stack([features[ids == c].mean(0) for c in range(classes)])  # (C, F)
        self._whitening = Whitening(features - self.means[ids])

    def linear(self, shrinkage: float) -> Linear:
        weight = self._whitening.weights(self.means, shrinkage)
        bias = -0.5 * (weight * self.means).sum(1)
        return Linear(weight - weight.mean(0), bias - bias.mean())  # a common part changes no answer


class SigmoidDiscriminant:
    """The same where a row may show several classes: each class has a sigmoid of its own.

    The mean of a row is the sum of a common mean and a difference for each class that it shows (least squares). The
    logit of a class is 0 halfway between the rows with it and those without it.
    """

    def __init__(self, features: Matrix, shows: NDArray[np.bool_]) -> None:
        """`shows`: (n, C)."""
        design = np.concatenate([np.ones((len(shows), 1)), shows], 1)
        means = np.linalg.lstsq(design, features, rcond=None)[0]  # (1 + C, F)
        self._differences = means[1:]
        self._whitening = Whitening(features - design @ means)
        both = [[features[rows].mean(0) for rows in (column, ~column) if rows.any()] for column in shows.T]
        self._middles = np.stack([np.mean(each, 0) for each in both])

    def linear(self, shrinkage: float) -> Linear:
        weight = self._whitening.weights(self._differences, shrinkage)
        return Linear(weight, -(weight * self._middles).sum(1))


def one_hot(ids: Ids, classes: int) -> NDArray[np.bool_]:
    """(n,) class ids to (n, C)."""
    return np.asarray(ids[:, None] == np.arange(classes))


def folds_of(groups: Ids, shows: NDArray[np.bool_]) -> Ids:
    """A fold (n,) for each row, so that no group is in two folds and each class is in all of them if it can.

    Groups are dealt out largest first, each to the fold with the fewest pictures of its classes. `shows`: (n, C), the
    classes of each row.
    """
    per_class = [len(np.unique(groups[column])) for column in shows.T]
    count = max(2, min(MAX_FOLDS, *per_class))
    filled = np.zeros((count, shows.shape[1]))
    folds = np.zeros(len(shows), np.intp)
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    for rows in sorted(members.values(), key=len, reverse=True):
        counts = shows[rows].sum(0)
        fold = int((filled[:, counts > 0].sum(1) + 1e-3 * filled.sum(1)).argmin())
        filled[fold] += counts
        folds[rows] = fold
    return folds


def held_out_logits(
    features: Matrix, ids: Ids, folds: Ids, classes: int, shrinkages: Sequence[float]
) -> dict[float, Matrix]:
    """By shrinkage: logits (n, C) of each row from a classifier that has not seen its fold.

    A class that only the held-out fold has gets the least logits: its rows then count as mistakes.
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


def held_out_sigmoids(
    features: Matrix, shows: NDArray[np.bool_], folds: Ids, shrinkages: Sequence[float]
) -> dict[float, Matrix]:
    """The same where a row may show several classes, `shows` (n, C)."""
    results = {shrinkage: np.zeros(shows.shape) for shrinkage in shrinkages}
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        discriminant = SigmoidDiscriminant(features[rest], shows[rest])
        for shrinkage, logits in results.items():
            logits[held] = discriminant.linear(shrinkage).logits(features[held])
    return results
