"""What replies teach: how sure the answers of a camera are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sagelink.stages.learned_sharpness import LearnedSharpness


def scores(prob: float) -> np.ndarray:
    """Two classes; class 0 has this probability."""
    return np.log(np.array([prob, 1 - prob], np.float32))


def learned_prob(sharpness: LearnedSharpness, prob: float) -> float:
    weighted = np.exp(sharpness.factor * scores(prob).astype(float))
    return float(weighted[0] / weighted.sum())


@pytest.mark.parametrize(("prob", "agreeing"), [(0.7, 0.95), (0.9, 0.7), (0.8, 0.8)])
def test_the_probability_becomes_the_share_of_replies_that_agree(prob: float, agreeing: float) -> None:
    sharpness, rng = LearnedSharpness(), np.random.default_rng(0)
    for server_class in rng.random(400) >= agreeing:
        sharpness = sharpness.after(scores(prob), int(server_class), 1.0)
    assert learned_prob(sharpness, prob) == pytest.approx(agreeing, abs=0.07)
    assert sharpness.replies == 400
    assert sharpness.agreed == pytest.approx(400 * agreeing, abs=30)


def test_weak_evidence_teaches_less_and_evidence_without_weight_nothing() -> None:
    moves = [abs(LearnedSharpness().after(scores(0.9), 1, weight).factor - 1) for weight in (0.0, 0.1, 1.0)]
    assert moves[0] == 0
    assert 0 < moves[1] < moves[2]


def test_the_factor_has_limits_and_every_number_stays_finite() -> None:
    sharpness = LearnedSharpness()
    for server_class in [0] * 500 + [1] * 500:
        sharpness = sharpness.after(np.array([0.0, -1e4], np.float32), server_class, 1e9)
        assert 0.25 <= sharpness.factor <= 4
        assert math.isfinite(sharpness.squared_gradients)
