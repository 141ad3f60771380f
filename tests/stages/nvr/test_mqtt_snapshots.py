"""Pictures in MQTT messages: what is one, in which form, and ids that differ."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from sagelink.stages.nvr import mqtt_snapshots as module
from sagelink.stages.nvr.mqtt_snapshots import MqttSnapshots
from tests.frigate import coded

PIXELS = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_bytes_and_base64_of_each_form(form):
    picture = coded(PIXELS, form)
    text = base64.b64encode(picture)
    for payload in (picture, text, b"data:image/x;base64," + text):
        (sighting,) = MqttSnapshots("#").receive("door", payload)
        assert (sighting.picture, sighting.event.camera, sighting.ended) == (picture, "door", True)


def test_each_message_is_an_event_of_its_own():
    source = MqttSnapshots("#", lambda: 5)
    ids = [source.receive(topic, coded(PIXELS))[0].event.id for topic in ("a", "a", "b")]
    assert ids == ["a@5", "a@6", "b@7"]


def test_other_payloads_are_ignored_and_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_PICTURE_BYTES", 1000)
    source = MqttSnapshots("#")
    huge = coded(PIXELS) + bytes(1000)
    for payload in (b"", b"ON", b'{"state": 1}', b"aGVsbG8=", b"data:image/png;base64,%%%", huge, b"\0" * 900):
        assert source.receive("zigbee/lamp", payload) == ()
    assert source.receive("x" * 513, coded(PIXELS)) == ()
    assert caplog.text.count("event=message_ignored topic='zigbee/lamp'") == 1
