"""A real cluster of nats-server, each node with JetStream and an MQTT gateway. A test can kill, restart or separate
its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Self

from tests.brokers import free_port
from tests.conftest import skip_or_fail

_PROGRAM = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
_START_S = 60.0
_SETTINGS = """
server_name: node{index}
host: 127.0.0.1
port: {client}
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{folder}", max_memory_store: 64MB, max_file_store: 256MB }}
mqtt {{ host: 127.0.0.1, port: {mqtt}, stream_replicas: {count} }}
"""
_CLUSTER = """
ping_interval: "1s"
ping_max: 2
cluster {{ name: test, host: 127.0.0.1, port: {route}, no_advertise: true, routes: [{routes}] }}
"""


class NatsNode:
    """One node as a process."""

    def __init__(self, index: int, folder: Path, count: int = 1) -> None:
        self.index = index
        self._count = count  # of nodes: each retained or QoS 1 message is stored on all of them
        self.client, self.mqtt, self.monitor, self.route = (free_port() for _ in range(4))
        self.folder = folder / f"node{index}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mqtt_url(self) -> str:
        return f"mqtt://127.0.0.1:{self.mqtt}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, routes: Collection[int]) -> None:
        """`routes`: ports through which the other nodes are reached."""
        self.folder.mkdir(exist_ok=True)
        ports = {"client": self.client, "mqtt": self.mqtt, "monitor": self.monitor, "route": self.route}
        text = _SETTINGS.format(index=self.index, count=self._count, folder=self.folder / "js", **ports)
        if routes:
            listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            text += _CLUSTER.format(routes=listed, **ports)
        config = self.folder / "nats.conf"
        config.write_text(text)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([_PROGRAM, "-c", config], stdout=log, stderr=log)

    def is_ready(self) -> bool:
        """Its JetStream takes part in the cluster, and MQTT clients can connect."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/healthz", timeout=2).close()
            socket.create_connection(("127.0.0.1", self.mqtt), 1).close()
            return True
        assert self._process.poll() is None, (self.folder / "log").read_text()
        return False

    def wait_ready(self) -> None:
        end_s = time.monotonic() + _START_S
        while not self.is_ready():
            assert time.monotonic() < end_s, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


class Route:
    """A TCP proxy between two nodes, which a test can cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._cut = False
        self.port = 0

    async def start(self) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            carrier = asyncio.create_task(self._carry(reader, writer))
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    def heal(self) -> None:
        self._cut = False

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._carriers)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._cut:
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(there)
            try:
                await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
            finally:
                self._open.discard(there)
                there.close()
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class NatsServers:
    """A cluster of `count` nodes whose routes pass proxies; one node has no cluster."""

    def __init__(self, count: int = 1) -> None:
        if _PROGRAM is None or importlib.util.find_spec("nats") is None:
            skip_or_fail("nats", "no nats-server, or no nats-py")
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.nodes = [NatsNode(index, Path(self._folder.name), count) for index in range(count)]
        self.routes: dict[tuple[int, int], Route] = {}  # by the nodes that they join: one opens it to the other

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{node.client}" for node in self.nodes)

    async def __aenter__(self) -> Self:
        try:
            for one in self.nodes:
                for other in self.nodes[: one.index]:
                    route = self.routes[one.index, other.index] = Route(other.route)
                    await route.start()
            for node in self.nodes:
                self.start(node)
            for node in self.nodes:
                await asyncio.to_thread(node.wait_ready)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        for route in self.routes.values():
            await route.close()
        self._folder.cleanup()

    def start(self, node: NatsNode) -> None:
        ports = [route.port for (one, _), route in self.routes.items() if one == node.index]
        own = [node.route] if len(self.nodes) > 1 and not ports else []  # the first node waits for the others
        node.start(ports or own)

    def separate(self, node: NatsNode) -> None:
        """Cuts all routes of a node."""
        for ends, route in self.routes.items():
            if node.index in ends:
                route.cut()

    def heal(self) -> None:
        for route in self.routes.values():
            route.heal()
