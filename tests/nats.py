"""A real cluster of NATS nodes. A test can kill, restart or separate them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bench.nats_nodes import NATS_SERVER, NatsNode
from tests.conftest import skip_or_fail


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


def need_nats() -> None:
    if NATS_SERVER is None or importlib.util.find_spec("nats") is None:
        skip_or_fail("nats", "no nats-server, or no nats-py")


@contextlib.contextmanager
def nats_node(folder: Path) -> Iterator[NatsNode]:
    """One node without a cluster."""
    need_nats()
    node = NatsNode(0, folder)
    try:
        node.start(())
        node.wait_ready()
        yield node
    finally:
        node.kill()


class NatsServers:
    """A cluster of `count` nodes whose routes pass proxies, and of `gateways` that store nothing; one node has no
    cluster."""

    def __init__(self, count: int = 1, gateways: int = 0) -> None:
        need_nats()
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.nodes = [NatsNode(index, Path(self._folder.name), count) for index in range(count + gateways)]
        self.gateways = self.nodes[count:]
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

    def leader(self) -> NatsNode:
        """The node that leads the stream of MQTT sessions; its death stops the stream until another one is elected."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.nodes[0].monitor}/jsz?streams=true", timeout=20) as answer:
            accounts = json.load(answer)["account_details"]
        streams = [stream for account in accounts for stream in account["stream_detail"]]
        (name,) = [stream["cluster"]["leader"] for stream in streams if stream["name"] == "$MQTT_sess"]
        return next(node for node in self.nodes if node.name == name)

    def separate(self, node: NatsNode) -> None:
        """Cuts all routes of a node."""
        for ends, route in self.routes.items():
            if node.index in ends:
                route.cut()

    def heal(self) -> None:
        for route in self.routes.values():
            route.heal()
