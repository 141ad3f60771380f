"""Cumulative sums find a change of state, and when it began."""

from __future__ import annotations

import numpy as np

from sagelink.stages.state_change import StateChange


def test_answers_add_up_and_the_change_began_with_the_first_of_them() -> None:
    change = StateChange(3)
    for now in range(10):
        assert change.add(np.array([0.0, -1.0, -2.0], np.float32), 1.0, now) is None
    found = [change.add(np.array([0.0, 0.4, -2.0], np.float32), 1.0, now) for now in range(10, 13)]
    assert found == [None, None, 10.0]


def test_noise_in_both_directions_is_no_change_and_a_small_share_counts_less() -> None:
    change = StateChange(2)
    for now in range(100):
        assert change.add(np.array([0.0, 0.9 if now % 2 else -0.9], np.float32), 1.0, now) is None
    assert change.add(np.array([0.0, 1.0], np.float32), 0.1, 100) is None
