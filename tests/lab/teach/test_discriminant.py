"""The linear discriminant against its definition, and the folds of its cross-validation. Plain arrays, no models."""

from __future__ import annotations

import numpy as np

from sagelink.lab.probabilities import (
    log_softmax,
)
from sagelink.lab.teach.discriminant import Discriminant, SigmoidDiscriminant, folds_of, held_out_logits, one_hot
from sagelink.models.heads.combinations import answers_of, membership


def clouds(rows: int, distance: float, seed: int = 0, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of `rows` points with a common, uneven covariance."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(3), rows)
    mixing = np.random.default_rng(9).normal(size=(width, width))
    return rng.normal(size=(3 * rows, width)) @ mixing + distance * np.eye(3, width)[ids], ids


def test_without_shrinkage_it_is_the_textbook_rule() -> None:
    features, ids = clouds(200, 3.0)
    linear = Discriminant(features, ids, 3).linear(1e-9)
    means = np.stack([features[ids == c].mean(0) for c in range(3)])
    inverse = np.linalg.inv(np.cov((features - means[ids]).T, bias=True))
    expected = features @ inverse @ means.T - 0.5 * np.einsum("cf,fg,cg->c", means, inverse, means)
    np.testing.assert_allclose(log_softmax(linear.logits(features)), log_softmax(expected), atol=1e-4)


def test_shrinkage_helps_where_there_are_as_many_features_as_pictures() -> None:
    features, ids = clouds(14, 9.0, width=40)
    test, truth = clouds(100, 9.0, seed=5, width=40)
    right = {s: (Discriminant(features, ids, 3).linear(s).logits(test).argmax(1) == truth).mean() for s in (1e-6, 0.3)}
    assert right[0.3] > right[1e-6] + 0.02, right


def test_no_group_stands_on_both_sides_and_every_fold_has_every_class() -> None:
    groups = np.repeat(np.arange(12), 5)
    ids = np.repeat([0, 1, 2], 20)
    folds = folds_of(groups, one_hot(ids, 3))
    assert len(np.unique(folds)) == 4
    for group in range(12):
        assert len(np.unique(folds[groups == group])) == 1
    for fold in np.unique(folds):
        assert {*ids[folds == fold]} == {0, 1, 2}


def test_a_class_of_one_group_is_a_mistake_when_held_out_not_a_crash() -> None:
    features, ids = clouds(10, 8.0)
    groups = np.where(ids == 2, 99, np.arange(30))
    logits = held_out_logits(features, ids, folds_of(groups, one_hot(ids, 3)), 3, [0.3])[0.3]
    assert np.isfinite(logits).all()
    assert (logits[ids == 2].argmax(1) != 2).all()


def test_sigmoids_find_each_class_whatever_else_is_there() -> None:
    rng = np.random.default_rng(0)
    shows = rng.random((200, 3)) < 0.4
    directions = 4 * np.eye(3, 12)
    features = shows @ directions + rng.normal(size=(200, 12))
    linear = SigmoidDiscriminant(features[:100], shows[:100]).linear(0.3)
    assert ((linear.logits(features[100:]) > 0) == shows[100:]).mean() > 0.93


def test_the_softmax_over_all_combinations_is_the_product_of_the_sigmoids() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 3)) * 2
    answers = answers_of(3, ())
    probs = np.exp(log_softmax(logits @ membership(3, answers).T))
    sigmoids = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(probs @ membership(3, answers), sigmoids, atol=1e-6)
    np.testing.assert_allclose(probs[:, answers.index(())], np.prod(1 - sigmoids, axis=1), atol=1e-6)
