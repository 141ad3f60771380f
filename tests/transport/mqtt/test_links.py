"""The MQTT links where they differ from other links: sessions, announcements, unacknowledged messages, overhead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable

import aiomqtt
import pytest

from sagelink.pipeline.config import MqttConfig
from sagelink.pipeline.errors import SagelinkError
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics, encode_state
from tests.brokers import Mosquitto, free_port

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
TOPICS = Topics("test")


@pytest.fixture
def mosquitto() -> AsyncIterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def broker_of(mosquitto: Mosquitto, **settings: object) -> Broker:
    return open_broker(mosquitto.url, MqttConfig(**settings), "url")


def edge_link(broker: Broker, **options: object) -> MqttEdgeLink:
    return MqttEdgeLink(broker, TOPICS, "node", ["door"], CAMERA_INFO, **options)


def server_link(broker: Broker) -> MqttServerLink:
    return MqttServerLink(broker, TOPICS, "servers")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_cameras_are_listed_while_they_are_connected(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server:
        async with edge_link(broker) as edge:
            await edge.ready()
            await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        await until(lambda: server.cameras == {})


async def test_the_last_will_removes_the_cameras_of_a_dead_node(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server, edge_link(broker) as edge:
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        edge._client.tcp_socket.shutdown(2)  # as if the cable were cut
        await until(lambda: server.cameras == {})
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})


async def test_a_late_will_of_an_earlier_run_changes_nothing(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server, edge_link(broker), aiomqtt.Client(broker.host, broker.port) as client:
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        await client.publish("test/node/state", encode_state(b"??", online=False), qos=1)
        for address, camera_info in (("other", None), ("other/yard", CAMERA_INFO)):
            await client.publish(f"test/{address}/state", encode_state(b"ab", True, camera_info), qos=1)
        await until(lambda: "other/yard" in server.cameras)  # so the state before has arrived, too
        assert server.cameras["node/door"] == CAMERA_INFO


async def test_retained_states_of_a_dead_run_are_no_cameras(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with edge_link(broker, must_connect=True) as first:
        first._cameras.append("yard")
        first._client.tcp_socket.shutdown(2)
        await until(lambda: first.refusal() is not None)
        await first.ready()  # has announced the yard as well
        first._cameras.clear()  # as if it were killed: it publishes no offline states
    async with edge_link(broker, must_connect=True), server_link(broker) as server:
        await until(lambda: len(server._registry._announced.get("node", ())) == 2)
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})


async def test_states_are_published_for_each_camera_and_then_the_node(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with aiomqtt.Client(broker.host, broker.port) as listener:
        await listener.subscribe("test/#")
        async with edge_link(broker, must_connect=True):
            topics = [(await anext(listener.messages)).topic.value for _ in range(2)]
            assert topics == ["test/node/door/state", "test/node/state"]
        for topic in topics:
            message = await anext(listener.messages)
            assert (message.topic.value, json.loads(message.payload)["online"]) == (topic, False)


async def test_a_reply_to_an_earlier_run_of_the_same_name_is_ignored(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server:
        messages = server.messages()
        async with edge_link(broker, must_connect=True) as first:
            assert await first.send("door", b"first run") is None
            asked = await anext(messages)
        async with edge_link(broker, must_connect=True) as second:
            await server.reply(asked, b"too late")
            assert await second.send("door", b"second run") is None
            await server.reply(await anext(messages), b"in time")
            assert await anext(second.replies()) == ("door", b"in time")


async def test_malformed_messages_are_ignored(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with (
        server_link(broker) as server,
        edge_link(broker, must_connect=True) as edge,
        aiomqtt.Client(broker.host, broker.port) as stranger,
    ):
        for payload in (b"", b"x", b"garbage" * 10_000, b"\xff\xfe", None):
            for topic in (
                "node/door/verdict",
                "node/state",
                "node/door/state",
                "node/door/evidence",
                "other/state",
                "node/budget/set",
            ):
                await stranger.publish(f"test/{topic}", payload, qos=1)
        assert await edge.send("door", b"evidence") is None
        async for message in server.messages():
            if message.data == b"evidence":
                await server.reply(message, b"verdict")
                break
        assert await anext(edge.replies()) == ("door", b"verdict")


async def test_the_number_of_unacknowledged_messages_is_limited(mosquitto: Mosquitto) -> None:
    async with edge_link(broker_of(mosquitto), must_connect=True) as edge:
        mosquitto.freeze()
        try:
            assert [await edge.send("door", b"x") for _ in range(2)] == [None, None]
            assert await edge.send("door", b"x") == "the broker has not acknowledged 2 messages"
            waiting = asyncio.create_task(edge.ready())
            await asyncio.sleep(0.05)
            assert not waiting.done()
        finally:
            mosquitto.thaw()
        await waiting
        await until(lambda: edge.refusal() is None)


async def test_nothing_is_resent_after_a_reconnect(mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server, edge_link(broker, must_connect=True) as edge:
        mosquitto.freeze()
        assert await edge.send("door", b"lost with the broker") is None
        mosquitto.kill()
        await until(lambda: edge.refusal() is not None and edge.refusal().startswith(mosquitto.url))
        assert "the connection broke off" in caplog.text
        mosquitto.start()
        await until(lambda: edge.refusal() is None and server.trouble is None)
        assert await edge.send("door", b"after") is None
        assert (await anext(server.messages())).data == b"after"


async def test_connecting_and_keep_alives_are_charged(mosquitto: Mosquitto) -> None:
    charged: list[int] = []

    def charge_overhead(bits: int) -> bool:
        charged.append(bits)
        return True

    async with edge_link(broker_of(mosquitto, keepalive="1s"), charge_overhead=charge_overhead, must_connect=True):
        assert len(charged) == 1
        await until(lambda: len(charged) > 1)  # keep-alives, once the surplus of the estimate is used up
    assert all(0 < bits < 50_000 for bits in charged)


async def test_a_budget_without_room_delays_the_connection(mosquitto: Mosquitto) -> None:
    room = asyncio.Event()
    async with edge_link(broker_of(mosquitto), charge_overhead=lambda bits: room.is_set()) as edge:
        await asyncio.sleep(0.1)
        assert "still to be charged" in edge.refusal() or "not connected yet" in edge.refusal()
        room.set()
        await edge.ready()
        assert edge.refusal() is None


async def test_a_budget_message_is_passed_on(mosquitto: Mosquitto) -> None:
    asked: list[bytes] = []
    broker = broker_of(mosquitto)
    async with (
        edge_link(broker, on_budget=asked.append, must_connect=True),
        aiomqtt.Client(broker.host, broker.port) as operator,
    ):
        await operator.publish("test/node/budget/set", b"64kbit/s", qos=1)
        await until(lambda: asked == [b"64kbit/s"])


@pytest.mark.parametrize("link", [edge_link, server_link])
async def test_an_unreachable_broker_is_reported(link: Callable[..., MqttEdgeLink]) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    options = {"must_connect": True} if link is edge_link else {}
    with pytest.raises(SagelinkError, match=f"{url}: Connection refused"):
        async with link(open_broker(url, MqttConfig(), "url"), **options):
            pass


async def test_a_live_edge_waits_for_its_broker(caplog: pytest.LogCaptureFixture) -> None:
    mosquitto = Mosquitto()
    caplog.set_level(logging.WARNING)
    with contextlib.ExitStack() as stack:
        async with edge_link(broker_of(mosquitto)) as edge:
            await until(lambda: "Connection refused" in edge.refusal())
            assert await edge.send("door", b"x") == edge.refusal()
            await asyncio.sleep(1.5)
            stack.enter_context(mosquitto)
            await edge.ready()
            assert await edge.send("door", b"x") is None
    assert caplog.text.count("event=disconnected") == 1
