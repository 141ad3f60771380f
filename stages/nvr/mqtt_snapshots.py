"""Pictures in MQTT messages as an event source: each message is one event with one picture.

For gateways, ONVIF bridges and cameras that publish JPEG or other still pictures on a topic, as bytes or as base64.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Callable, Sequence

from sagelink.pipeline.types import FrameEvent
from sagelink.stages.nvr.contract import MAX_PICTURE_BYTES, PictureMissing, Sighting

log = logging.getLogger(__name__)

_MAX_TOPIC = 512  # characters
_STARTS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")  # of picture files
_FILE_TYPE = b"ftyp"  # at byte 4 of AVIF
_DATA_URL = b"data:image/"


class MqttSnapshots:
    """An EventSource. The event's camera is the topic, its id the topic and the time of arrival."""

    fetches = False

    def __init__(self, topic: str, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """`topic`: an MQTT topic filter; it may contain + and #."""
        self.topics: Sequence[str] = (topic,)
        self._clock_ns = clock_ns
        self._last_ns = 0
        self._logged = False

    def receive(self, topic: str, payload: bytes) -> Sequence[Sighting]:
        if not payload or len(topic) > _MAX_TOPIC:  # without payload: clears a retained message
            return ()
        picture = _picture(payload) if len(payload) <= MAX_PICTURE_BYTES else None
        if picture is None:
            if not self._logged:  # once: under a wildcard, most messages may be about something else
                log.warning("event=message_ignored topic=%r reason='no picture of up to 20 MB'", topic)
                self._logged = True
            return ()
        self._last_ns = max(self._last_ns + 1, self._clock_ns())
        event = FrameEvent(f"{topic}@{self._last_ns}", topic)
        return (Sighting(event, picture=picture, ended=True),)

    async def fetch(self, event: FrameEvent, ended: bool) -> bytes:
        raise PictureMissing("pictures come in messages", outage=False)

    async def missed(self, since_s: float) -> Sequence[Sighting]:
        return ()


def _picture(payload: bytes) -> bytes | None:
    """The bytes of a picture file; None for a payload that is none."""
    if _is_picture(payload):
        return payload
    text = payload.partition(b",")[2] if payload.startswith(_DATA_URL) else payload
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return decoded if _is_picture(decoded) else None


def _is_picture(data: bytes) -> bool:
    return data.startswith(_STARTS) or data[4:8] == _FILE_TYPE
