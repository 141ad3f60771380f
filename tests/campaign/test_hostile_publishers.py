"""Hostile publishers at a real broker: the memory, the disk and the page of a console stay bounded, and others are
shown."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest

from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import PREFIX_BYTES, SESSION_BYTES, Topics, encode_state
from sagelink.transport.picture_parts import PicturePart, encode_picture_part
from tests.app.server.test_console import ConsoleProcess
from tests.brokers import Mosquitto
from tests.browsers import chromium, wait_for
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]

TOPICS = Topics("sagelink")
SESSION = secrets.token_bytes(SESSION_BYTES)
INFO = CameraInfo(14, 16, "0123456789abcdef", 1.0)
HONEST = "north/door"
EVIL_TEXT = "<img src=x onerror=document.title='evil'>\x1b[31m\u202e\u0000\ud7ff'\"&`=HYPERLINK(1)"
EVIL_CAMERA = "evil/<b onmouseover=alert(1)>x"
STORE_MB, CAMERAS, EVENTS, PICTURES = 5, 1_500, 6_000, 150  # a console takes 4,000 messages of a node in a second
BROKEN = [
    b"", b"[]", b"null", b"{" * 3000, b'{"id":' + b"[" * 2000, b"\xff" * 2000, b"x" * 900_000,
    b'{"id":"e","action":"open","prob":1' + b"0" * 400 + b"}",
    b'{"id":"e2","action":"open","prob":1e999,"best_seq":-1e308,"wire_bits":1e308,"start_s":NaN}',
    b'{"id":"e3","action":"open","label":"\\ud800","rule":{"a":[1]},"camera":[],"end_s":"x"}',
    b'{"n":1e308,"o":{"edge":1e308},"d":[],"b":"x","r":-1,"w":0,"t":1e308,"c":{},"s":{"gate":"\\u001b[2J"},"q":[1,2,3]}',
]  # fmt: skip


class Publisher:
    """A client that may publish anything."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_queued_messages_set(0)
        self._client.max_inflight_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        self._client.publish(topic, payload, 0, retain=retain)

    def settle(self) -> None:
        """Waits until the broker has everything."""
        self._client.publish("sink", b"", 1).wait_for_publish(PATIENCE_S)

    def announce(self, address: str) -> None:
        self.send(TOPICS.state(address.partition("/")[0]), encode_state(SESSION, True), True)
        self.send(TOPICS.state(address), encode_state(SESSION, True, INFO), True)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto("allow_anonymous true", "max_queued_messages 0", "max_packet_size 2000000") as broker:
        yield broker


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def action(number: int, **others: object) -> str:
    values = {"id": f"e{number}", "rule": "r", "action": "close", "label": "l" * 200, "prob": 0.5, "end_s": 1.0}
    return json.dumps(values | others)


def seen(console: ConsoleProcess, camera: str) -> dict[str, Any]:
    return console.get(f"/api/cameras/{camera}")


def test_a_console_outlives_hostile_publishers(broker: Mosquitto, tmp_path: Path) -> None:
    store = tmp_path / "store"
    limits = ("--store", store, "--set", f"console.size={STORE_MB}MB")
    with ConsoleProcess(broker.url, *limits) as console:
        honest, evil = Publisher(broker.port), Publisher(broker.port)
        honest.announce(HONEST)
        honest.send(TOPICS.event(HONEST), action(0, label="lorry", action="open"))
        honest.settle()
        before_mb = console.process.memory_mb()
        evil.announce(EVIL_CAMERA)
        for kind in (TOPICS.event, TOPICS.digest, TOPICS.evidence, TOPICS.verdict, TOPICS.picture, TOPICS.state):
            for payload in BROKEN:
                evil.send(kind(EVIL_CAMERA), payload)
        evil.announce(EVIL_CAMERA)
        evil.send(
            TOPICS.event(EVIL_CAMERA),
            json.dumps({"id": EVIL_TEXT, "rule": EVIL_TEXT, "action": "open", "label": EVIL_TEXT}),
        )
        for number in range(CAMERAS):  # a topic each
            evil.send(TOPICS.state(f"evil/{number:06d}"), encode_state(SESSION, True, INFO))
            evil.send(TOPICS.state(f"evil-{number:06d}"), encode_state(SESSION, True))
            evil.send(TOPICS.event(f"evil-{number:06d}/x"), action(number))
        for number in range(EVENTS):
            evil.send(TOPICS.event(EVIL_CAMERA), action(number))
        units, noise = np.arange(196), secrets.token_bytes(60_000)
        for seq in range(PICTURES):
            message = encode_evidence(EvidenceMessage(seq, 14, 16, 5, units, noise))
            evil.send(TOPICS.evidence(EVIL_CAMERA), SESSION[:PREFIX_BYTES] + message)
            part = PicturePart(f"e{seq}", 150_000, 0, b"\x00\x00\x00\x20ftypavif" + noise[:900])
            evil.send(TOPICS.picture(EVIL_CAMERA), encode_picture_part(part))
            if seq % 50 == 0:
                evil.settle()
        evil.settle()
        honest.send(TOPICS.event(HONEST), action(1, label="car", action="open"))
        found = console.camera_when(HONEST, lambda camera: len(camera["timeline"]) == 2)
        assert [event["label"] for event in found["timeline"]] == ["car", "lorry"]
        assert console.process.memory_mb() < before_mb + 400
        end_s = time.monotonic() + PATIENCE_S
        stored: list[str] = []
        while size_mb(store) > 1.5 * STORE_MB + 10 or stored != ["car", "lorry"]:  # after the next look at the size
            assert time.monotonic() < end_s, (size_mb(store), stored)
            time.sleep(1)
            stored = [event["label"] for event in console.get(f"/api/search/events?camera={HONEST}")["found"]]
        figures = {"before": before_mb, "after": console.process.memory_mb(), "store": size_mb(store)}
        (tmp_path / "figures").write_text(json.dumps(figures))
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f"{console.url}/#/{EVIL_CAMERA}")
            wait_for(page, "document.querySelectorAll('#timeline li.closed').length > 1")
            assert page.inner_text("#camera-name") == EVIL_CAMERA
            assert page.evaluate("document.querySelectorAll('main img[src=x], main b[onmouseover]').length") == 0
            page.goto(f"{console.url}/")
            page.wait_for_selector(".fleet-row[href]")
            assert page.evaluate("document.querySelectorAll('*').length") < 2000
            assert page.title() == "Sagelink console"
        honest.close()
        evil.close()
        console.process.interrupt()
        assert console.process.ended() == 0
    output = console.process.output
    assert "Traceback" not in output
    assert len(output) < 20_000
    assert not set(output) & {"\x1b", "\u202e", "\0"}
