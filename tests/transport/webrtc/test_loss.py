"""On a link that loses 5 % of the packets in both directions, frames are still answered. More: `bench.transport`."""

from __future__ import annotations

import random

import pytest

from bench import lossy_link
from bench.namespaces import unavailable
from bench.transport import between_processes
from tests.conftest import skip_or_fail


@pytest.mark.campaign
def test_nearly_every_sent_frame_is_answered() -> None:
    if (reason := unavailable() or lossy_link.unavailable()) is not None:
        skip_or_fail("netns", reason)
    figures = between_processes("webrtc", "lossy", seconds=10)
    assert figures.sent > 40
    assert figures.lost <= 0.05 * figures.sent, figures


def test_packets_are_delayed_by_rate_and_latency() -> None:
    direction = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.0, delay_s=0.5, rate_bps=8000), random.Random(1))
    direction.put(0.0, b"a" * 100)  # 0.1 s on the link
    direction.put(0.0, b"b" * 100)
    assert direction.take(0.59) == []
    assert direction.due_s() == pytest.approx(0.6)
    assert direction.take(0.65) == [b"a" * 100]
    assert direction.take(0.75) == [b"b" * 100]


def test_the_share_of_lost_packets() -> None:
    direction = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.2, delay_s=0.5, rate_bps=8000), random.Random(1))
    for number in range(500):
        direction.put(float(number), b"x")
    assert 370 < len(direction.take(1000.0)) < 430


def test_a_full_queue_drops_packets() -> None:
    direction = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.0, delay_s=0.0, rate_bps=8000), random.Random(1))
    for _ in range(50):
        direction.put(0.0, bytes(100))
    assert len(direction.take(10.0)) == 11  # the one being sent, and those that wait for up to a second
