"""Pictures in MQTT messages as an event source: each message is one event with one picture.

For gateways, ONVIF bridges and cameras that publish JPEG or other still pictures on a topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sagelink.pipeline.types import FrameEvent
from sagelink.stages.nvr.contract import PictureMissing, Sighting

_MAX_TOPIC = 512  # characters


class MqttSnapshots:
    """An EventSource. The event's camera is the topic, its id the topic and the time of arrival."""

    fetches = False

    def __init__(self, topic: str, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """`topic`: an MQTT topic filter; it may contain + and #."""
        self.topics: Sequence[str] = (topic,)
        self._clock_ns = clock_ns
        self._last_ns = 0

    def receive(self, topic: str, payload: bytes) -> Sequence[Sighting]:
        if not payload or len(topic) > _MAX_TOPIC:  # without payload: clears a retained message
            return ()
        self._last_ns = max(self._last_ns + 1, self._clock_ns())
        event = FrameEvent(f"{topic}@{self._last_ns}", topic)
        return (Sighting(event, picture=payload, ended=True),)

    async def fetch(self, event: FrameEvent, ended: bool) -> bytes:
        raise PictureMissing("pictures come in messages", outage=False)

    async def missed(self, since_s: float) -> Sequence[Sighting]:
        return ()
