"""Measures one MQTT server with many cameras: loss, round trip, processor time per process, memory of the server.

    python -m bench.load [--cameras 1000] [--seconds 60] [--rate 1] [--qos 1] [--nats 3]

The broker is mosquitto, or as many nodes of NATS as `--nats` says, with MQTT for the cameras and a queue group for the
server.

One process simulates all cameras. Each has its own connection and sends 2 kB of noise at random times. The cameras are
paho clients on one event loop, which need less of the machine than 1,000 edges. The server runs in a separate process
with the real link, decoding, batching and replies. Its model answers without computing, because the transport is
measured. A frame without a reply within 10 s is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import psutil
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.nats_nodes import NatsNode
from bench.ports import free_port
from bench.stub_server import Noise, answer, camera_info
from sagelink.pipeline.config.link import MqttConfig, ServeConfig
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.nats_cluster import is_nats, open_cluster
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics, encode_state
from sagelink.transport.reply_message import decode_reply

_TOPICS = Topics("load")
_SIZE = 2000
_LOST_S = 10.0
_KEEPALIVE_S = 60


async def run_server(url: str) -> None:
    broker = open_cluster(url, MqttConfig(), "url") if is_nats(url) else open_broker(url, MqttConfig(), "url")
    async with MqttServerLink(broker, _TOPICS, "servers") as link:
        print("ready", flush=True)
        await answer(link, ServeConfig().max_wait)


class SimulatedCamera:
    """Sends messages at random times and records the round trip of each reply."""

    def __init__(self, brokers: Brokers, number: int, announced: CameraInfo, round_trips_s: list[float]) -> None:
        self.sent = 0
        self.refused = 0  # by a server that is too busy
        self.subscribed = asyncio.Event()
        self._node = f"node{number}"
        self._session = number.to_bytes(PREFIX_BYTES, "big")
        self._round_trips_s = round_trips_s
        self._began_s: dict[int, float] = {}
        self._expiry: Properties | None = None
        if brokers.v5:
            self._expiry = Properties(PacketTypes.PUBLISH)
            self._expiry.MessageExpiryInterval = round(announced.deadline_s)
        protocol = paho.MQTTv5 if brokers.v5 else paho.MQTTv311
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_connect = self._announce
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._receive
        self._hello = announced
        self._client.connect("127.0.0.1", brokers.ports[number % len(brokers.ports)], keepalive=_KEEPALIVE_S)
        self._client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asyncio.get_running_loop().add_reader(self._client.socket(), self._client.loop_read)

    @property
    def unanswered(self) -> int:
        return len(self._began_s)

    async def send(self, noise: Noise, rate: float, qos: int, until_s: float) -> None:
        await asyncio.sleep(random.random() / rate)
        topic = _TOPICS.evidence(f"{self._node}/camera")
        while time.monotonic() < until_s:
            self._began_s[self.sent] = time.monotonic()
            self._client.publish(topic, self._session + noise.message(self.sent), qos=qos, properties=self._expiry)
            self.sent += 1
            self.poll()
            await asyncio.sleep(random.uniform(0.5, 1.5) / rate)

    def poll(self) -> None:
        """Writes pending data and keeps the connection alive."""
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def _announce(self, *_: object) -> None:
        for client, announced in ((f"{self._node}/camera", self._hello), (self._node, None)):
            state = encode_state(self._session, True, announced)
            self._client.publish(_TOPICS.state(client), state, qos=1, retain=True)
        self._client.subscribe(_TOPICS.verdict(f"{self._node}/+"))

    def _receive(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        reply = decode_reply(message.payload[PREFIX_BYTES:])
        began_s = self._began_s.pop(reply.seq, None)
        if reply.refusal is not None:
            self.refused += 1
        elif began_s is not None:
            self._round_trips_s.append(time.monotonic() - began_s)


@dataclass(frozen=True, slots=True)
class Brokers:
    """The broker of a measurement, or the nodes of a cluster."""

    ports: list[int]  # for cameras, which are spread over them
    url: str  # for the server
    v5: bool  # MQTT 5
    processes: list[int]


@contextlib.contextmanager
def mosquitto() -> Iterator[Brokers]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        sys.exit("bench.load: no mosquitto")
    port = free_port()
    broker = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield Brokers([port], f"mqtt://127.0.0.1:{port}", True, [broker.pid])
    finally:
        broker.kill()
        broker.wait()


@contextlib.contextmanager
def nats(count: int) -> Iterator[Brokers]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.ExitStack() as stack:
        nodes = [NatsNode(index, Path(folder), count) for index in range(count)]
        for node in nodes:
            stack.callback(node.kill)
            node.start([other.route for other in nodes] if count > 1 else [])
        for node in nodes:
            node.wait_ready()
        url = "nats://" + ",".join(f"127.0.0.1:{node.client}" for node in nodes)
        yield Brokers([node.mqtt for node in nodes], url, False, [node.pid for node in nodes])


async def run_cameras(
    brokers: Brokers, count: int, rate: float, qos: int, seconds: float, others: dict[str, psutil.Process]
) -> None:
    round_trips_s: list[float] = []
    announced, noise = camera_info(_LOST_S), Noise(_SIZE)
    cameras = []
    for number in range(count):
        cameras.append(camera := SimulatedCamera(brokers, number, announced, round_trips_s))
        async with asyncio.timeout(10):
            while not camera.subscribed.is_set():
                await asyncio.sleep(0)
                camera.poll()
    print(f"{count} cameras connected", flush=True)
    await asyncio.sleep(2)
    processes = others | {"cameras": psutil.Process()}
    spent_s = {name: -sum(process.cpu_times()[:2]) for name, process in processes.items()}
    server = processes["server"]
    memory_mb = [server.memory_info().rss / 1e6]
    until_s = time.monotonic() + seconds
    async with asyncio.TaskGroup() as sending:
        for camera in cameras:
            sending.create_task(camera.send(noise, rate, qos, until_s))
        while time.monotonic() < until_s:
            await asyncio.sleep(min(seconds / 4, 60))
            memory_mb.append(server.memory_info().rss / 1e6)
    last_s = time.monotonic() + _LOST_S
    while any(camera.unanswered for camera in cameras) and time.monotonic() < last_s:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    for name, process in processes.items():
        spent_s[name] += sum(process.cpu_times()[:2])
    times_ms = np.array(round_trips_s) * 1e3
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99])
    sent, lost = sum(camera.sent for camera in cameras), sum(camera.unanswered for camera in cameras)
    refused = sum(camera.refused for camera in cameras)
    print(f"sent {sent} ({sent / seconds:.0f}/s), refused {refused}, lost {lost}")
    print(f"round trip ms: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, max {times_ms.max():.1f}")
    print("processor us a message: " + ", ".join(f"{name} {1e6 * spent_s[name] / sent:.0f}" for name in spent_s))
    print("server memory MB: " + " ".join(f"{size:.1f}" for size in memory_mb))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1.0, help="messages/s per camera")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1, help="of the messages of the cameras")
    parser.add_argument("--nats", type=int, default=0, metavar="NODES", help="nodes of NATS in place of mosquitto")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        asyncio.run(run_server(arguments.server))
        return
    with nats(arguments.nats) if arguments.nats else mosquitto() as brokers:
        command = [sys.executable, "-m", "bench.load", "--server", brokers.url]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            if server.stdout is None or server.stdout.readline() != "ready\n":
                sys.exit("bench.load: the server has not started")
            others = {"server": psutil.Process(server.pid)}
            others |= {f"broker{number}": psutil.Process(pid) for number, pid in enumerate(brokers.processes)}
            asyncio.run(
                run_cameras(brokers, arguments.cameras, arguments.rate, arguments.qos, arguments.seconds, others)
            )
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
