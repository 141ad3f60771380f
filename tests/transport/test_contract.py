"""What every link keeps, whatever carries it. A transport joins by adding a rig to RIGS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import pytest

from sagelink.pipeline.config import MqttConfig, WebRtcConfig
from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import CameraInfo, EdgeLink, Message, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.connection import socket_of
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.webrtc.address import open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink
from sagelink.transport.wire import MAX_MESSAGE_BYTES
from sagelink.transport.wire_cost import ChargeOverhead
from tests.brokers import Mosquitto


@dataclass
class Rig:
    """Both ends of one link, connected."""

    edge: EdgeLink
    server: ServerLink
    cut: Callable[[], None] = lambda: None  # as a cable that is cut and mended; where there is none, nothing


@contextlib.asynccontextmanager
async def in_process() -> AsyncIterator[Rig]:
    async with InProcessLink() as link:
        yield Rig(link, link)


CAMERA_INFO = CameraInfo(side=14, patch_size=16, classes="0123", deadline_s=5.0)


@contextlib.asynccontextmanager
async def mqtt(protocol: str) -> AsyncIterator[Rig]:
    with Mosquitto() as mosquitto:
        broker = open_broker(mosquitto.url, MqttConfig(protocol=protocol), "url")
        server = MqttServerLink(broker, Topics("test"), "servers" if protocol == "5" else "")
        edge = MqttEdgeLink(
            broker, Topics("test"), "node", ["door", "yard"], CAMERA_INFO, in_flight=2, must_connect=True
        )
        async with server, edge:
            yield Rig(edge, server, cut=lambda: socket_of(edge._client).shutdown(socket.SHUT_RDWR))


@contextlib.asynccontextmanager
async def webrtc(charge_overhead: ChargeOverhead | None) -> AsyncIterator[Rig]:
    at = open_signalling_endpoint("webrtc+http://127.0.0.1:0", WebRtcConfig(), "url")
    async with WebRtcServerLink(at) as server:
        found = dataclasses.replace(at, port=server.port)
        async with WebRtcEdgeLink(
            found, "node", ["door", "yard"], CAMERA_INFO, charge_overhead=charge_overhead
        ) as edge:
            await edge.ready()

            def cut() -> None:
                for peer in (edge._peer, *(guest._peer for guest in server._guests.values())):
                    peer._connection.sctp._handle_data = deaf

            yield Rig(edge, server, cut)


async def deaf(_: bytes) -> None:
    """Takes a packet and does nothing."""


RIGS = {
    "in-process": in_process,
    "mqtt-5": partial(mqtt, "5"),
    "mqtt-3.1.1": partial(mqtt, "3.1.1"),
    "webrtc": partial(webrtc, lambda _: True),
    "webrtc-replay": partial(webrtc, None),
}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with RIGS[request.param]() as made:
        yield made


async def send(rig: Rig, camera: str, data: bytes) -> None:
    await rig.edge.ready()
    assert await rig.edge.send(camera, data) is None


async def test_messages_arrive_in_order_as_they_were_sent(rig: Rig) -> None:
    messages = rig.server.messages()
    for i in range(5):
        await send(rig, "door", bytes([i]) * (i * 700))
        arrived = await anext(messages)
        assert arrived.data == bytes([i]) * (i * 700)
        assert arrived.arrived_s > 0


async def test_replies_go_to_the_camera_that_asked(rig: Rig) -> None:
    messages, replies = rig.server.messages(), rig.edge.replies()
    await send(rig, "door", b"from the door")
    await send(rig, "yard", b"from the yard")
    arrived = {message.data: message for message in [await anext(messages), await anext(messages)]}
    assert len({message.sender for message in arrived.values()}) == 2
    assert await rig.server.reply(arrived[b"from the yard"], b"to the yard")
    assert await anext(replies) == ("yard", b"to the yard")
    await rig.server.reply(arrived[b"from the door"], b"to the door")
    assert await anext(replies) == ("door", b"to the door")


async def test_replies_may_come_late_twice_and_in_any_order(rig: Rig) -> None:
    messages, replies = rig.server.messages(), rig.edge.replies()
    for data in (b"1", b"2"):
        await send(rig, "door", data)
    first, second = await anext(messages), await anext(messages)
    for asked, answer in ((second, b"two"), (first, b"one"), (first, b"one")):
        await rig.server.reply(asked, answer)
    assert [await anext(replies) for _ in range(3)] == [("door", b"two"), ("door", b"one"), ("door", b"one")]


async def test_what_is_never_answered_holds_up_nothing_else(rig: Rig) -> None:
    messages, replies = rig.server.messages(), rig.edge.replies()
    for i in range(20):
        await send(rig, "door", bytes([i]))
        arrived = await anext(messages)
        if i % 2:
            await rig.server.reply(arrived, arrived.data)
            assert await anext(replies) == ("door", bytes([i]))


async def test_a_large_message_arrives_whole(rig: Rig) -> None:
    data = bytes(range(256)) * 1000
    await send(rig, "door", data)
    assert (await anext(rig.server.messages())).data == data


async def test_what_is_too_large_is_refused_and_the_next_is_not(rig: Rig) -> None:
    assert str(MAX_MESSAGE_BYTES) in await rig.edge.send("door", bytes(MAX_MESSAGE_BYTES + 1))
    await send(rig, "door", b"small")
    assert (await anext(rig.server.messages())).data == b"small"


async def test_a_link_mends_itself_and_brings_nothing_twice(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await send(rig, "door", b"before")
    assert (await anext(rig.server.messages())).data == b"before"
    rig.cut()
    arrived = None
    for number in range(1, 100):  # what was accepted while nobody knew of the cut may be lost
        await send(rig, "door", bytes([number]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                arrived = await anext(rig.server.messages())
                break
    assert arrived is not None
    assert arrived.data != b"before"
    await rig.server.reply(arrived, b"after")
    assert await anext(rig.edge.replies()) == ("door", b"after")
    assert "Traceback" not in caplog.text


def bits_grow(link: EdgeLink) -> bool:
    bits = [link.wire_bits("door", size) for size in range(0, 5000, 7)]
    return bits == sorted(bits)


async def test_the_bill_never_falls_as_messages_grow_and_covers_the_message(rig: Rig) -> None:
    assert bits_grow(rig.edge)
    assert rig.edge.wire_bits("door", 1000) >= 8000


async def test_waiting_for_a_reply_can_be_cancelled(rig: Rig) -> None:
    replies = rig.edge.replies()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(replies)
    await send(rig, "door", b"1")
    arrived = await anext(rig.server.messages())
    await rig.server.reply(arrived, b"one")
    assert await anext(rig.edge.replies()) == ("door", b"one")


@pytest.mark.parametrize("name", RIGS)
async def test_a_closed_link_ends_its_iterators_and_takes_nothing(name: str) -> None:
    async with RIGS[name]() as rig:
        assert rig.edge.refusal() is None
        waiting = asyncio.create_task(anext(rig.edge.replies(), None))
        listening = asyncio.create_task(anext(rig.server.messages(), None))
        await asyncio.sleep(0)
    assert await waiting is None
    assert await listening is None
    assert rig.edge.refusal() is not None
    assert await rig.edge.send("door", b"late") is not None
    await rig.edge.ready()
    assert not await rig.server.reply(Message("door", b"", 0.0), b"lost without a word")
