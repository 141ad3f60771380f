"""The linear discriminant against its definition, folds, calibration and fusion weights. Plain arrays, no models."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.discriminant import (
    Discriminant,
    SigmoidDiscriminant,
    best_fusion_weight,
    best_overlap,
    best_temperature,
    calibration_error,
    folds_of,
    held_out_logits,
    log_softmax,
    one_hot,
    smoothed_loss,
)
from sagelink.lab.unknown import fit_unknown
from sagelink.models.combinations import answers_of, membership

NOISE = 60 * np.random.default_rng(5).normal(size=(9, 12))


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


def test_held_out_answers_to_few_pictures_are_as_good_as_answers_to_new_ones() -> None:
    held, new = [], []
    for seed in range(20):
        features, ids = clouds(5, 9.0, seed=seed, width=40)
        test, truth = clouds(30, 9.0, seed=100 + seed, width=40)
        found = held_out_logits(features, ids, np.arange(15), 3, [0.5])[0.5]
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
        distance = held_out_logits(features, ids, np.arange(len(ids)) % 21, 3, [0.5])[0.5].distance
        test, _ = clouds(40, 9.0, seed=100 + seed, width=40)
        shares.append((Discriminant(features, ids, 3).linear(0.5, distance).logits(test).argmax(1) == 2).mean())
    assert 0.22 < np.mean(shares) < 0.45


def test_no_group_stands_on_both_sides_and_every_class_can_be_learned() -> None:
    groups = np.repeat(np.arange(12), 5)
    ids = np.repeat([0, 1, 2], 20)
    folds = folds_of(groups, one_hot(ids, 3))
    assert len(np.unique(folds)) == 10
    for group in range(12):
        assert len(np.unique(folds[groups == group])) == 1
    for fold in np.unique(folds):
        assert {*ids[folds != fold]} == {0, 1, 2}


def test_a_class_of_one_group_is_a_mistake_when_held_out_not_a_crash() -> None:
    features, ids = clouds(10, 8.0)
    groups = np.where(ids == 2, 99, np.arange(30))
    logits = held_out_logits(features, ids, folds_of(groups, one_hot(ids, 3)), 3, [0.3])[0.3].logits
    assert np.isfinite(logits).all()
    assert (logits[ids == 2].argmax(1) != 2).all()


def test_a_few_perfect_answers_do_not_make_a_classifier_certain() -> None:
    logits = np.array([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]])
    ids = np.array([0, 0, 0, 1, 1, 1])
    top = np.exp(log_softmax(logits / best_temperature(logits, ids))).max()
    assert 0.7 < top < 0.9


def test_overconfident_logits_get_a_temperature_that_calibrates_them() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2, 4000)
    scores = np.stack([-(ids * 2 - 1), ids * 2 - 1], 1) * 0.8 + rng.normal(size=(4000, 2))
    logits = 20 * scores
    found = log_softmax(logits / best_temperature(logits, ids))
    right = found.argmax(1) == ids
    assert calibration_error(np.exp(found.max(1)), right) < 0.03
    assert calibration_error(np.exp(log_softmax(logits).max(1)), right) > 0.1


def test_fusion_weights_follow_the_evidence_and_are_1_without_any() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, 600)
    good = log_softmax(4 * np.eye(3)[ids] + rng.normal(size=(600, 3)))
    noise = log_softmax(3 * rng.normal(size=(600, 3)))
    assert best_fusion_weight(good, noise, ids, np.arange(len(ids))) < 0.2
    assert best_fusion_weight(noise, good, ids, np.arange(len(ids))) > 1.5
    assert best_fusion_weight(good[:6], good[:6], ids[:6], np.arange(6)) == pytest.approx(1, abs=0.1)


def test_answers_with_the_same_errors_are_no_surer_together_than_alone() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, 3000)
    one, other = (rng.normal(size=(3000, 3)) + 1.5 * np.eye(3)[ids] for _ in range(2))
    one, other = (log_softmax(scores / best_temperature(scores, ids)) for scores in (one, other))
    weights = np.ones(3000)
    assert best_overlap(one + one, weights, ids) >= 0.9
    assert best_overlap(one + other, weights, ids) <= 0.1


def test_the_unknown_rule_keeps_the_taught_and_rejects_the_foreign() -> None:
    features, ids = clouds(60, 8.0)
    fit = fit_unknown(features, ids, np.arange(len(ids)) % 5, np.ones(len(ids), bool), NOISE)
    test, _ = clouds(200, 8.0, seed=3)
    foreign = test + 40 * np.random.default_rng(1).normal(size=12)
    assert fit.held_out_rate <= 0.02
    assert fit.rule.rejects(test.astype(np.float32)).mean() <= 0.05
    assert fit.rule.rejects(foreign.astype(np.float32)).mean() >= 0.9


def test_a_few_mislabelled_pictures_do_not_widen_the_unknown_rule() -> None:
    features, ids = clouds(200, 8.0)
    plain = fit_unknown(features, ids, np.arange(len(ids)) % 5, np.ones(len(ids), bool), NOISE)
    features[:3] += 200
    odd = fit_unknown(features, ids, np.arange(len(ids)) % 5, np.ones(len(ids), bool), NOISE)
    assert odd.rule.rejects(features[:3].astype(np.float32)).all()
    assert odd.card.threshold < 2 * plain.card.threshold


def test_two_sequences_of_a_class_that_differ_do_not_let_foreign_scenes_pass() -> None:
    rng = np.random.default_rng(0)
    sequences = [0.0, 0.5, 20.0, 27.0]  # two of a class that hardly changes, and two of one that does
    place = np.repeat(np.arange(4), 8)
    features = rng.normal(size=(32, 12)) + np.array(sequences)[place, None] * np.eye(1, 12)
    foreign = rng.normal(size=(50, 12)) + 60 * np.eye(1, 12, 5)
    fit = fit_unknown(features, place // 2, place % 2, np.ones(32, bool), foreign[:9])
    assert not fit.rule.rejects(features.astype(np.float32)).any()
    assert fit.rule.rejects(foreign.astype(np.float32)).all()


def test_the_next_sequence_of_classes_that_were_seen_once_is_known() -> None:
    rng = np.random.default_rng(0)
    ids, foreign = np.repeat(np.arange(2), 12), rng.normal(size=(50, 12)) + 60 * np.eye(1, 12, 5)
    features = rng.normal(size=(24, 12)) + 20 * ids[:, None] * np.eye(1, 12)
    fit = fit_unknown(features, ids, np.arange(24) % 4, np.ones(24, bool), foreign[:9])
    later = rng.normal(size=(24, 12)) + 6 * np.eye(1, 12, 3)  # six deviations away: the light has changed
    assert not fit.rule.rejects(later.astype(np.float32)).any()
    assert fit.rule.rejects(foreign.astype(np.float32)).all()


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


def test_a_rare_class_counts_only_a_few_times_as_much_as_its_pictures() -> None:
    log_probs = np.log(np.full((101, 2), 0.5))
    log_probs[100] = np.log([0.9999, 0.0001])
    ids = np.zeros(101, np.intp)
    ids[100] = 1
    assert smoothed_loss(log_probs, ids) < 1.1
