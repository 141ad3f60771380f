"""The contract of every link, tested on each transport. A new transport adds an entry to LINK_PAIRS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import pytest

from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import MqttConfig, WebRtcConfig
from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import CameraInfo, EdgeLink, Message, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.nats_cluster import open_cluster
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.webrtc.address import open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink
from tests.brokers import Mosquitto
from tests.nats import NatsServers


@dataclass
class LinkPair:
    """Both ends of one link, connected."""

    edge: EdgeLink
    server: ServerLink
    cut: Callable[[], None] = lambda: None  # as if a cable were cut and repaired; does nothing where there is no cable


@contextlib.asynccontextmanager
async def in_process() -> AsyncIterator[LinkPair]:
    async with InProcessLink() as link:
        yield LinkPair(link, link)


CAMERA_INFO = CameraInfo(side=14, patch_size=16, classes="0123", deadline_s=5.0)


@contextlib.asynccontextmanager
async def mqtt(protocol: str) -> AsyncIterator[LinkPair]:
    with (
        Mosquitto() as mosquitto,
        mock.patch("sagelink.transport.mqtt.server_claim._LISTEN_S", 0.0),  # there is no other server
        mock.patch("sagelink.transport.mqtt.group_membership._CLAIM_STEP_S", 0.05),
    ):
        broker = open_broker(mosquitto.url, MqttConfig(protocol=protocol), "url")
        server = MqttServerLink(broker, Topics("test"), "servers" if protocol == "5" else "")
        edge = MqttEdgeLink(
            broker, Topics("test"), "node", ["door", "yard"], CAMERA_INFO, in_flight=2, must_connect=True
        )
        async with server, edge:
            yield LinkPair(edge, server, cut=lambda: edge._session.client.tcp_socket.shutdown(socket.SHUT_RDWR))


@contextlib.asynccontextmanager
async def nats() -> AsyncIterator[LinkPair]:
    """The server is a client of NATS, the edge one of its MQTT gateway."""
    async with NatsServers() as cluster:
        broker = open_broker(cluster.nodes[0].mqtt_url, MqttConfig(protocol="3.1.1", evidence_qos=0), "url")
        server = MqttServerLink(open_cluster(cluster.url, MqttConfig(), "url"), Topics("test"), "servers")
        edge = MqttEdgeLink(
            broker, Topics("test"), "node", ["door", "yard"], CAMERA_INFO, in_flight=2, must_connect=True
        )
        with mock.patch("sagelink.transport.mqtt.server._ANSWERED_S", 0.0):  # the edge is not there before the server
            async with server, edge:
                yield LinkPair(edge, server, cut=lambda: server._client._client._transport._io_writer.transport.abort())


@contextlib.asynccontextmanager
async def webrtc(wire_ledger: WireLedger | None) -> AsyncIterator[LinkPair]:
    endpoint = open_signalling_endpoint("webrtc+http://127.0.0.1:0", WebRtcConfig(), "url")
    async with WebRtcServerLink(endpoint) as server:
        address = dataclasses.replace(endpoint, port=server.port)
        async with WebRtcEdgeLink(address, "node", ["door", "yard"], CAMERA_INFO, wire_ledger=wire_ledger) as edge:
            await edge.ready()

            def cut() -> None:
                for peer in (edge._peer, *(session._peer for session in server._sessions.values())):
                    peer._connection.sctp._handle_data = ignore

            yield LinkPair(edge, server, cut)


async def ignore(_: bytes) -> None:
    """Discards a packet."""


LINK_PAIRS = {
    "in-process": in_process,
    "mqtt-5": partial(mqtt, "5"),
    "mqtt-3.1.1": partial(mqtt, "3.1.1"),
    "nats": nats,
    "webrtc": partial(webrtc, WireLedger(UplinkBudget(None, 1.0), time.monotonic)),
    "webrtc-replay": partial(webrtc, None),
}


_SLOW = {"nats": [pytest.mark.campaign]}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts to connect."""
    monkeypatch.setattr("sagelink.transport.reconnect.Backoff", partial(Backoff, first_s=0.05))


@pytest.fixture(params=[pytest.param(name, marks=_SLOW.get(name, [])) for name in LINK_PAIRS])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[LinkPair]:
    async with LINK_PAIRS[request.param]() as pair:
        yield pair


async def send(pair: LinkPair, camera: str, data: bytes) -> None:
    await pair.edge.ready()
    assert await pair.edge.send(camera, data) is None


async def test_messages_arrive_unchanged_and_in_order(pair: LinkPair) -> None:
    messages = pair.server.messages()
    for i in range(5):
        await send(pair, "door", bytes([i]) * (i * 700))
        arrived = await anext(messages)
        assert arrived.data == bytes([i]) * (i * 700)
        assert arrived.arrived_s > 0


async def test_replies_go_to_the_camera_of_the_message(pair: LinkPair) -> None:
    messages, replies = pair.server.messages(), pair.edge.replies()
    await send(pair, "door", b"from the door")
    await send(pair, "yard", b"from the yard")
    arrived = {message.data: message for message in [await anext(messages), await anext(messages)]}
    assert len({message.sender for message in arrived.values()}) == 2
    assert await pair.server.reply(arrived[b"from the yard"], b"to the yard")
    assert await anext(replies) == ("yard", b"to the yard")
    await pair.server.reply(arrived[b"from the door"], b"to the door")
    assert await anext(replies) == ("door", b"to the door")


async def test_replies_may_be_late_duplicated_and_reordered(pair: LinkPair) -> None:
    messages, replies = pair.server.messages(), pair.edge.replies()
    for data in (b"1", b"2"):
        await send(pair, "door", data)
    first, second = await anext(messages), await anext(messages)
    for asked, answer in ((second, b"two"), (first, b"one"), (first, b"one")):
        await pair.server.reply(asked, answer)
    assert [await anext(replies) for _ in range(3)] == [("door", b"two"), ("door", b"one"), ("door", b"one")]


async def test_an_unanswered_message_delays_no_other(pair: LinkPair) -> None:
    messages, replies = pair.server.messages(), pair.edge.replies()
    for i in range(20):
        await send(pair, "door", bytes([i]))
        arrived = await anext(messages)
        if i % 2:
            await pair.server.reply(arrived, arrived.data)
            assert await anext(replies) == ("door", bytes([i]))


async def test_a_large_message_arrives_whole(pair: LinkPair) -> None:
    data = bytes(range(256)) * 1000
    await send(pair, "door", data)
    assert (await anext(pair.server.messages())).data == data


async def test_a_message_that_is_too_large_is_refused_and_the_next_is_not(pair: LinkPair) -> None:
    assert str(MAX_MESSAGE_BYTES) in await pair.edge.send("door", bytes(MAX_MESSAGE_BYTES + 1))
    await send(pair, "door", b"small")
    assert (await anext(pair.server.messages())).data == b"small"


async def test_a_link_reconnects_and_delivers_nothing_twice(pair: LinkPair, caplog: pytest.LogCaptureFixture) -> None:
    await send(pair, "door", b"before")
    assert (await anext(pair.server.messages())).data == b"before"
    pair.cut()
    arrived = None
    for number in range(1, 250):  # messages accepted before the cut is noticed may be lost
        await send(pair, "door", bytes([number]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                arrived = await anext(pair.server.messages())
                break
    assert arrived is not None
    assert arrived.data != b"before"
    await pair.server.reply(arrived, b"after")
    assert await anext(pair.edge.replies()) == ("door", b"after")
    assert "Traceback" not in caplog.text


def bits_grow(link: EdgeLink) -> bool:
    bits = [link.wire_bits("door", size) for size in range(0, 5000, 7)]
    return bits == sorted(bits)


async def test_the_wire_bits_never_decrease_with_the_size_and_cover_the_message(pair: LinkPair) -> None:
    assert bits_grow(pair.edge)
    assert pair.edge.wire_bits("door", 1000) >= 8000


async def test_waiting_for_a_reply_can_be_cancelled(pair: LinkPair) -> None:
    replies = pair.edge.replies()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(replies)
    await send(pair, "door", b"1")
    arrived = await anext(pair.server.messages())
    await pair.server.reply(arrived, b"one")
    assert await anext(pair.edge.replies()) == ("door", b"one")


@pytest.mark.parametrize("name", LINK_PAIRS)
async def test_a_closed_link_ends_its_iterators_and_refuses_messages(name: str) -> None:
    async with LINK_PAIRS[name]() as pair:
        assert pair.edge.refusal() is None
        waiting = asyncio.create_task(anext(pair.edge.replies(), None))
        listening = asyncio.create_task(anext(pair.server.messages(), None))
        await asyncio.sleep(0)
    assert await waiting is None
    assert await listening is None
    assert pair.edge.refusal() is not None
    assert await pair.edge.send("door", b"late") is not None
    await pair.edge.ready()
    assert not await pair.server.reply(Message("door", b"", 0.0), b"lost")
