"""The edge's end over MQTT: at most a few QoS 1 messages unacknowledged, nothing sent that was not charged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sagelink.pipeline.channel import Channel
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.connection import BrokerConnection, socket_of
from sagelink.transport.mqtt.topics import SESSION_BYTES, Topics, encode_state
from sagelink.transport.mqtt.wire_cost import MqttCostModel, counted_bits
from sagelink.transport.wire import MAX_MESSAGE_BYTES
from sagelink.transport.wire_cost import ChargeOverhead, OverheadCharger

log = logging.getLogger(__name__)

_CHECK_S = 0.25  # between two looks at the kernel's counters
_FAREWELL_S = 0.02
_EXPIRY_PROPERTY_BYTES = 6  # length of the properties, and the message expiry interval
_REPLIES = 64


class MqttEdgeLink:
    """An EdgeLink. All cameras of a process share one connection.

    `charge_overhead` charges the budget for whatever is no message; None (a replay, whose budget runs on the stream's time) leaves
    that uncharged. `must_connect`: entering it fails unless the first attempt succeeds.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        node: str,
        cameras: Sequence[str],
        camera_info: CameraInfo,
        *,
        in_flight: int = 2,
        charge_overhead: ChargeOverhead | None = None,
        must_connect: bool = False,
        on_budget: Callable[[bytes], None] | None = None,
    ) -> None:
        self._topics = topics
        self._node = node
        self._cameras = list(cameras)
        self._camera_info = camera_info
        self._in_flight = in_flight
        self._must_connect = must_connect
        self._on_budget = on_budget
        self._tariff = MqttCostModel(broker.tls is not None, False, broker.client_certificate)
        self._session = secrets.token_bytes(SESSION_BYTES)
        self._down: Channel[tuple[str, bytes]] = Channel("downlink", "drop_oldest", capacity=_REPLIES)
        self._connection = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-{node}-{secrets.token_hex(4)}",
            will=aiomqtt.Will(topics.state(node), encode_state(self._session, False), qos=1, retain=True),
            queue=_REPLIES,
            before_connecting=lambda: self._till.open_connection(self._tariff.connect_bits()),
        )
        self._changed = asyncio.Event()
        self._till = OverheadCharger(charge_overhead, self._changed.set)
        self._client: aiomqtt.Client | None = None
        self._publishing: asyncio.TaskGroup | None = None
        self._unacknowledged = 0
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._close)
            await stack.enter_async_context(background(self._connection.run()))
            if self._must_connect and (trouble := await self._connection.first_attempt()) is not None:
                raise SagelinkError(f"the server cannot be reached: {trouble}")
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._down.close()
        await self._entered.aclose()

    def _close(self) -> None:
        self._down.close()
        self._changed.set()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        topic_bytes = len(self._topics.evidence(f"{self._node}/{camera}").encode())
        properties = _EXPIRY_PROPERTY_BYTES if self._connection.v5 else 0
        return self._tariff.publish_bits(topic_bytes, SESSION_BYTES + message_bytes, properties)

    def refusal(self) -> str | None:
        if self._down.closed:
            return "the link is closed"
        if self._client is None:
            return self._connection.trouble or "not connected"
        if self._till.owed_bits:
            return f"{self._till.owed_bits} bits of the connection's own are still to be charged"
        if self._unacknowledged >= self._in_flight:
            return f"the broker has not acknowledged {self._unacknowledged} messages"
        return None

    async def ready(self) -> None:
        while self.refusal() is not None and not self._down.closed:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, camera: str, message: bytes) -> str | None:
        refusal = self.refusal()
        if refusal is not None:
            return refusal
        if len(message) > MAX_MESSAGE_BYTES:
            return f"{len(message)} bytes; accepted: up to {MAX_MESSAGE_BYTES}"
        assert self._publishing is not None
        self._till.record_message(self.wire_bits(camera, len(message)))
        self._unacknowledged += 1
        self._publishing.create_task(self._publish(camera, self._session + message))
        return None

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)

    async def _publish(self, camera: str, payload: bytes) -> None:
        assert self._client is not None
        properties = None
        if self._connection.v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, round(self._camera_info.deadline_s))
        topic = self._topics.evidence(f"{self._node}/{camera}")
        await self._client.publish(topic, payload, qos=1, properties=properties)
        self._unacknowledged -= 1
        self._changed.set()

    async def _run_session(self, client: aiomqtt.Client) -> None:
        connection = socket_of(client)
        if connection is not None:
            ipv6 = connection.family.name == "AF_INET6"
            self._tariff = MqttCostModel(self._tariff.tls, ipv6, self._tariff.client_certificate)
        await client.subscribe(self._topics.verdict(f"{self._node}/+"), qos=0)
        if self._on_budget is not None:
            await client.subscribe(self._topics.budget(self._node), qos=1)
        await self._tell(client, online=True, qos=1, timeout_s=None)
        try:
            async with asyncio.TaskGroup() as group:
                self._client, self._publishing, self._unacknowledged = client, group, 0
                self._connection.established()
                self._changed.set()
                if connection is not None:
                    group.create_task(self._check_bill(connection))
                async for message in client.messages:
                    await self._take(message)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._tell(client, online=False, qos=0, timeout_s=_FAREWELL_S)
            raise
        finally:
            self._client = self._publishing = None

    async def _take(self, message: aiomqtt.Message) -> None:
        payload, topic = message.payload, str(message.topic)
        if not isinstance(payload, bytes):
            return
        if topic == self._topics.budget(self._node):
            if self._on_budget is not None:
                self._on_budget(payload)
        elif payload[:SESSION_BYTES] == self._session:  # else: for an earlier run of the same name
            camera = self._topics.place_of(topic).removeprefix(f"{self._node}/")
            await self._down.put((camera, payload[SESSION_BYTES:]))

    async def _tell(self, client: aiomqtt.Client, online: bool, qos: int, timeout_s: float | None) -> None:
        """Retains the state of every camera and, last, of the node, whose last will stands for them all."""
        hellos = [(f"{self._node}/{camera}", self._camera_info) for camera in self._cameras]
        for place, camera_info in [*hellos, (self._node, None)]:
            state = encode_state(self._session, online, camera_info)
            await client.publish(self._topics.state(place), state, qos=qos, retain=True, timeout=timeout_s)

    async def _check_bill(self, connection: object) -> None:
        """Charges what the kernel has counted beyond the estimates: retransmissions, keep-alives, a long handshake."""
        while True:
            await asyncio.sleep(_CHECK_S)
            counted = counted_bits(connection, self._tariff.header_bytes)  # type: ignore[arg-type]
            if counted is None:
                return
            await self._till.settle(counted)
