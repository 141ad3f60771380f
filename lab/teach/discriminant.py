"""Linear discriminant with shrinkage (Friedman 1989), and its grouped cross-validation. Pure NumPy.

Features (n, F) and class ids (n,) in; weights (C, F) and biases (C,) out. All classes have the same prior: how often a
class was photographed says nothing about how often the camera will see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.probabilities import Ids, Matrix

SHRINKAGES = (0.1, 0.3, 0.5, 0.8)
_FOLDS, _MORE_FOLDS = 5, 10
_MIN_GROUPS = 3  # of each class, so that held-out answers can be corrected
_MIN_STD = 1e-6
_MIN_SEPARATION = 1e-9  # squared whitened distance; below, all classes show the same


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

    The mean of a class has an error, which makes it longer: each class with fewer pictures would get fewer answers than
    it should (Raudys and Jain 1991). A held-out picture is missing in its own class, so held-out answers would look
    worse than those to new pictures. The error follows from the distance of held-out pictures from their means.
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

    def variances(self, features: Matrix, ids: Ids, shrinkage: float) -> Matrix:
        """(n,) squared deviations, of other pictures, of the difference of two logits from its mean in their class;
        the mean over all pairs of classes, without the error of the means."""
        weight = self._whitening.weights(self.means, shrinkage)
        squares = _mean_square_difference((features - self.means[ids]) @ weight.T)
        return np.asarray(squares / (1 + 1 / self._counts[ids]))

    def separation(self, shrinkage: float) -> float:
        """Squared whitened distance between the means of two classes; the mean over all pairs."""
        weight, count = self._whitening.weights(self.means, shrinkage), len(self.means)
        products = weight @ self.means.T
        return float(2 * (count * products.trace() - products.sum()) / (count * (count - 1)))


def _mean_square_difference(values: Matrix) -> Matrix:
    """(n,) of (n, C): the mean over all pairs of columns; 0 where there is one column only."""
    count = values.shape[1]
    return np.asarray(2 * (count * np.square(values).sum(1) - values.sum(1) ** 2) / max(1, count * (count - 1)))


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


def can_correct(groups: Ids, shows: NDArray[np.bool_]) -> bool:
    """Whether each class has enough groups: from fewer, the distance of new pictures cannot be told."""
    return min(len(np.unique(groups[column])) for column in shows.T) >= _MIN_GROUPS


def folds_of(groups: Ids, shows: NDArray[np.bool_], corrected: bool) -> Ids:
    """A fold (n,) for each row, so that no group is in two folds.

    Groups are dealt out largest first, each to the fold with the fewest pictures of its classes. `shows`: (n, C), the
    classes of each row. `corrected`: there are more folds, so held-out answers come from nearly all pictures; else each
    class is in all folds if it can.
    """
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    per_class = [len(np.unique(groups[column])) for column in shows.T]
    count = min(_MORE_FOLDS, len(members)) if corrected else max(2, min(_FOLDS, *per_class))
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
    distance: float = 0.0  # see `Discriminant.linear`
    # That calibrates Gaussian classes with the variance of held-out pictures; None: not known.
    temperature: float | None = None


def held_out_logits(
    features: Matrix, ids: Ids, folds: Ids, classes: int, shrinkages: Sequence[float]
) -> dict[float, HeldOutAnswers]:
    """By shrinkage: the answers to each row.

    A class that only the held-out fold has gets the least logits: its rows then count as mistakes.
    """
    results = {shrinkage: np.zeros((len(ids), classes)) for shrinkage in shrinkages}
    for held, known, discriminant in _by_fold(features, ids, folds, np.arange(len(ids))):
        for shrinkage, logits in results.items():
            logits[held] = _of_all(discriminant.linear(shrinkage).logits(features[held]), known, classes)
    return {shrinkage: HeldOutAnswers(logits) for shrinkage, logits in results.items()}


def corrected_held_out_logits(
    features: Matrix,
    ids: Ids,
    folds: Ids,
    classes: int,
    shrinkages: Sequence[float],
    pictures: Ids,
    whole: NDArray[np.bool_],
) -> dict[float, HeldOutAnswers]:
    """The same, with the expected error of the class means subtracted, and the temperature of Gaussian classes.

    `pictures`: (n,) the picture of each row; `whole`: (n,) rows of whole pictures, which alone count for distance and
    temperature. Each class has pictures in two folds or more.
    """
    parts = list(_by_fold(features, ids, folds, pictures))
    on_all = Discriminant(features, ids, classes, pictures)
    results = {}
    for shrinkage in shrinkages:
        distances, variances = [], []
        for held, known, discriminant in parts:
            rows = held & whole & np.isin(ids, known)
            places = np.searchsorted(known, ids[rows])
            distances.append(discriminant.distances(features[rows], places, shrinkage))
            variances.append(discriminant.variances(features[rows], places, shrinkage))
        distance = float(np.concatenate(distances).mean())
        # Two Gaussian classes at the squared distance d: a difference of logits has the mean d/2 and, where the
        # covariance is right, the variance d.
        separation = on_all.separation(shrinkage)
        variance = float(np.concatenate(variances).mean())
        temperature = variance / separation if separation > _MIN_SEPARATION else None
        logits = np.zeros((len(ids), classes))
        for held, known, discriminant in parts:
            logits[held] = _of_all(discriminant.linear(shrinkage, distance).logits(features[held]), known, classes)
        results[shrinkage] = HeldOutAnswers(logits, distance, temperature)
    return results


def _by_fold(
    features: Matrix, ids: Ids, folds: Ids, pictures: Ids
) -> Iterator[tuple[NDArray[np.bool_], Ids, Discriminant]]:
    """For each fold: its rows (n,), the classes of the other rows, and the discriminant of those."""
    for fold in np.unique(folds):
        rest = folds != fold
        known = np.unique(ids[rest])
        yield ~rest, known, Discriminant(features[rest], np.searchsorted(known, ids[rest]), len(known), pictures[rest])


def _of_all(logits: Matrix, known: Ids, classes: int) -> Matrix:
    """(n, C) of logits for the known classes only; the others get less than all."""
    rows = np.full((len(logits), classes), logits.min(1, keepdims=True) - 10.0)
    rows[:, known] = logits
    return rows


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
