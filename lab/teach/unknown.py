"""Fits the rule that rejects pictures of none of the classes (`models.heads.head.UnknownRule`) to taught pictures.

Features (n, 2 D: class token and mean of the units), class ids and folds in; the rule in a compact form and its
held-out rejection rate out. The threshold comes from held-out pictures: the classifier has never seen their sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.probabilities import Ids, Matrix
from sagelink.lab.teach.discriminant import Discriminant
from sagelink.models.heads.head import UnknownCard, UnknownRule

_MAX_BASIS_BYTES = 16_384  # in the head file
_MAX_RANK = 32
_SHRINKAGE = 0.9  # share of one common variance: it measures best, and small sets cannot choose
_SMALLEST = 1e-6  # score
_MISTAKES = 0.01  # share of good pictures that the rule may call unknown
_MIN_WAY = 0.6  # from held-out pictures to noise, in the logarithm of the score; see `_limit`


@dataclass(frozen=True, slots=True, eq=False)
class UnknownFit:
    card: UnknownCard
    rule: UnknownRule
    held_out_rate: float  # share of held-out pictures above the threshold


def fit_unknown(
    features: Matrix, ids: Ids, folds: Ids, whole: NDArray[np.bool_], noise: NDArray[np.floating]
) -> UnknownFit:
    """`whole`: (n,) rows of whole pictures; the others are crops. `noise`: (k, 2 D), features of pictures that show
    nothing."""
    scores = np.zeros(len(ids))
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        known = np.unique(ids[rest])
        rule = _rule(features[rest], np.searchsorted(known, ids[rest]), len(known), 0.0)
        scores[held] = rule.scores(features[held].astype(np.float32))
    rule = _rule(features, ids, int(ids.max()) + 1, 0.0)
    threshold = _limit(scores[whole], rule.scores(noise.astype(np.float32)))
    rule = replace(rule, threshold=threshold)
    card = UnknownCard(residual=rule.residual, threshold=threshold)
    return UnknownFit(card, rule, float((scores[whole] > threshold).mean()))


def _limit(scores: Matrix, noise: NDArray[np.floating]) -> float:
    """The largest score that is not unknown, from held-out scores (n,) of whole pictures and scores (k,) of noise.

    It is the conformal quantile of the held-out scores: a picture like them exceeds it with probability `_MISTAKES` at
    most (Vovk 2005), or 1 / (n + 1) where there are fewer pictures: then it is the largest score. A quantile needs no
    form of the distribution: a deviation measured on two sequences of one class and many of another can be larger than
    the distance of foreign scenes.

    Held-out pictures of a class that was seen once are parts of one sequence: they are too much alike, and say little
    about the next one. So the limit is at least `_MIN_WAY` of the way to noise, which is as far from the classes as
    photographs of other scenes are (measured: mean logarithm 6.5, 6.3, 7.9, 7.3, 7.9 for noise, and 6.6, 6.5, 7.9, 7.6,
    8.1 for photographs, with heads of five sets).
    """
    place = math.ceil((len(scores) + 1) * (1 - _MISTAKES)) - 1
    quantile = float(np.sort(scores)[min(place, len(scores) - 1)])
    near, far = (float(np.log(np.maximum(each, _SMALLEST)).mean()) for each in (scores, noise))
    return max(quantile, math.exp(near + _MIN_WAY * (far - near)))


def _rule(features: Matrix, ids: Ids, classes: int, threshold: float) -> UnknownRule:
    """A factor model of the covariance within classes, whose directions include those between class means."""
    discriminant = Discriminant(features, ids, classes)
    centre = features.mean(0)
    within = features - discriminant.means[ids]
    width = features.shape[1]
    rank = min(_MAX_RANK, max(4, _MAX_BASIS_BYTES // (2 * width)), width, len(features))
    spread = np.linalg.svd(discriminant.means - centre, full_matrices=False)[2][: max(0, min(classes - 1, rank // 2))]
    rest = within - (within @ spread.T) @ spread
    axes = np.linalg.eigh(rest.T @ rest)[1][:, ::-1][:, : rank - len(spread)].T
    basis = np.concatenate([spread, axes])
    total = np.square(within).sum() / len(within)
    variances = np.square(within @ basis.T).mean(0)
    mean_variance = total / width
    residual = max(total - variances.sum(), 0) / max(width - len(basis), 1)
    residual = (1 - _SHRINKAGE) * residual + _SHRINKAGE * mean_variance
    variances = (1 - _SHRINKAGE) * variances + _SHRINKAGE * mean_variance
    scaled = (basis / np.sqrt(variances)[:, None]).astype(np.float32)
    means = ((discriminant.means - centre) @ scaled.T).astype(np.float32)
    card = UnknownCard(residual=float(1 / residual), threshold=threshold)
    return UnknownRule.from_tensors(scaled, centre.astype(np.float32), means, card)
