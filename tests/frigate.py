"""A stub of Frigate: its MQTT messages and its HTTP API, as the documentation of 0.14 to 0.17 describes them.

`FrigateStub` publishes to a real broker and answers on a real socket, each in its own thread. A test can make it slow,
let it forget pictures, refuse credentials, and stop and start it.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
import paho.mqtt.client as paho
from PIL import Image

from bench.ports import free_port
from sagelink.pipeline.types import Pixels
from sagelink.stages.sources.world import render, sample_scene
from tests.brokers import Mosquitto


def object_picture(class_id: int, seed: int = 0, side: int = 300) -> Pixels:
    """A picture of one synthetic object, (side, side, 3); the demo models know its class."""
    scene = sample_scene(np.random.default_rng([seed, class_id]), class_id)
    return render(scene, side, side, 0.0, np.random.default_rng(seed))


def coded(pixels: Pixels, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=92)
    return buffer.getvalue()


def event_message(
    kind: str,
    event_id: str,
    *,
    camera: str = "yard",
    label: str = "dog",
    score: float = 0.7,
    zones: tuple[str, ...] = (),
    sub_label: Any = None,
    frame_time: float = 1607123961.8,
    old: bool = False,
    **more: Any,
) -> bytes:
    """The payload of `frigate/events`. `old`: the form of 0.13, without a `snapshot` object."""
    state: dict[str, Any] = {
        "id": event_id,
        "camera": camera,
        "frame_time": frame_time,
        "label": label,
        "sub_label": sub_label,
        "top_score": score,
        "false_positive": False,
        "start_time": 1607123955.475377,
        "end_time": frame_time if kind == "end" else None,
        "score": score,
        "box": [100, 100, 180, 220],
        "area": 9600,
        "ratio": 0.67,
        "region": [0, 0, 320, 320],
        "current_zones": list(zones),
        "entered_zones": list(zones),
        "stationary": False,
        "motionless_count": 0,
        "position_changes": 1,
        "has_clip": False,
        "has_snapshot": True,
        "attributes": {},
        "current_attributes": [],
    }
    if not old:
        state["snapshot"] = {"frame_time": frame_time, "box": state["box"], "score": score, "attributes": []}
    state |= more
    return json.dumps({"type": kind, "before": state, "after": state}).encode()


class FrigateStub:
    """One Frigate. `pictures`: coded picture by event; `sub_labels`: each POST, in order."""

    def __init__(self, broker: Mosquitto, token: str | None = None) -> None:
        self.port = free_port()
        self.token = token
        self.pictures: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}  # clean pictures of events that have ended
        self.events: set[str] = set()
        self.config: dict[str, Any] = {"cameras": {"yard": {"zones": {"gate": {}}}}}
        self.history: list[dict[str, Any]] = []  # of the database, as the HTTP API gives them
        self.sub_labels: list[tuple[str, str, float, float]] = []  # event, label, score, time
        self.requests: list[tuple[str, str]] = []
        self.published_s: dict[str, float] = {}
        self.delay_s = 0.0
        self.fail: Callable[[str, str], int | None] = lambda method, path: None  # status to answer with
        self._broker = broker
        self._client: paho.Client | None = None
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start_http()
        self.connect()
        return self

    def connect(self) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()

    def __exit__(self, *_: object) -> None:
        self.disconnect()
        self.stop_http()

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def start_http(self) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", b"")

            def do_POST(self) -> None:
                self._answer("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _answer(self, method: str, body: bytes) -> None:
                status, content = stub.answer(method, self.path, body, self.headers.get("Authorization"))
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop_http(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, bytes]:
        time.sleep(self.delay_s)
        self.requests.append((method, path))
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, b"{}"
        failed = self.fail(method, path)
        if failed is not None:
            return failed, b"{}"
        if path == "/api/config":
            return 200, json.dumps(self.config).encode()
        if path.startswith("/api/events?"):
            after_s = float(path.partition("after=")[2].partition("&")[0])
            found = [event for event in self.history if event["start_time"] > after_s]
            return 200, json.dumps(found[::-1]).encode()
        event, _, name = path.removeprefix("/api/events/").partition("?")[0].partition("/")
        if method == "POST" and name == "sub_label":
            if event not in self.events:
                return 404, b'{"success": false}'
            content = json.loads(body)
            self.sub_labels.append((event, content["subLabel"], content["subLabelScore"], time.time()))
            return 200, b'{"success": true}'
        if not name:
            if event not in self.events:
                return 404, b"{}"
            return 200, json.dumps({"id": event, "sub_label": self.last(event)}).encode()
        if name == "snapshot-clean.webp" and event in self.stored:
            return 200, self.stored[event]
        if name == "snapshot.jpg" and event in self.pictures:
            return 200, self.pictures[event]
        return 404, b'{"success": false}'

    def last(self, event: str) -> str | None:
        """The sub-label that an event has now."""
        return next((label for known, label, _, _ in reversed(self.sub_labels) if known == event), None)

    def publish(self, kind: str, event_id: str, picture: Pixels | None = None, **fields: Any) -> None:
        """Publishes one `frigate/events` message; with `picture`, the HTTP API has that picture from now on."""
        self.events.add(event_id)
        if picture is not None:
            self.pictures[event_id] = coded(picture)
        self.published_s.setdefault(event_id, time.time())
        self.send("frigate/events", event_message(kind, event_id, **fields))

    def store(self, event_id: str, picture: Pixels, **fields: Any) -> None:
        """An event that has ended, and that no message reports."""
        self.events.add(event_id)
        self.stored[event_id] = coded(picture, "WEBP")
        now_s = time.time()
        event = {"id": event_id, "camera": "yard", "label": "dog", "sub_label": None, "zones": [], "has_snapshot": True}
        data = {"box": [0.1, 0.2, 0.3, 0.25], "region": [0, 0, 1, 1], "score": 0.7, "top_score": 0.8, "type": "object"}
        self.history.append(event | {"start_time": now_s, "end_time": now_s, "data": data} | fields)

    def send(self, topic: str, payload: bytes, retain: bool = False) -> None:
        assert self._client is not None
        self._client.publish(topic, payload, 1, retain).wait_for_publish(10)
