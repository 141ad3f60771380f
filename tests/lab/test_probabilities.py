"""Temperatures, fusion weights and calibration errors of drawn logits, whose right answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.probabilities import (
    best_fusion_weight,
    best_overlap,
    best_temperature,
    calibration_error,
    expected_temperature,
    log_softmax,
    smoothed_loss,
)


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
    assert best_overlap(one + one, weights, ids, 3000) >= 0.9
    assert best_overlap(one + other, weights, ids, 3000) <= 0.1


def test_a_few_answers_change_what_is_expected_of_all_by_little() -> None:
    sums = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]))
    wrong = np.ones(3, np.intp)
    assert best_overlap(sums, np.ones(3), wrong, 1000) == 1
    assert 0.5 < best_overlap(sums, np.ones(3), wrong, 1) < 0.8
    assert expected_temperature(10.0, 20.0, 1000) == pytest.approx(10.0, abs=0.3)
    assert expected_temperature(10.0, 20.0, 25) == pytest.approx(200**0.5)
    assert expected_temperature(10.0, 20.0, 0) == pytest.approx(20.0)


def test_a_rare_class_counts_only_a_few_times_as_much_as_its_pictures() -> None:
    log_probs = np.log(np.full((101, 2), 0.5))
    log_probs[100] = np.log([0.9999, 0.0001])
    ids = np.zeros(101, np.intp)
    ids[100] = 1
    assert smoothed_loss(log_probs, ids) < 1.1
