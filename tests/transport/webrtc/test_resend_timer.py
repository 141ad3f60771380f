"""The time after which a message is sent again."""

from __future__ import annotations

import random

import pytest

from sagelink.transport.webrtc.resend_timer import ResendTimer


def test_on_a_steady_network_the_timeout_is_little_longer_than_the_round_trip() -> None:
    timer = ResendTimer()
    for _ in range(200):
        timer.record(0.08)
    assert timer.timeout_s == pytest.approx(0.1, abs=0.005)


def test_losses_hardly_lengthen_the_timeout() -> None:
    timer, rng, waits = ResendTimer(), random.Random(1), []
    for _ in range(2000):
        timer.record(0.3 if rng.random() < 0.05 else 0.1)
        waits.append(timer.timeout_s)
    assert sorted(waits)[len(waits) // 2] < 0.15
    assert max(waits) < 0.25


def test_the_timeout_follows_a_slower_network() -> None:
    timer = ResendTimer()
    for _ in range(100):
        timer.record(0.05)
    for _ in range(60):
        timer.record(0.5)
    assert 0.5 < timer.timeout_s < 0.9


def test_the_timeout_covers_varying_round_trips() -> None:
    timer, rng = ResendTimer(), random.Random(2)
    early = 0
    for number in range(2000):
        round_trip_s = rng.uniform(0.08, 0.14)
        early += number > 100 and round_trip_s > timer.timeout_s
        timer.record(round_trip_s)
    assert early < 40
