"""Whether the server's answers change too fast to be averaged, learned from replies."""

from __future__ import annotations

import pytest

from sagelink.stages.changing_answers import ChangingAnswers


def learned(*replies: tuple[int, int, int, int]) -> ChangingAnswers:
    """`replies`: class of the reply, of the answer before, of the mean without the reply, and with it."""
    changes = ChangingAnswers()
    for reply in replies:
        changes.learn(*reply)
    return changes


def test_at_first_and_with_replies_that_all_agree_the_mean_is_held() -> None:
    assert not ChangingAnswers().newest_only
    changes = learned(*[(1, 1, 1, 1)] * 50)
    assert not changes.newest_only
    assert changes.confirmed == pytest.approx(1, abs=0.05)


def test_where_the_answer_before_predicts_replies_better_it_is_held_alone() -> None:
    assert not learned((1, 1, 0, 1)).newest_only
    assert learned(*[(1, 1, 0, 1)] * 2).newest_only


def test_where_the_mean_predicts_replies_better_it_is_held() -> None:
    noisy = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 1, 1)]  # one reply in four is a mistake
    assert not learned(*noisy * 10).newest_only


def test_where_neither_predicts_replies_the_newest_is_held() -> None:
    changes = learned(*[(reply, reply - 1, 0, 0) for reply in range(1, 20)])
    assert changes.newest_only
    assert changes.confirmed < 0.25


def test_the_choice_returns_to_the_mean() -> None:
    changing, noisy = [(1, 1, 0, 1)] * 100, [(2, 1, 1, 1), (1, 2, 1, 1)] * 20
    assert not learned(*changing, *noisy).newest_only


def test_the_next_reply_is_foretold_by_the_share_that_was_confirmed() -> None:
    assert learned(*[(1, 1, 1, 1), (2, 1, 1, 2)] * 100).confirmed == pytest.approx(0.5, abs=0.05)


def test_what_was_learned_survives_and_can_be_forgotten() -> None:
    changes, restored = learned(*[(1, 1, 0, 1)] * 5), ChangingAnswers()
    restored.restore(changes.state())
    assert (restored.newest_only, restored.confirmed) == (True, changes.confirmed)
    restored.reset()
    assert not restored.newest_only


@pytest.mark.parametrize("state", [[], [1.0], [float("nan"), 0.5], [100.0, 0.5], [1.0, 1.5], [1.0, float("nan")]])
def test_a_damaged_state_is_refused_and_changes_nothing(state: list[float]) -> None:
    changes = learned(*[(1, 1, 0, 1)] * 5)
    with pytest.raises(ValueError, match="."):
        changes.restore(state)
    assert changes.newest_only
