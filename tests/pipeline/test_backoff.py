"""Waiting longer after each failure, up to a cap, never in step with others."""

from __future__ import annotations

from sagelink.pipeline.backoff import Backoff


def test_waits_double_up_to_the_cap_and_start_anew_after_a_success():
    backoff = Backoff(first_s=1.0, max_s=8.0, seed=0)
    waits = [backoff.next_s() for _ in range(50)]
    for wait, full in zip(waits, [1, 2, 4, 8, 8, 8] + [8] * 44, strict=True):
        assert full / 2 <= wait <= full
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_two_cameras_do_not_come_back_together():
    assert Backoff(seed=1).next_s() != Backoff(seed=2).next_s()
