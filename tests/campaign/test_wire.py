"""The promise of the budget on the wire: loss, outages, restarts, certificates, and set-ups that fit no window.

Every packet that leaves the edge's interface is captured. Longer: `python -m bench.wire_cost`.
"""

from __future__ import annotations

import pytest

from bench import lossy_link
from bench.namespaces import unavailable
from bench.wire_cost import Scenario, WireCostResult, measure
from tests.conftest import skip_or_fail

pytestmark = pytest.mark.campaign


def measured(scenario: Scenario) -> WireCostResult:
    """The result, in which no window is over its limit."""
    if (reason := unavailable("mosquitto", "openssl") or lossy_link.unavailable()) is not None:
        skip_or_fail("netns", reason)
    result = measure(scenario)
    assert result.fullest[1.0] <= 1.0, result
    assert result.fullest[10.0] <= 1.0, result
    assert result.ratio >= 1.0 or not result.wire_bits, result
    return result


@pytest.mark.parametrize(
    ("transport", "rate_bps", "loss"), [("mqtt", 16_000, 0.1), ("mqtts", 64_000, 0.05), ("webrtc", 256_000, 0.2)]
)
def test_loss(transport: str, rate_bps: int, loss: float) -> None:
    result = measured(Scenario(transport, rate_bps, seconds=8, loss=loss))
    assert result.evidence_bits > 0


@pytest.mark.parametrize(("transport", "rate_bps"), [("mqtt", 16_000), ("webrtc", 64_000)])
def test_outages_and_a_restarted_broker(transport: str, rate_bps: int) -> None:
    """An outage that a connection survives, and one that it does not."""
    outages = ((4.0, 7.0), (9.0, 15.0))
    result = measured(Scenario(transport, rate_bps, seconds=22, loss=0.0, outages=outages, restarts=(18.0,)))
    assert result.connected >= (1 if rate_bps == 16_000 else 2)  # at 16 kbit/s a set-up takes long


@pytest.mark.parametrize("transport", ["mqtt", "webrtc"])
def test_announcements_of_many_cameras(transport: str) -> None:
    result = measured(Scenario(transport, 16_000, seconds=6, loss=0.0, cameras=16))
    assert result.connected == 1
    assert result.ratio <= 1.08


def test_a_long_chain_of_certificates_is_spread() -> None:
    assert measured(Scenario("mqtts", 16_000, seconds=12, loss=0.0, key_bits=4096)).connected == 1


@pytest.mark.parametrize("transport", ["mqtt", "webrtc"])
def test_a_connection_that_no_window_holds_sends_nothing(transport: str) -> None:
    result = measured(Scenario(transport, 4000, seconds=2, loss=0.0))
    assert (result.wire_bits, result.charged_bits, result.connected) == (0, 0, 0)
