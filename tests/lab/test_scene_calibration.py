"""How sure verdicts on scenes are: fitted to held-out sequences, near the usual numbers where these are few."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.scene_calibration import fit_sharpness, play_sequences
from sagelink.pipeline.answers import USUAL_SHARPNESS


def sequences(count: int, mistaken: float, length: int = 8) -> tuple[np.ndarray, ...]:
    """Log-probabilities (n, 2) of pictures, true classes, sequences, times: whole sequences are right or mistaken, and
    each answer says 80 %."""
    sequence = np.repeat(np.arange(count), length)
    ids = sequence % 2
    wrong = (np.arange(count) < mistaken * count)[sequence]
    log_probs = np.log(np.where(np.arange(2) == np.where(wrong, 1 - ids, ids)[:, None], 0.8, 0.2))
    return log_probs, ids, sequence, np.tile(np.arange(length) / 2.0, count)


def play(count: int, mistaken: float):
    edge, ids, sequence, times_s = sequences(count, mistaken)
    return play_sequences(edge, [], ids, sequence, times_s, 0.4)


def mean_prob(sharpness, played) -> float:
    factors = sharpness.factors(played.age_s, played.server_weight)
    scores = played.scores * factors[:, None]
    return float((np.exp(scores.max(1)) / np.exp(scores).sum(1)).mean())


def test_a_sequence_is_played_in_the_order_of_time_and_its_answers_are_averaged() -> None:
    edge = np.log(np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]))
    played = play_sequences(edge, [], np.zeros(3, int), np.zeros(3, int), np.array([1.0, 0.0, np.nan]), 1.0)
    kept = np.exp(-1.0)
    np.testing.assert_allclose(played.scores[0], (kept * edge[1] + edge[0]) / (kept + 1))
    np.testing.assert_allclose(played.scores[1:], edge[1:])
    np.testing.assert_allclose(played.age_s, [1.0, 0.0, 0.0])


def test_server_answers_are_added_with_their_weight_where_there_are_any() -> None:
    edge = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    server = np.log(np.array([[0.1, 0.9], [0.1, 0.9]]))
    played = play_sequences(
        edge, [(2.0, server, np.array([False, True]))], np.zeros(2, int), np.arange(2), np.full(2, np.nan), 1.0
    )
    np.testing.assert_allclose(played.scores[2], edge[1] + 2 * server[1])
    assert played.server_weight.tolist() == [0, 0, 2]
    assert played.right.tolist() == [True, True, False]


@pytest.mark.parametrize("mistaken", [0.0, 0.2, 0.4])
def test_many_sequences_are_fitted(mistaken: float) -> None:
    played = play(200, mistaken)
    assert mean_prob(fit_sharpness(played), played) == pytest.approx(1 - mistaken, abs=0.05)


def test_few_sequences_without_a_mistake_leave_the_usual_numbers_nearly_as_they_are() -> None:
    fitted = fit_sharpness(play(4, 0.0))
    assert abs(fitted.age - USUAL_SHARPNESS.age) <= 0.15
    assert 0.8 <= fitted.base <= 1.6


def test_mistakes_make_verdicts_less_sure() -> None:
    sure, unsure = fit_sharpness(play(20, 0.0)), fit_sharpness(play(20, 0.4))
    assert unsure.factor(2.0, 0.0) < 0.5 * sure.factor(2.0, 0.0)
