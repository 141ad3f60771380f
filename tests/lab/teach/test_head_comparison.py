"""Which of two heads is better."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.teach.head_comparison import HeadComparison, _probs


@pytest.mark.parametrize(
    ("old_right", "new_right", "old_loss", "new_loss", "better"),
    [(7, 8, 0.1, 0.9, True), (8, 7, 0.9, 0.1, False), (8, 8, 0.5, 0.4, True), (8, 8, 0.4, 0.4, False)],
)
def test_right_answers_decide_and_then_probabilities(old_right, new_right, old_loss, new_loss, better):
    assert HeadComparison(9, old_right, new_right, old_loss, new_loss).better is better


def test_a_class_that_a_head_does_not_know_is_a_wrong_answer():
    log_probs = np.log([[0.9, 0.1], [0.2, 0.8]])
    probs, right = _probs(log_probs, ("open", "shut"), ["lorry", "shut"])
    assert probs.tolist() == pytest.approx([0.0, 0.8])
    assert right.tolist() == [False, True]
