"""Where a test's server listens."""

from __future__ import annotations

import pytest

from pipeline.config import WebRtcConfig
from transport.webrtc.address import MeetingPoint, open_meeting_point


@pytest.fixture
def at() -> MeetingPoint:
    return open_meeting_point("webrtc+http://127.0.0.1:0", WebRtcConfig(), "url")
