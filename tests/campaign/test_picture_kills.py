"""Kills of an edge that is sending the picture of an event: the next edge goes on, and the budget holds."""

from __future__ import annotations

import io
import json
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path

import httpx
import paho.mqtt.client as paho
import pytest
from PIL import Image

from bench.ports import free_port
from sagelink.pipeline.ledger.report import read_ledger
from sagelink.transport.picture_parts import PicturePart, decode_picture_part
from tests.app.runs import live_run
from tests.app.server.test_console import ConsoleProcess
from tests.app.test_event_receivers import EACH_LABEL
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.processes import Sagelink

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

KILLS = 5
RATE_BPS, WINDOW_S = 32_000, 2
HEADER_BITS = 8 * 66  # of a TCP segment on Ethernet


class MeteredRelay:
    """Passes connections to a port, and notes when how many bytes came from the client."""

    def __init__(self, port: int) -> None:
        self._target = "127.0.0.1", port
        self.port = free_port()
        self.up: list[tuple[float, int]] = []  # (monotonic s, bytes)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        try:
            while data := source.recv(65_536):
                if is_up:
                    self.up.append((time.monotonic(), len(data)))
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def fullest_window(self) -> int:
        """Bits of the payload of TCP."""
        sums = [0, *accumulate(size for _, size in self.up)]
        times_s, first, most = [at_s for at_s, _ in self.up], 0, 0
        for last, at_s in enumerate(times_s):
            while times_s[first] <= at_s - WINDOW_S:
                first += 1
            most = max(most, 8 * (sums[last + 1] - sums[first]))
        return most


class PartRecorder:
    """Gets every part of a picture that the broker gets."""

    def __init__(self, port: int) -> None:
        self.parts: list[PicturePart] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "part-recorder")
        self._client.on_message = lambda client, data, message: self.parts.append(decode_picture_part(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("sagelink/+/+/picture", 1)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def whole(self) -> dict[str, bytes]:
        """The pictures of which all parts came, by event."""
        found: dict[str, bytearray] = {}
        sizes: dict[str, int] = {}
        for part in [*self.parts]:
            data = found.setdefault(part.event, bytearray())
            sizes[part.event] = part.total_bytes
            if part.offset == len(data):
                data += part.data
            else:  # a repeated part
                assert data[part.offset :][: len(part.data)] == part.data
        return {event: bytes(data) for event, data in found.items() if len(data) == sizes[event]}


def wait_until_half_sent(recorder: PartRecorder, run: Sagelink) -> str:
    """Waits until a part arrives that does not end its picture; returns its event."""
    before, end_s = len(recorder.parts), time.monotonic() + PATIENCE_S
    while True:
        for part in recorder.parts[before:]:
            if part.offset + len(part.data) < part.total_bytes:
                return part.event
        assert time.monotonic() < end_s, run.output
        time.sleep(0.005)


def test_a_picture_goes_on_after_each_kill_and_arrives_once(tmp_path: Path) -> None:
    chance, out, ledger = random.Random(3), tmp_path / "out", tmp_path / "ledger.sqlite"
    settings = (
        *("--gate", "never", "--uplink", f"{RATE_BPS}bit/s", "--window", f"{WINDOW_S}s", "--ledger", ledger),
        *(f"--set=events.rules={json.dumps([EACH_LABEL])}", "--set=events.upload=20kB", "--set=console.digest=false"),
    )
    begun: set[str] = set()
    with Mosquitto() as broker, ConsoleProcess(broker.url, "--store", tmp_path / "store") as console:
        relay, recorder = MeteredRelay(broker.port), PartRecorder(broker.port)
        url = f"mqtt://127.0.0.1:{relay.port}"
        run = live_run(url, out, *settings, fps=1)
        try:
            for _ in range(KILLS):
                begun.add(wait_until_half_sent(recorder, run))
                time.sleep(0.1 * chance.random())
                run.kill()
                run = live_run(url, out, *settings, fps=1)
            begun.add(wait_until_half_sent(recorder, run))
            end_s = time.monotonic() + PATIENCE_S
            while not recorder.whole().keys() >= begun:
                assert time.monotonic() < end_s, (begun - recorder.whole().keys(), run.output)
                time.sleep(0.1)
            run.interrupt()
            assert run.ended() == 0, run.output
            pictures = recorder.whole()
            for event in begun:
                served = httpx.get(f"{console.url}/api/cameras/edge/camera/events/{event}/picture", trust_env=False)
                assert served.content == pictures[event]
                Image.open(io.BytesIO(served.content)).load()
        finally:
            run.kill()
            recorder.close()
            relay.close()
    sent = Counter((part.event, part.offset) for part in recorder.parts)
    repeated = [part for part, count in sent.items() if count > 1]
    assert max(sent.values()) <= 2
    assert len(repeated) <= KILLS
    with sqlite3.connect(out / "picture-queue.sqlite") as queue:
        rows = {
            event: (sent, waits)
            for event, sent, waits in queue.execute("SELECT event, sent_bytes, data NOT NULL FROM pictures")
        }
    assert {event: rows[event] for event in pictures} == {event: (len(data), 0) for event, data in pictures.items()}
    payload_bits = sum(8 * size for _, size in relay.up)
    kinds = read_ledger(ledger)["by_kind"]
    charged_bits = sum(bits for kind, bits in kinds.items() if kind != "lost")
    figures = {"repeated parts": len(repeated), "pictures": len(pictures), "payload bits": payload_bits} | kinds
    (tmp_path / "figures").write_text(json.dumps(figures | {"fullest window": relay.fullest_window()}))
    assert relay.fullest_window() <= RATE_BPS * WINDOW_S
    assert sum(kinds.values()) >= payload_bits
    assert charged_bits <= payload_bits + 3 * HEADER_BITS * len(relay.up)  # with acknowledgements and set-ups
