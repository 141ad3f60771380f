"""Backoff: waits grow after each failure up to a cap, with jitter."""

from __future__ import annotations

import random

from sagelink.pipeline.backoff import Backoff


def test_waits_double_up_to_the_cap_and_start_over_after_a_success():
    backoff = Backoff(first_s=1.0, max_s=8.0, jitter=random.Random(0).random)
    waits = [backoff.next_s() for _ in range(50)]
    for wait, full in zip(waits, [1, 2, 4, 8, 8, 8] + [8] * 44, strict=True):
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_two_cameras_do_not_reconnect_at_the_same_time():
    assert Backoff(jitter=random.Random(1).random).next_s() != Backoff(jitter=random.Random(2).random).next_s()


def test_a_lower_bound_is_above_the_cap():
    backoff = Backoff(first_s=1.0, max_s=8.0, jitter=lambda: 1.0)
    assert backoff.next_s(at_least_s=30.0) == 15.0
    assert backoff.next_s() == 1.0
