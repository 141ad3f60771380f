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
MAX_FOLDS = 10
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
    """Class means and the covariance within classes of some rows; classifiers for any shrinkage follow at once.

    The mean of a class has an error, which makes it longer: the mean of fewer pictures is longer, and each class with
    fewer pictures would get fewer answers than it should (Raudys and Jain 1991). Where each picture is held out in
    turn, that is its own class, so held-out answers would look worse than those to new pictures. The error follows from
    the distance of held-out pictures from their means.
    """

    def __init__(self, features: Matrix, ids: Ids, classes: int, pictures: Ids | None = None) -> None:
        """Each class has at least one row. `pictures`: (n,) the picture of each row; None: each row is one."""
        self.means = np.stack([features[ids == c].mean(0) for c in range(classes)])  # (C, F)
        self._whitening = Whitening(features - self.means[ids])
        owners = np.arange(len(ids)) if pictures is None else pictures
        self._counts = np.array([len(np.unique(owners[ids == c])) for c in range(classes)])  # (C,) pictures

    def linear(self, shrinkage: float, distance: float = 0.0) -> Linear:
        """`distance`: mean of `distances` of pictures that were held out; 0: no error of the means is expected."""
        weight = self._whitening.weights(self.means, shrinkage)
        bias = -0.5 * ((weight * self.means).sum(1) - distance / self._counts)
        return Linear(weight - weight.mean(0), bias - bias.mean())  # a common part changes no answer

    def distances(self, features: Matrix, ids: Ids, shrinkage: float) -> Matrix:
        """(n,) squared whitened distances of other pictures from the true means of their classes, as expected from
        those of the means here, whose error has a share in them."""
        offsets = features - self.means[ids]
        squares = (self._whitening.weights(offsets, shrinkage) * offsets).sum(1)
        return np.asarray(squares / (1 + 1 / self._counts[ids]))


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
    """A fold (n,) for each row, so that no group is in two folds, and each class is in several if it can.

    Groups are dealt out largest first, each to the fold with the fewest pictures of its classes. `shows`: (n, C), the
    classes of each row.
    """
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    count = max(2, min(MAX_FOLDS, len(members)))
    filled = np.zeros((count, shows.shape[1]))
    folds = np.zeros(len(shows), np.intp)
    for rows in sorted(members.values(), key=len, reverse=True):
        counts = shows[rows].sum(0)
        fold = int((filled[:, counts > 0].sum(1) + 1e-3 * filled.sum(1)).argmin())
        filled[fold] += counts
        folds[rows] = fold
    return folds


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutAnswers:
    """Answers by classifiers that have not seen the fold of a row, and what they say about the one taught on all."""

    logits: Matrix  # (n, C)
    distance: float  # see `Discriminant.linear`


def held_out_logits(
    features: Matrix,
    ids: Ids,
    folds: Ids,
    classes: int,
    shrinkages: Sequence[float],
    pictures: Ids | None = None,
    whole: NDArray[np.bool_] | None = None,
) -> dict[float, HeldOutAnswers]:
    """By shrinkage: the answers to each row.

    A class that only the held-out fold has gets the least logits: its rows then count as mistakes. `pictures`: (n,) the
    picture of each row; `whole`: (n,) rows of whole pictures, which alone count for the distance. None: each row is a
    picture.
    """
    owners = np.arange(len(ids)) if pictures is None else pictures
    counted = np.ones(len(ids), bool) if whole is None else whole
    parts = []
    for fold in np.unique(folds):
        rest = folds != fold
        known = np.unique(ids[rest])
        places = np.searchsorted(known, ids[rest])
        parts.append((folds == fold, known, Discriminant(features[rest], places, len(known), owners[rest])))
    results = {}
    for shrinkage in shrinkages:
        distances = []
        for held, known, discriminant in parts:
            rows = held & counted & np.isin(ids, known)
            distances.append(discriminant.distances(features[rows], np.searchsorted(known, ids[rows]), shrinkage))
        distance = float(np.concatenate(distances).mean()) if sum(map(len, distances)) else 0.0
        logits = np.zeros((len(ids), classes))
        for held, known, discriminant in parts:
            found = discriminant.linear(shrinkage, distance).logits(features[held])
            rows_of_all = np.full((int(held.sum()), classes), found.min(1, keepdims=True) - 10.0)
            rows_of_all[:, known] = found
            logits[held] = rows_of_all
        results[shrinkage] = HeldOutAnswers(logits, distance)
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
