"""A link that loses 5 % of the packets in both directions: nearly every frame is answered.

For more loads: `python -m bench.transport`.
"""

from __future__ import annotations

import random

import pytest

from bench import lossy_link
from bench.namespaces import obstacle
from bench.transport import between_processes
from tests.conftest import skip_or_fail


@pytest.mark.parametrize(
    ("load", "seconds"),
    [("lossy-small", 5), *(pytest.param(load, 10, marks=pytest.mark.campaign) for load in ("lossy", "lossy-small"))],
)
def test_nearly_every_frame_that_was_sent_is_answered(load: str, seconds: int) -> None:
    if (reason := obstacle() or lossy_link.obstacle()) is not None:
        skip_or_fail("netns", reason)
    figures = between_processes("webrtc", load, seconds)
    assert figures.sent > 4 * seconds
    assert figures.lost <= 0.05 * figures.sent, figures


def test_a_lossy_link_has_delay_and_a_rate() -> None:
    link = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.0, delay_s=0.5, rate_bps=8000), random.Random(1))
    link.put(0.0, b"a" * 100)  # 0.1 s on the link
    link.put(0.0, b"b" * 100)
    assert link.take(0.59) == []
    assert link.due_s() == pytest.approx(0.6)
    assert link.take(0.65) == [b"a" * 100]
    assert link.take(0.75) == [b"b" * 100]


def test_a_lossy_link_loses_its_share_of_packets() -> None:
    link = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.2, delay_s=0.5, rate_bps=8000), random.Random(1))
    for number in range(500):
        link.put(float(number), b"x")
    assert 370 < len(link.take(1000.0)) < 430


def test_the_queue_of_a_slow_link_is_bounded() -> None:
    link = lossy_link.LossyDirection(lossy_link.LossyLink(loss=0.0, delay_s=0.0, rate_bps=8000), random.Random(1))
    for _ in range(50):
        link.put(0.0, bytes(100))
    assert len(link.take(10.0)) == 11  # one on its way, and those that wait for up to a second
