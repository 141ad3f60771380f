"""The linear discriminant against its definition, and the folds of its cross-validation. Plain arrays, no models."""

from __future__ import annotations

import numpy as np

from sagelink.lab.probabilities import best_temperature, log_softmax
from sagelink.lab.teach.discriminant import (
    Discriminant,
    HeldOutAnswers,
    SigmoidDiscriminant,
    can_correct,
    corrected_held_out_logits,
    folds_of,
    held_out_logits,
    one_hot,
)
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


def corrected_answers(features: np.ndarray, ids: np.ndarray, folds: np.ndarray) -> HeldOutAnswers:
    count = len(ids)
    found = corrected_held_out_logits(features, ids, folds, 3, [0.5], np.arange(count), np.ones(count, bool))
    return found[0.5]


def test_corrected_answers_to_few_pictures_are_as_good_as_answers_to_new_ones() -> None:
    held, new = [], []
    for seed in range(20):
        features, ids = clouds(5, 9.0, seed=seed, width=40)
        test, truth = clouds(30, 9.0, seed=100 + seed, width=40)
        found = corrected_answers(features, ids, np.arange(15))
        held.append((found.logits.argmax(1) == ids).mean())
        linear = Discriminant(features, ids, 3).linear(0.5, found.distance)
        new.append((linear.logits(test).argmax(1) == truth).mean())
    assert np.mean(held) > np.mean(new) - 0.05


def test_a_class_with_fewer_pictures_gets_its_share_of_the_answers() -> None:
    shares = []
    for seed in range(10):
        features, ids = clouds(40, 9.0, seed=seed, width=40)
        kept = np.flatnonzero((ids < 2) | (np.arange(120) < 84))  # four of the last class
        features, ids = features[kept], ids[kept]
        distance = corrected_answers(features, ids, np.arange(len(ids)) % 21).distance
        test, _ = clouds(40, 9.0, seed=100 + seed, width=40)
        shares.append((Discriminant(features, ids, 3).linear(0.5, distance).logits(test).argmax(1) == 2).mean())
    assert 0.22 < np.mean(shares) < 0.45


def test_the_temperature_of_gaussian_classes_is_that_of_new_pictures() -> None:
    ratios = []
    for seed in range(10):
        features, ids = clouds(20, 6.0, seed=seed, width=40)
        found = corrected_answers(features, ids, np.arange(60) % 10)
        assert found.temperature is not None
        test, truth = clouds(300, 6.0, seed=100 + seed, width=40)
        linear = Discriminant(features, ids, 3).linear(0.5, found.distance)
        ratios.append(found.temperature / best_temperature(linear.logits(test), truth))
    assert 0.6 < np.exp(np.mean(np.log(ratios))) < 1.2


def test_classes_that_show_the_same_have_no_expected_temperature() -> None:
    features, ids = np.tile(np.random.default_rng(0).normal(size=(6, 4)), (2, 1)), np.repeat([0, 1], 6)
    folds = folds_of(np.arange(12), one_hot(ids, 2), corrected=True)
    every = np.ones(12, bool)
    found = corrected_held_out_logits(features, ids, folds, 2, [0.5], np.arange(12), every)[0.5]
    assert found.temperature is None
    assert np.isfinite(found.logits).all()


def test_no_group_stands_on_both_sides_and_every_fold_has_every_class() -> None:
    groups = np.repeat(np.arange(12), 5)
    ids = np.repeat([0, 1, 2], 20)
    folds = folds_of(groups, one_hot(ids, 3), corrected=False)
    assert len(np.unique(folds)) == 4
    for group in range(12):
        assert len(np.unique(folds[groups == group])) == 1
    for fold in np.unique(folds):
        assert {*ids[folds == fold]} == {0, 1, 2}


def test_corrected_answers_have_more_folds_from_which_every_class_can_be_learned() -> None:
    groups = np.repeat(np.arange(12), 5)
    ids = np.repeat([0, 1, 2], 20)
    assert can_correct(groups, one_hot(ids, 3))
    folds = folds_of(groups, one_hot(ids, 3), corrected=True)
    assert len(np.unique(folds)) == 10
    for fold in np.unique(folds):
        assert {*ids[folds != fold]} == {0, 1, 2}


def test_answers_are_not_corrected_where_a_class_has_two_sequences() -> None:
    groups = np.where(np.arange(60) < 40, np.repeat(np.arange(12), 5), 20 + np.arange(60) // 50)
    assert not can_correct(groups, one_hot(np.repeat([0, 1, 2], 20), 3))


def test_a_class_of_one_group_is_a_mistake_when_held_out_not_a_crash() -> None:
    features, ids = clouds(10, 8.0)
    groups = np.where(ids == 2, 99, np.arange(30))
    folds = folds_of(groups, one_hot(ids, 3), corrected=False)
    logits = held_out_logits(features, ids, folds, 3, [0.3])[0.3].logits
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
