"""The bits on a real interface: no window over its limit, and charges that are never below them, at most 8 % above.

All cases: tests/campaign/test_wire.py; longer: `python -m bench.wire_cost`.
"""

from __future__ import annotations

import pytest

from bench.namespaces import unavailable
from bench.wire_cost import Scenario, measure
from tests.conftest import skip_or_fail


@pytest.mark.campaign
def test_no_window_exceeds_the_limit_and_charges_cover_the_wire() -> None:
    if (reason := unavailable("mosquitto")) is not None:
        skip_or_fail("netns", reason)
    result = measure(Scenario("webrtc", 64_000, seconds=6))
    assert result.connected == 1
    assert result.delivered > 0.3
    assert result.fullest[1.0] <= 1.0
    assert 1.0 <= result.ratio <= 1.08
