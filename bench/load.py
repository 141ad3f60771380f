"""Many cameras at one server through mosquitto: loss, round trip, and the server's memory.

    python -m bench.load [--cameras 1000] [--seconds 60] [--rate 1]

One process holds all cameras, each with a link and a connection of its own, sending noise of about 2 kB at random
moments. The server is a process of its own: real link, decoding, batching and replies, and a model that answers at
once, because the transport is what is measured. A frame without a reply within 10 s is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import psutil
from prometheus_client import CollectorRegistry

from models import zoo
from models.zoo import fingerprint
from pipeline.config import ModelConfig, MqttConfig
from pipeline.metrics import ServerMetrics
from pipeline.types import OperatingPoint
from server.batch import BatchLimits
from server.classify import Classifier, Top
from server.receive import Received
from server.service import Service
from transport.codecs import Canvas
from transport.codecs.raw import RawZstd
from transport.link import Hello
from transport.mqtt.address import open_broker
from transport.mqtt.edge import MqttEdgeLink
from transport.mqtt.server import MqttServerLink
from transport.mqtt.topics import Topics
from transport.wire import EvidenceMessage, decode_reply, encode_evidence

_TOPICS = Topics("load")
_SIDE, _PATCH, _UNITS = 14, 8, 10  # of the demo pair
_LOST_S = 10.0
_CONNECTING = 20  # at the same time


class AtOnce(Classifier):
    """A model that answers without computing."""

    def __call__(self, batch: Sequence[Received]) -> list[Top]:
        return [((0, 1, 2, 3, 4), (-0.5, -1.5, -2.5, -3.5, -4.5))] * len(batch)


async def be_server(url: str) -> None:
    classifier = AtOnce(zoo.load(ModelConfig(), "demo-server"))
    async with MqttServerLink(open_broker(url, MqttConfig(), "url"), _TOPICS, "servers") as link:
        limits = BatchLimits(4096, 0.002, 4)
        print("ready", flush=True)
        await Service(link, classifier, limits, ServerMetrics(CollectorRegistry())).run()


def noise() -> list[bytes]:
    """A payload's worth of evidence for each seq that is used; made before the clock runs."""
    rng, point, canvas = np.random.default_rng(0), OperatingPoint("raw-zstd", 196, 112, 0), Canvas(_SIDE, _PATCH)
    units = np.arange(_UNITS)
    picture = rng.integers(0, 256, (_SIDE * _PATCH, _SIDE * _PATCH, 3), np.uint8)
    payload = RawZstd().encode(picture, units, point, canvas)
    return [
        encode_evidence(EvidenceMessage(seq, _SIDE, _PATCH, RawZstd.number, units, payload)) for seq in range(100_000)
    ]


class Camera:
    """Sends at random moments, and notes how long each reply took."""

    def __init__(self, url: str, number: int, classes: str, rate: float, round_trips: list[float]) -> None:
        hello = Hello(_SIDE, _PATCH, classes, _LOST_S)
        broker = open_broker(url, MqttConfig(), "url")
        self.link = MqttEdgeLink(broker, _TOPICS, f"node{number}", ["camera"], hello, in_flight=8)
        self.sent = self.refused = 0
        self._rate = rate
        self._round_trips = round_trips
        self._began_s: dict[int, float] = {}

    @property
    def unanswered(self) -> int:
        return len(self._began_s)

    async def send(self, messages: list[bytes], until_s: float) -> None:
        await asyncio.sleep(random.random() / self._rate)
        while time.monotonic() < until_s:
            seq = self.sent
            self._began_s[seq] = time.monotonic()
            if await self.link.send("camera", messages[seq]) is None:
                self.sent += 1
            else:
                self.refused += 1
                del self._began_s[seq]
            await asyncio.sleep(random.uniform(0.5, 1.5) / self._rate)

    async def listen(self) -> None:
        async for _, data in self.link.replies():
            reply = decode_reply(data)
            assert reply.refusal is None, reply.refusal
            began_s = self._began_s.pop(reply.seq, None)
            if began_s is not None:
                self._round_trips.append(time.monotonic() - began_s)


async def be_cameras(url: str, count: int, rate: float, seconds: float, server: psutil.Process) -> None:
    round_trips: list[float] = []
    messages = noise()
    classes = fingerprint(zoo.load(ModelConfig(), "demo-server").labels)
    cameras = [Camera(url, number, classes, rate, round_trips) for number in range(count)]
    gate, over = asyncio.Semaphore(_CONNECTING), asyncio.Event()
    connected = asyncio.Semaphore(0)

    async def live(camera: Camera) -> None:
        async with gate:
            await camera.link.__aenter__()
            await camera.link.ready()
        listening = asyncio.create_task(camera.listen())
        connected.release()
        await over.wait()
        await camera.link.__aexit__()
        await listening

    async with asyncio.TaskGroup() as group:
        for camera in cameras:
            group.create_task(live(camera))
        for _ in cameras:
            await connected.acquire()
        print(f"{count} cameras connected", flush=True)
        memory_mb = [server.memory_info().rss / 1e6]
        until_s = time.monotonic() + seconds
        async with asyncio.TaskGroup() as sending:
            for camera in cameras:
                sending.create_task(camera.send(messages, until_s))
            while time.monotonic() < until_s:
                await asyncio.sleep(min(10.0, seconds / 4))
                memory_mb.append(server.memory_info().rss / 1e6)
        last_s = time.monotonic() + _LOST_S
        while any(camera.unanswered for camera in cameras) and time.monotonic() < last_s:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        over.set()
    times_ms = np.array(round_trips) * 1e3
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99])
    sent, lost = sum(each.sent for each in cameras), sum(each.unanswered for each in cameras)
    print(f"sent {sent} ({sent / seconds:.0f}/s), lost {lost}, refused {sum(each.refused for each in cameras)}")
    print(f"round trip ms: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, max {times_ms.max():.1f}")
    print("server memory MB: " + " ".join(f"{each:.1f}" for each in memory_mb))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1.0, help="messages/s of a camera")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        asyncio.run(be_server(arguments.server))
        return
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        sys.exit("bench.load: no mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"mqtt://127.0.0.1:{port}"
    broker = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = None
    try:
        time.sleep(1)
        command = [sys.executable, "-m", "bench.load", "--server", url]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        process = psutil.Process(server.pid)
        asyncio.run(be_cameras(url, arguments.cameras, arguments.rate, arguments.seconds, process))
    finally:
        for each in (server, broker):
            if each is not None:
                each.kill()
                each.wait()


if __name__ == "__main__":
    main()
