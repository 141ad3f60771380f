"""A console beside real edges and servers at a real broker: it observes everything, and sends nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiomqtt
import numpy as np
import pytest

from bench.ports import free_port
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.clock import MonotonicClock
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import SagelinkError
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.head_messages import HeadPart, encode_part
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.console import MqttConsoleLink
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics, encode_state
from sagelink.transport.operator_commands import Action
from sagelink.transport.picture_parts import PicturePart
from sagelink.transport.reply_message import encode_reply
from tests.brokers import Mosquitto
from tests.fakes import make_reply
from tests.patience import PATIENCE_S

INFO = CameraInfo(14, 16, "0123", 5.0)
TOPICS = Topics("test")
KEY = MessageAuth(b"k" * 32)
DOOR = "node/door"


class Notes:
    """A CameraObserver that writes down what it is told."""

    def __init__(self) -> None:
        self.cameras: dict[str, str] = {}
        self.messages: list[tuple[Message, int]] = []
        self.replies: list[bytes] = []
        self.records: list[tuple[str, Mapping[str, Any]]] = []
        self.reasons: list[str] = []
        self.heads: list[bytes] = []
        self.parts: list[tuple[PicturePart, int]] = []
        self.settings_seen: list[tuple[str, Mapping[str, Any]]] = []

    def online(self, camera: str, info: CameraInfo, now_s: float) -> None:
        self.cameras[camera] = "online"

    def offline(self, camera: str, reason: str | None, now_s: float) -> None:
        if reason or camera not in self.cameras:
            self.cameras[camera] = reason or "offline"

    def evidence(self, message: Message, wire_bits: int) -> None:
        self.messages.append((message, wire_bits))

    def reply(self, camera: str, data: bytes, now_s: float) -> None:
        self.replies.append(data)

    def event(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None:
        self.records.append(("event", record))

    def digest(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None:
        self.records.append(("digest", record))

    def picture(self, camera: str, part: PicturePart, wire_bits: int, now_s: float) -> None:
        self.parts.append((part, wire_bits))

    def settings(self, camera: str, values: Mapping[str, Any]) -> None:
        self.settings_seen.append((camera, values))

    def lacks_head(self, fingerprint: bytes) -> bool:
        return True

    def head(self, content: bytes) -> None:
        self.heads.append(content)

    def ignored(self, node: str, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def mosquitto() -> AsyncIterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture
def broker(mosquitto: Mosquitto) -> Broker:
    return open_broker(mosquitto.url, MqttConfig(), "url")


def edge_link(broker: Broker, **options: Any) -> MqttEdgeLink:
    return MqttEdgeLink(broker, TOPICS, "node", ["door"], INFO, must_connect=True, **options)


def message_of(seq: int) -> bytes:
    return encode_evidence(EvidenceMessage(seq, 14, 16, 5, np.array([3]), b"payload"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("auth", [None, KEY], ids=["plain", "mac"])
async def test_it_observes_what_edge_and_server_exchange(broker: Broker, auth: MessageAuth | None) -> None:
    notes = Notes()
    async with (
        MqttConsoleLink(broker, TOPICS, notes, auth) as console,
        MqttServerLink(broker, TOPICS, "servers", auth=auth) as server,
    ):
        assert console.trouble is None
        async with edge_link(broker, auth=auth) as edge:
            await until(lambda: notes.cameras == {DOOR: "online"} and DOOR in server.cameras)
            assert await edge.send("door", message_of(4)) is None
            asked = await anext(server.messages())
            await server.reply(asked, encode_reply(make_reply(4)))
            await until(lambda: len(notes.messages) == len(notes.replies) == 1)
            observed, bits = notes.messages[0]
            assert (observed.sender, observed.data, observed.refusal) == (DOOR, message_of(4), None)
            assert bits == edge.wire_bits("door", len(message_of(4))) - (32 if auth else 0) + 8 * 4 * bool(auth)
            assert notes.replies == [encode_reply(make_reply(4))]
        await until(lambda: notes.cameras == {DOOR: "the run ended"})


async def test_a_lost_connection_is_no_end_of_the_run(broker: Broker) -> None:
    notes = Notes()
    async with MqttConsoleLink(broker, TOPICS, notes, None), edge_link(broker) as edge:
        await until(lambda: notes.cameras == {DOOR: "online"})
        edge._session.client.tcp_socket.shutdown(2)  # as if the cable were cut
        await until(lambda: notes.cameras == {DOOR: "the connection was lost"})
        await until(lambda: notes.cameras == {DOOR: "online"})


async def test_a_console_that_starts_later_knows_cameras_that_are_offline(broker: Broker) -> None:
    async with edge_link(broker):
        pass
    notes = Notes()
    async with MqttConsoleLink(broker, TOPICS, notes, None):
        await until(lambda: notes.cameras == {DOOR: "offline"})


async def test_two_consoles_and_a_broker_that_starts_again(mosquitto: Mosquitto, broker: Broker) -> None:
    first, second = Notes(), Notes()
    async with (
        MqttConsoleLink(broker, TOPICS, first, None) as console,
        MqttConsoleLink(broker, TOPICS, second, None) as other,
        edge_link(broker) as edge,
    ):
        mosquitto.kill()
        await until(lambda: console.trouble is not None)
        mosquitto.start()
        await until(lambda: console.trouble is other.trouble is edge.refusal() is None)
        assert await edge.send("door", message_of(1)) is None
        await until(lambda: len(first.messages) == len(second.messages) == 1)


async def test_only_authentic_messages_of_announced_cameras_count(broker: Broker) -> None:
    notes = Notes()
    async with (
        MqttConsoleLink(broker, TOPICS, notes, None),
        edge_link(broker) as edge,
        aiomqtt.Client(*broker.addresses[0]) as stranger,
    ):
        await until(lambda: notes.cameras == {DOOR: "online"})
        event = json.dumps({"id": "a", "action": "open"})
        for topic, payload in (
            ("other/x/event", event),
            ("node/door/event", "[1]"),
            ("node/door/event", "x" * 5000),
            ("node/door/verdict", b"\x00\x00nothing"),
            (f"node/{'x' * 300}/event", event),
            ("node/door/evidence", b"\x00\x00nothing"),
            ("node/door/event", event),
        ):
            await stranger.publish(f"test/{topic}", payload, qos=1)
        await until(lambda: len(notes.records) == 1)
        expected = ["long_name", "malformed", "malformed", "not_announced", "other_session"]
        assert sorted(notes.reasons) == expected
        assert [message.refusal is None for message, _ in notes.messages] == [False]
        assert await edge.send("door", message_of(1)) is None
        await until(lambda: len(notes.messages) == 2)


def socket_bytes(edge: MqttEdgeLink) -> int:
    """Bytes that the edge's socket has sent, as the kernel counts them."""
    info = edge._session.client.tcp_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
    return int(struct.unpack_from("=Q", info, 200)[0])


async def test_a_console_costs_no_uplink_byte(broker: Broker) -> None:
    async def cost() -> int:
        async with edge_link(broker) as edge:
            for seq in range(3):
                assert await edge.send("door", message_of(seq)) is None
                await until(lambda: edge.refusal() is None and not edge._evidence.unacknowledged)
            return socket_bytes(edge)

    alone = await cost()
    notes = Notes()
    async with MqttConsoleLink(broker, TOPICS, notes, None):
        assert await cost() == alone
        await until(lambda: len(notes.messages) == 3)


async def test_digests_are_charged_and_arrive(broker: Broker) -> None:
    notes, ledger = Notes(), WireLedger(UplinkBudget(1e6, 1.0), MonotonicClock().elapsed_s, recorded=True)
    settings = {"digest": lambda camera: b'{"n":7}', "digest_every_s": 0.5, "wire_ledger": ledger}
    async with MqttConsoleLink(broker, TOPICS, notes, None), edge_link(broker, **settings):
        await until(lambda: notes.cameras == {DOOR: "online"})
        ledger.take()
        await until(lambda: len(notes.records) == 2)
    assert notes.records[0] == ("digest", {"n": 7})
    assert sum(bits for _, bits, kind, _ in ledger.take() if kind == "charge") >= 2 * 8 * (66 + len(b'{"n":7}'))


@pytest.mark.parametrize("auth", [None, KEY], ids=["plain", "mac"])
async def test_a_change_is_carried_out_and_answered(broker: Broker, auth: MessageAuth | None) -> None:
    def carry_out(camera: str, action: Action, content: bytes, head: str) -> str:
        if b"wrong" in content:
            raise ValueError("wrong use")
        return f'{{"gate":"{camera} {action.name}"}}'

    notes = Notes()
    async with (
        MqttConsoleLink(broker, TOPICS, notes, auth) as console,
        edge_link(broker, auth=auth, on_command=carry_out),
    ):
        await until(lambda: notes.cameras == {DOOR: "online"})
        if auth is None:
            with pytest.raises(SagelinkError, match="mac_key_file is not set"):
                await console.change(DOOR, b"{}")
            return
        outcomes = [await console.change(DOOR, values) for values in (b"{}", b'"wrong"')]
        assert [(outcome.done, outcome.text) for outcome in outcomes] == [
            (True, '{"gate":"door CHANGE"}'),
            (False, "wrong use"),
        ]
        assert notes.settings_seen == [(DOOR, {"gate": "door CHANGE"})]
        with pytest.raises(SagelinkError, match="not online"):
            await console.change("node/other", b"{}")


@pytest.mark.parametrize("auth", [None, KEY], ids=["plain", "mac"])
async def test_the_head_of_a_camera_comes_from_the_broker(broker: Broker, auth: MessageAuth | None) -> None:
    content, name = bytes(range(256)) * 6, b"f" * 16
    notes = Notes()
    async with (
        MqttConsoleLink(broker, TOPICS, notes, auth),
        aiomqtt.Client(*broker.addresses[0]) as edge,
    ):
        for offset in (0, 800):
            part = encode_part(HeadPart(name, len(content), offset, content[offset : offset + 800]))
            sealed = part if auth is None else auth.seal(part, "node", b"")
            await edge.publish(TOPICS.head("node", name.hex(), str(offset)), sealed, qos=1, retain=True)
        await edge.publish(TOPICS.state("node"), encode_state(b"12345678", True), qos=1)
        info = dataclasses.replace(INFO, heads=(name.hex(),))
        await edge.publish(TOPICS.state(DOOR), encode_state(b"12345678", True, info), qos=1)
        await until(lambda: notes.heads == [content])


@pytest.mark.parametrize("auth", [None, KEY], ids=["plain", "mac"])
async def test_a_picture_takes_the_idle_rest_and_waits_for_a_console(broker: Broker, auth: MessageAuth | None) -> None:
    budget, notes = UplinkBudget(1_000_000, 1.0), Notes()
    ledger = WireLedger(budget, MonotonicClock().elapsed_s)
    async with edge_link(broker, auth=auth, wire_ledger=ledger) as edge:
        part = PicturePart("e", 1300, 0, bytes(edge.pay_picture("door", "e", 1300)))
        assert len(part.data) == 1000
        refusal = await edge.publish_picture("door", part)
        assert refusal == "nobody has subscribed to test/node/door/picture"
        async with MqttConsoleLink(broker, TOPICS, notes, auth):
            await until(lambda: notes.cameras == {DOOR: "online"})
            before = budget.total_bits
            assert edge.pay_picture("door", "e", 300) == 300
            last = PicturePart("e", 1300, 1000, bytes(300))
            assert await edge.publish_picture("door", last) is None
            await until(lambda: notes.parts != [])
            assert notes.parts[0][0] == last
            assert 8 * 300 < notes.parts[0][1] < 8 * 600
            assert 8 * 300 < budget.total_bits - before < 8 * 600
        budget.change_rate(4000)
        assert edge.pay_picture("door", "e", 1000) == 0  # the window is full


async def test_a_flood_of_one_node_is_cut(broker: Broker) -> None:
    notes = Notes()
    console = MqttConsoleLink(broker, TOPICS, notes, None)
    for number in range(5000):
        console._receive("test/evil/x/event", b"%d" % number, False)
        console._second = 10**9 if number == 0 else console._second  # one second, however long this takes
    assert notes.reasons.count("flood") >= 900


async def test_without_a_broker_it_does_not_start() -> None:
    broker = open_broker(f"mqtt://127.0.0.1:{free_port()}", MqttConfig(), "url")
    with pytest.raises(SagelinkError, match="refused"):
        async with MqttConsoleLink(broker, TOPICS, Notes(), None):
            pass
