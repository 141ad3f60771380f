"""The MQTT links where they differ from other links: sessions, announcements, unacknowledged messages, overhead."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import aiomqtt
import numpy as np
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from bench.ports import free_port
from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import SagelinkError
from sagelink.transport.envelope import claimed_seq
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo, Undelivered
from sagelink.transport.message_auth import EXTRA_BYTES, MessageAuth
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics, encode_state
from sagelink.transport.reply_message import encode_reply
from tests.brokers import Mosquitto
from tests.certificates import self_signed
from tests.fakes import make_reply
from tests.patience import PATIENCE_S

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
TOPICS = Topics("test")


@pytest.fixture
def mosquitto() -> AsyncIterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts to connect."""
    monkeypatch.setattr("sagelink.transport.reconnect.Backoff", partial(Backoff, first_s=0.05))


def broker_of(mosquitto: Mosquitto, **settings: object) -> Broker:
    return open_broker(mosquitto.url, MqttConfig(**settings), "url")


def edge_link(broker: Broker, **options: object) -> MqttEdgeLink:
    return MqttEdgeLink(broker, TOPICS, "node", ["door"], CAMERA_INFO, **options)


def server_link(broker: Broker) -> MqttServerLink:
    return MqttServerLink(broker, TOPICS, "servers")


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_messages_are_refused_while_a_failed_session_ends(mosquitto: Mosquitto, monkeypatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise aiomqtt.MqttError("lost")

    async with edge_link(broker_of(mosquitto), in_flight=64) as edge:
        await edge.ready()
        monkeypatch.setattr(BrokerClient, "publish_confirmed", fail)
        answers = []
        for _ in range(10):
            answers.append(await edge.send("door", b"x"))
            await asyncio.sleep(0)
    assert answers[0] is None
    assert answers[-1] == "not connected"


async def test_evidence_with_qos_0_is_in_flight_until_a_server_answers(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto, evidence_qos=0)
    evidence = encode_evidence(EvidenceMessage(7, 14, 8, 0, np.arange(4), b"x"))
    patient = dataclasses.replace(CAMERA_INFO, deadline_s=2 * PATIENCE_S)
    edge = MqttEdgeLink(broker, TOPICS, "node", ["door"], patient, in_flight=1)
    async with server_link(broker) as server, edge:
        await until(lambda: bool(server.cameras))
        await edge.ready()
        assert await edge.send("door", evidence) is None
        assert await edge.send("door", evidence) == "no server has answered 1 messages"
        message = await anext(server.messages())
        await server.reply(message, encode_reply(make_reply(7)))
        await until(lambda: edge.refusal() is None)


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
        await edge.ready()
        edge._session.client.tcp_socket.shutdown(2)  # as if the cable were cut
        await until(lambda: server.cameras == {})
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})


async def test_a_late_will_of_an_earlier_run_changes_nothing(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server, edge_link(broker), aiomqtt.Client(*broker.addresses[0]) as client:
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
        first._session.client.tcp_socket.shutdown(2)
        await until(lambda: first.refusal() is not None)
        await first.ready()  # has announced the yard as well
        first._cameras.clear()  # as if it were killed: it publishes no offline states
    async with edge_link(broker, must_connect=True), server_link(broker) as server:
        await until(lambda: len(server._registry._nodes["node"].cameras) == 2)
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})


async def test_states_are_published_for_each_camera_and_then_the_node(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with aiomqtt.Client(*broker.addresses[0]) as listener:
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
        aiomqtt.Client(*broker.addresses[0]) as stranger,
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
    budget = UplinkBudget(None, 1.0)
    broker = broker_of(mosquitto, keepalive="1s")
    async with edge_link(broker, wire_ledger=WireLedger(budget, time.monotonic), must_connect=True):
        connecting_bits = budget.total_bits
        assert 8 * 700 < connecting_bits < 8 * 2500
        await until(lambda: budget.total_bits > connecting_bits)  # keep-alives


async def test_a_budget_without_room_delays_the_connection(mosquitto: Mosquitto) -> None:
    budget, now_s = UplinkBudget(64_000, 1.0), 0.0
    budget.charge(0.0, 64_000)
    async with edge_link(broker_of(mosquitto), wire_ledger=WireLedger(budget, lambda: now_s)) as edge:
        await asyncio.sleep(0.1)
        assert "not connected yet" in edge.refusal()
        assert budget.total_bits == 64_000
        now_s = 2.0
        await edge.ready()
        assert edge.refusal() is None


async def test_a_connection_that_no_window_can_hold_is_refused_with_what_it_needs(mosquitto: Mosquitto) -> None:
    """The broker hears nothing of it."""
    budget = UplinkBudget(4000, 1.0)
    async with edge_link(broker_of(mosquitto), wire_ledger=WireLedger(budget, time.monotonic)) as edge:
        await until(lambda: "not connected yet" not in edge.refusal())
        assert re.search(r"a packet needs \d+ bits at once, and a window has 4000", edge.refusal())
    assert budget.total_bits == 0


async def test_a_budget_message_is_passed_on(mosquitto: Mosquitto) -> None:
    asked: list[tuple[bytes, bool]] = []
    broker = broker_of(mosquitto)
    async with (
        edge_link(broker, on_budget=lambda *message: asked.append(message), must_connect=True),
        aiomqtt.Client(*broker.addresses[0]) as operator,
    ):
        await operator.publish("test/node/budget/set", b"64kbit/s", qos=1)
        await until(lambda: asked == [(b"64kbit/s", False)])


@pytest.mark.parametrize("link", [edge_link, server_link])
async def test_an_unreachable_broker_is_reported(link: Callable[..., MqttEdgeLink]) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    options = {"must_connect": True} if link is edge_link else {}
    with pytest.raises(SagelinkError, match=f"{url}: Connection refused"):
        async with link(open_broker(url, MqttConfig(), "url"), **options):
            pass


@pytest.mark.usefixtures("short_pauses")
async def test_a_live_edge_waits_for_its_broker(caplog: pytest.LogCaptureFixture) -> None:
    mosquitto = Mosquitto()
    caplog.set_level(logging.WARNING)
    with contextlib.ExitStack() as stack:
        async with edge_link(broker_of(mosquitto)) as edge:
            await until(lambda: "Connection refused" in edge.refusal())
            assert await edge.send("door", b"x") == edge.refusal()
            await asyncio.sleep(0.3)  # several attempts
            stack.enter_context(mosquitto)
            await edge.ready()
            assert await edge.send("door", b"x") is None
    assert caplog.text.count("event=disconnected") == 1


# What the broker does not let through


def evidence(seq: int, payload_bytes: int = 9) -> bytes:
    return encode_evidence(EvidenceMessage(seq, 14, 16, 1, np.arange(3), bytes(payload_bytes)))


async def test_the_brokers_packet_limit_is_the_links(caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto("allow_anonymous true", "max_packet_size 600") as mosquitto:
        broker = broker_of(mosquitto)
        async with server_link(broker) as server, edge_link(broker, must_connect=True) as edge:
            longest = edge.max_message_bytes("door")
            assert 500 < longest < 600
            assert await edge.send("door", bytes(longest)) is None
            assert len((await anext(server.messages())).data) == longest
            assert f"by this connection up to {longest}" in await edge.send("door", bytes(longest + 1))
        assert f"max_packet_bytes=600: messages have at most {longest} bytes" in caplog.text


@pytest.mark.usefixtures("short_pauses")
async def test_the_packet_limit_is_learned_over_mqtt_3(caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto("allow_anonymous true", "max_packet_size 600") as mosquitto:
        broker = broker_of(mosquitto, protocol="3.1.1")
        async with MqttServerLink(broker, TOPICS, "") as server, edge_link(broker, must_connect=True) as edge:
            arrived = asyncio.create_task(anext(server.messages()))
            while not arrived.done():
                await edge.ready()
                await edge.send("door", bytes(min(1800, edge.max_message_bytes("door"))))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        await until(lambda: arrived.done() or edge.refusal() is not None)
            assert 200 < len(arrived.result().data) < 600
    assert "event=packet_limit" in caplog.text


async def test_a_denied_message_is_reported_and_logged_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite test/+/state\ntopic readwrite test/+/+/state\ntopic read test/+/+/verdict\n")
    with Mosquitto("allow_anonymous true", f"acl_file {acl}") as mosquitto:
        async with edge_link(broker_of(mosquitto), must_connect=True) as edge:
            for seq in (7, 8):
                await edge.ready()
                assert await edge.send("door", evidence(seq)) is None
                assert await anext(edge.replies()) == ("door", Undelivered(seq))
    said = "the broker does not let this user publish to test/node/door/evidence: Not authorized (PUBACK 0x87)"
    assert caplog.text.count(said) == 1


# States


async def test_a_late_will_does_not_hide_the_new_run_from_servers_that_start_later(mosquitto: Mosquitto) -> None:
    """The broker publishes the will of a dead connection after the new run has announced itself."""
    broker = broker_of(mosquitto, keepalive="1s")
    will = aiomqtt.Will("test/node/state", encode_state(b"old", False), qos=1, retain=True)
    dead = aiomqtt.Client(*broker.addresses[0], will=will, keepalive=1)
    await dead.__aenter__()
    dead._misc_task.cancel()  # sends no keep-alives any more, as if its cable were cut
    async with (
        edge_link(broker, must_connect=True),
        aiomqtt.Client(*broker.addresses[0]) as listener,
    ):
        await listener.subscribe("test/node/state")
        online = [json.loads((await anext(listener.messages)).payload)["online"] for _ in range(3)]
        assert online == [True, False, True]
        async with server_link(broker) as server:
            await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
    with contextlib.suppress(aiomqtt.MqttError):
        await dead.__aexit__(None, None, None)


async def test_two_runs_of_one_node_are_reported_and_do_not_overwrite_each_other_for_ever(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(mosquitto)
    async with (
        server_link(broker) as server,
        edge_link(broker, must_connect=True) as first,
        edge_link(broker, must_connect=True) as second,
    ):
        await until(lambda: "set another mqtt.node there" in caplog.text)
        messages = server.messages()
        assert await first.send("door", evidence(1)) is None
        assert "two runs at a time need different mqtt.node" in (await anext(messages)).refusal
        assert await second.send("door", evidence(2)) is None
        assert (await anext(messages)).refusal is None


async def test_a_server_learns_all_of_2000_retained_cameras(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with aiomqtt.Client(*broker.addresses[0]) as client:
        for number in range(2000):
            address = f"n{number % 40}/c{number}"
            await client.publish(f"test/{address}/state", encode_state(b"ab", True, CAMERA_INFO), qos=1, retain=True)
        for number in range(40):
            await client.publish(f"test/n{number}/state", encode_state(b"ab", True), qos=1, retain=True)
    async with server_link(broker) as server:
        await until(lambda: len(server.cameras) == 2000)


async def test_a_camera_that_has_not_announced_itself_is_refused(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with server_link(broker) as server, aiomqtt.Client(*broker.addresses[0]) as stranger:
        await stranger.publish("test/node/invented/evidence", b"ab" + evidence(3, 3_900_000), qos=1)
        message = await anext(server.messages())
        assert (message.sender, message.refusal) == ("node/invented", "the camera has not announced itself")
        assert len(message.data) < 100
        assert claimed_seq(message.data) == 3


async def test_a_server_that_fits_no_camera_leaves_the_group_until_one_fits(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    other = dataclasses.replace(CAMERA_INFO, classes="other")
    async with server_link(broker) as fits, server_link(broker) as misfits:
        misfits.serve_fitting(lambda camera_info: None if camera_info == other else "other classes")
        assert misfits.trouble is None  # no camera is online
        async with edge_link(broker, must_connect=True) as edge:
            await until(lambda: misfits.trouble is not None)
            assert "the model fits none of the cameras that are online: other classes" in misfits.trouble
            messages = fits.messages()
            for seq in range(10):
                await edge.ready()
                assert await edge.send("door", evidence(seq)) is None
                assert claimed_seq((await anext(messages)).data) == seq
            async with MqttEdgeLink(broker, TOPICS, "second", ["yard"], other, must_connect=True):
                await until(lambda: misfits.trouble is None)
            await until(lambda: misfits.trouble is not None)


# Authentication


KEY = MessageAuth(b"k" * 32)


async def test_messages_and_replies_carry_a_mac(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    plain = edge_link(broker)
    async with (
        MqttServerLink(broker, TOPICS, "servers", auth=KEY) as server,
        edge_link(broker, must_connect=True, auth=KEY) as edge,
        aiomqtt.Client(*broker.addresses[0]) as listener,
    ):
        assert edge.wire_bits("door", 100) == plain.wire_bits("door", 100 + EXTRA_BYTES)
        await listener.subscribe("test/node/door/#")
        while (await anext(listener.messages)).topic.value != "test/node/door/state":
            pass
        messages = server.messages()
        assert await edge.send("door", evidence(5)) is None
        message = await anext(messages)
        assert (message.data, message.refusal) == (evidence(5), None)
        reply = encode_reply(make_reply(5))
        assert await server.reply(message, reply)
        assert await anext(edge.replies()) == ("door", reply)
        sent = (await anext(listener.messages)).payload
        assert len(sent) == 2 + len(evidence(5)) + EXTRA_BYTES
        # The same message again, and the camera's next message with another checksum in place of the MAC.
        for payload, reason in ((sent, "a repeated message"), (sent[:2] + evidence(6), "no MAC")):
            await listener.publish("test/node/door/evidence", payload, qos=1)
            assert reason in (await anext(messages)).refusal


async def test_a_forged_reply_is_ignored_and_logged_once(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(mosquitto)
    async with (
        MqttServerLink(broker, TOPICS, "servers", auth=KEY) as server,
        edge_link(broker, must_connect=True, auth=KEY) as edge,
        aiomqtt.Client(*broker.addresses[0]) as attacker,
    ):
        assert await edge.send("door", evidence(5)) is None
        message = await anext(server.messages())
        forged = encode_reply(make_reply(5))
        other_key = MessageAuth(b"x" * 32).seal(forged, "node/door", message.session)
        other_session = KEY.seal(forged, "node/door", b"another!")
        for data in (forged, other_key, other_session, forged):
            await attacker.publish("test/node/door/verdict", message.session[:2] + data, qos=1)
        right = encode_reply(make_reply(5, units=196))
        await server.reply(message, right)
        assert await anext(edge.replies()) == ("door", right)
    assert caplog.text.count("event=reply_ignored reason='no MAC") == 1
    assert caplog.text.count("event=reply_ignored reason='the MAC does not match") == 1


@pytest.mark.parametrize(
    ("edge_auth", "server_auth", "reason"),
    [(None, KEY, "no MAC"), (MessageAuth(b"x" * 32), KEY, "the MAC does not match")],
)
async def test_a_sender_without_the_key_is_refused(
    mosquitto: Mosquitto, edge_auth: MessageAuth | None, server_auth: MessageAuth, reason: str
) -> None:
    broker = broker_of(mosquitto)
    async with (
        MqttServerLink(broker, TOPICS, "servers", auth=server_auth) as server,
        edge_link(broker, must_connect=True, auth=edge_auth) as edge,
    ):
        assert await edge.send("door", evidence(5)) is None
        message = await anext(server.messages())
        assert reason in message.refusal
        assert claimed_seq(message.data) == 5


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_broker_behind_a_websocket(scheme: str, tmp_path: Path) -> None:
    port = free_port()
    web = [f"listener {port} lo", "socket_domain ipv4", "protocol websockets"]  # wants an interface
    config = MqttConfig()
    if scheme == "wss":
        certificate, key = self_signed(tmp_path / "tls")
        web += [f"certfile {certificate}", f"keyfile {key}"]
        config = MqttConfig(ca=certificate)
    with Mosquitto("allow_anonymous true", *web) as running:
        broker = open_broker(f"{scheme}://{running.host}:{port}", config, "url")
        assert broker.url.endswith("/mqtt")
        await until(lambda: is_open(port))  # mosquitto opens it last
        async with server_link(broker) as server, edge_link(broker, must_connect=True) as edge:
            assert edge._session.client.tcp_socket.getpeername()[1] == port
            await until(lambda: "node/door" in server.cameras)
            assert await edge.send("door", b"evidence" * 1000) is None
            await server.reply(await anext(server.messages()), b"answer")
            assert await anext(edge.replies()) == ("door", b"answer")


@pytest.mark.parametrize("code", [ReasonCode(PacketTypes.SUBACK, "Not authorized"), 0x80])  # MQTT 5, and 3.1.1
async def test_a_refused_subscription_is_the_reason_why_a_server_is_not_ready(
    code: ReasonCode | int, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = aiomqtt.Client.subscribe

    async def subscribe(client: aiomqtt.Client, topic: str, **options: object) -> object:
        return [code] if topic.endswith("/evidence") else await granted(client, topic, **options)

    monkeypatch.setattr(aiomqtt.Client, "subscribe", subscribe)
    with pytest.raises(SagelinkError, match=r"refuses the subscription to .*/evidence.*SUBACK 0x8[07]"):
        await server_link(broker_of(mosquitto)).__aenter__()


async def test_states_that_are_asked_for_are_published_again(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with edge_link(broker, must_connect=True), aiomqtt.Client(*broker.addresses[0]) as eraser:
        for topic in ("test/node/state", "test/node/door/state"):  # as a broker that retains nothing
            await eraser.publish(topic, b"", qos=1, retain=True)
        async with server_link(broker) as server:
            await until(lambda: server.cameras == {"node/door": CAMERA_INFO})


async def test_two_servers_without_a_group_take_turns(mosquitto: Mosquitto) -> None:
    broker = broker_of(mosquitto)
    async with MqttServerLink(broker, TOPICS, "") as first:
        assert first.trouble is None
        async with MqttServerLink(broker, TOPICS, "") as second:
            assert "standing by" in second.trouble
            await first.__aexit__()
            await until(lambda: second.trouble is None)
