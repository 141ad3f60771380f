"""Charged bits against the counters of a real interface: never below them, at most 10 % above.

Longer: `python -m bench.wire_cost --transport webrtc`.
"""

from __future__ import annotations

import pytest

from bench.namespaces import unavailable
from bench.wire_cost import measure
from tests.conftest import skip_or_fail


@pytest.mark.parametrize(
    ("rates_bps", "seconds"), [([64_000], 8), pytest.param([64_000, 256_000], 20, marks=pytest.mark.campaign)]
)
def test_charged_bits_cover_the_wire_with_a_small_surplus(rates_bps: list[int], seconds: int) -> None:
    if (reason := unavailable("mosquitto")) is not None:
        skip_or_fail("netns", reason)
    for result in measure(rates_bps, seconds, transport="webrtc"):
        assert result.wire_bits > 0.6 * seconds * result.rate_bps
        assert 1.0 <= result.ratio <= 1.10, result
        assert result.peak_window_bits <= result.rate_bps
