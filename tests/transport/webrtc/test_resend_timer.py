"""When a message is taken for lost."""

from __future__ import annotations

import random

import pytest

from sagelink.transport.webrtc.resend_timer import ResendTimer


def test_a_steady_network_is_waited_for_a_little_longer_than_it_takes() -> None:
    trip = ResendTimer()
    for _ in range(200):
        trip.learn(0.08)
    assert trip.patience_s == pytest.approx(0.1, abs=0.005)


def test_losses_hardly_slow_the_next() -> None:
    trip, chance, waits = ResendTimer(), random.Random(1), []
    for _ in range(2000):
        trip.learn(0.3 if chance.random() < 0.05 else 0.1)
        waits.append(trip.patience_s)
    assert sorted(waits)[len(waits) // 2] < 0.15
    assert max(waits) < 0.25


def test_a_network_that_becomes_slower_is_followed() -> None:
    trip = ResendTimer()
    for _ in range(100):
        trip.learn(0.05)
    for _ in range(60):
        trip.learn(0.5)
    assert 0.5 < trip.patience_s < 0.9


def test_what_varies_is_waited_for() -> None:
    trip, chance = ResendTimer(), random.Random(2)
    early = 0
    for number in range(2000):
        took_s = chance.uniform(0.08, 0.14)
        early += number > 100 and took_s > trip.patience_s
        trip.learn(took_s)
    assert early < 40
