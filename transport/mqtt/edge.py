"""The edge's end over MQTT: sends evidence with QoS 1, few messages at a time, and charges every uplink bit."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import SESSION_BYTES, Topics, encode_state
from sagelink.transport.mqtt.wire_cost import MqttCostModel, counted_bits
from sagelink.transport.remote_edge import MAX_REPLIES, RemoteEdgeLink
from sagelink.transport.wire_cost import ChargeOverhead

_AUDIT_EVERY_S = 0.25  # between two readings of the kernel's counters
_OFFLINE_STATE_S = 0.02  # longest wait for publishing a state when the link is closed
_EXPIRY_PROPERTY_BYTES = 6  # length of the properties, and the message expiry interval


class MqttEdgeLink(RemoteEdgeLink):
    """An EdgeLink. All cameras of a process share one connection."""

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
        """`in_flight`: messages that the broker may not have acknowledged yet. `charge_overhead`, `must_connect`: see
        RemoteEdgeLink. `on_budget` receives the payloads published to the node's budget topic."""
        super().__init__(charge_overhead, must_connect)
        self._topics = topics
        self._node = node
        self._cameras = list(cameras)
        self._camera_info = camera_info
        self._in_flight = in_flight
        self._on_budget = on_budget
        self._cost_model = MqttCostModel(broker.tls is not None, False, broker.client_certificate)
        self._session = secrets.token_bytes(SESSION_BYTES)
        self._connection = self._reconnector = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-{node}-{secrets.token_hex(4)}",
            will=aiomqtt.Will(topics.state(node), encode_state(self._session, False), qos=1, retain=True),
            queue=MAX_REPLIES,
            before_connecting=lambda: self._overhead.charge_connection(self._cost_model.connect_bits()),
        )
        self._client: BrokerClient | None = None
        self._publishing: asyncio.TaskGroup | None = None
        self._unacknowledged = 0

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        topic_bytes = len(self._topics.evidence(f"{self._node}/{camera}").encode())
        properties = _EXPIRY_PROPERTY_BYTES if self._connection.v5 else 0
        return self._cost_model.publish_bits(topic_bytes, SESSION_BYTES + message_bytes, properties)

    def _is_connected(self) -> bool:
        return self._client is not None

    def _congestion(self) -> str | None:
        if self._unacknowledged >= self._in_flight:
            return f"the broker has not acknowledged {self._unacknowledged} messages"
        return None

    async def _transmit(self, camera: str, message: bytes) -> None:
        assert self._publishing is not None
        self._unacknowledged += 1
        self._publishing.create_task(self._publish(camera, self._session + message))

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

    async def _run_session(self, client: BrokerClient) -> None:
        """Serves one connection until it ends."""
        connection = client.tcp_socket
        if connection is not None:
            self._cost_model = replace(self._cost_model, ipv6=connection.family.name == "AF_INET6")
        await client.subscribe(self._topics.verdict(f"{self._node}/+"), qos=0)
        if self._on_budget is not None:
            await client.subscribe(self._topics.budget(self._node), qos=1)
        await self._publish_states(client, online=True, qos=1, timeout_s=None)
        try:
            async with asyncio.TaskGroup() as group:
                self._client, self._publishing, self._unacknowledged = client, group, 0
                self._connection.established()
                self._changed.set()
                if connection is not None:
                    group.create_task(self._audit_wire_cost(connection))
                async for message in client.messages:
                    self._receive(message)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._publish_states(client, online=False, qos=0, timeout_s=_OFFLINE_STATE_S)
            raise
        finally:
            self._client = self._publishing = None

    def _receive(self, message: aiomqtt.Message) -> None:
        payload, topic = message.payload, str(message.topic)
        if not isinstance(payload, bytes):
            return
        if topic == self._topics.budget(self._node):
            if self._on_budget is not None:
                self._on_budget(payload)
        elif payload[:SESSION_BYTES] == self._session:  # else: a reply to an earlier run of the same name
            camera = self._topics.address_of(topic).removeprefix(f"{self._node}/")
            self._deliver(camera, payload[SESSION_BYTES:])

    async def _publish_states(self, client: BrokerClient, online: bool, qos: int, timeout_s: float | None) -> None:
        """Retains the state of every camera and then of the node, whose last will counts for all its cameras."""
        states = [(f"{self._node}/{camera}", self._camera_info) for camera in self._cameras]
        for address, camera_info in [*states, (self._node, None)]:
            state = encode_state(self._session, online, camera_info)
            await client.publish(self._topics.state(address), state, qos=qos, retain=True, timeout=timeout_s)

    async def _audit_wire_cost(self, connection: socket.socket) -> None:
        """Charges bits that the kernel counts beyond the estimates: retransmissions, keep-alives, a long handshake."""
        while True:
            await asyncio.sleep(_AUDIT_EVERY_S)
            counted = counted_bits(connection, self._cost_model.header_bytes)
            if counted is None:
                return
            await self._overhead.charge_excess(counted)
