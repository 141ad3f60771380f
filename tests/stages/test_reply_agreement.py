"""What replies teach about the answers of a camera's scene: a sharpness, and doubts after a change of the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sagelink.stages.reply_agreement import LearnedTrust


def scores(prob: float) -> np.ndarray:
    """Two classes; class 0 has this probability."""
    return np.log(np.array([prob, 1 - prob], np.float32))


def taught(prob: float, agreeing: float, replies: int, *, changed: bool = True, weight: float = 1.0) -> LearnedTrust:
    """After replies of which this share agrees, in a random order."""
    trust, rng = LearnedTrust(), np.random.default_rng(0)
    for server_class in rng.random(replies) >= agreeing:
        trust = trust.after(scores(prob), int(server_class), weight, changed)
    return trust


def learned_prob(trust: LearnedTrust, prob: float) -> float:
    weighted = np.exp(trust.sharpness * scores(prob).astype(float))
    return float(weighted[0] / weighted.sum())


@pytest.mark.parametrize(("prob", "agreeing"), [(0.7, 0.95), (0.9, 0.7), (0.8, 0.8)])
def test_the_probability_becomes_the_share_of_replies_that_agree(prob: float, agreeing: float) -> None:
    trust = taught(prob, agreeing, 400)
    assert learned_prob(trust, prob) == pytest.approx(agreeing, abs=0.07)
    assert trust.replies == 400


def test_without_replies_nothing_changes() -> None:
    trust = LearnedTrust()
    assert trust.sharpness == 1
    assert trust.after(scores(0.9), 1, 0.0, changed=True).sharpness == 1  # evidence without weight teaches nothing


def test_a_change_is_in_doubt_until_replies_agree() -> None:
    doubts = [taught(0.97, 1.0, replies).change_doubt(0.97) for replies in (0, 5, 50, 200)]
    assert doubts[0] == 1
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[-1] < 0.05


def test_a_change_stays_in_doubt_where_the_server_contradicts() -> None:
    trust = taught(0.97, 0.8, 300)
    assert 0.2 < trust.change_doubt(learned_prob(trust, 0.97)) < 0.45


def test_doubts_are_learned_apart_for_sure_and_unsure_answers_and_only_from_changes() -> None:
    trust = taught(0.97, 1.0, 200)
    assert trust.change_doubt(0.6) == 1
    assert taught(0.97, 1.0, 200, changed=False).change_doubt(0.97) == 1


def test_what_was_asked_rarely_is_asked_again() -> None:
    trust = taught(0.97, 1.0, 60)
    before = trust.change_doubt(0.97)
    for _ in range(2000):
        trust = trust.after(scores(0.6), 0, 1.0, changed=True)
    assert trust.change_doubt(0.97) > before


def test_the_sharpness_has_limits_and_every_number_stays_finite() -> None:
    trust = LearnedTrust()
    for server_class in [0] * 500 + [1] * 500:
        trust = trust.after(np.array([0.0, -1e4], np.float32), server_class, 1e9, changed=True)
        assert 0.25 <= trust.sharpness <= 4
        assert math.isfinite(trust.squared_gradients)
    assert 0 < trust.change_doubt(0.99) <= 1
