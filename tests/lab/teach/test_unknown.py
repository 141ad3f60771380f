"""The rule for pictures of none of the classes, on clouds of points."""

from __future__ import annotations

import numpy as np

from sagelink.lab.teach.unknown import fit_unknown
from tests.lab.teach.test_discriminant import clouds

NOISE = 60 * np.random.default_rng(5).normal(size=(9, 12))


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
