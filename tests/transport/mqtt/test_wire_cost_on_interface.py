"""Charged bits against the counters of a real interface: never below them, at most 8 % above.

Longer: `python -m bench.wire_cost`.
"""

from __future__ import annotations

import pytest

from bench.namespaces import unavailable
from bench.wire_cost import measure
from tests.conftest import skip_or_fail


@pytest.mark.parametrize(
    ("rates_bps", "seconds"), [([64_000], 5), pytest.param([16_000, 64_000, 256_000], 15, marks=pytest.mark.campaign)]
)
def test_charged_bits_cover_the_wire_with_a_small_surplus(rates_bps: list[int], seconds: int) -> None:
    if (reason := unavailable("mosquitto")) is not None:
        skip_or_fail("netns", reason)
    for result in measure(rates_bps, seconds):
        assert result.wire_bits > 0.7 * seconds * result.rate_bps
        assert 1.0 <= result.ratio <= 1.08, result
        assert result.peak_window_bits <= result.rate_bps
