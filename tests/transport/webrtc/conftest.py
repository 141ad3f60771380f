"""The signalling endpoint at which a test's server listens."""

from __future__ import annotations

import pytest

from sagelink.pipeline.config.link import WebRtcConfig
from sagelink.transport.webrtc.address import SignallingEndpoint, open_signalling_endpoint


@pytest.fixture
def endpoint() -> SignallingEndpoint:
    return open_signalling_endpoint("webrtc+http://127.0.0.1:0", WebRtcConfig(), "url")
