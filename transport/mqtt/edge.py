"""The edge's end over MQTT: sends evidence with QoS 1, few messages at a time, and charges every uplink bit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sagelink.pipeline.wire_ledger import WireLedger
from sagelink.transport.link import CameraInfo, Undelivered
from sagelink.transport.message_auth import EXTRA_BYTES, MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.announcer import Announcer
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.packet_limit import PacketLimit
from sagelink.transport.mqtt.topics import PREFIX_BYTES, SESSION_BYTES, Topics, encode_state
from sagelink.transport.mqtt.wire_cost import (
    PUBLISH_ACKS,
    MqttCostModel,
    publish_bytes,
    varint_bytes,
)
from sagelink.transport.remote_edge import RemoteEdgeLink
from sagelink.transport.wire import MAX_MESSAGE_BYTES, MalformedMessage, claimed_seq

log = logging.getLogger(__name__)

_MAX_SERVERS = 1000  # whose presence is stored
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
        wire_ledger: WireLedger | None = None,
        must_connect: bool = False,
        on_budget: Callable[[bytes, bool], None] | None = None,
        auth: MessageAuth | None = None,
    ) -> None:
        """`in_flight`: messages that the broker may not have acknowledged yet. `wire_ledger`, `must_connect`: see
        RemoteEdgeLink. `on_budget` receives the payloads published to the node's budget topic,
        and whether the broker had retained them. `auth` seals messages
        and opens replies."""
        super().__init__(wire_ledger, must_connect)
        self._broker_url = broker.url
        self._topics = topics
        self._node = node
        self._cameras = list(cameras)
        self._deadline_s = camera_info.deadline_s
        self._in_flight = in_flight
        self._on_budget = on_budget
        self._auth = auth
        self._cost_model = MqttCostModel("TLSv1.3" if broker.tls is not None else None)
        self._session = secrets.token_bytes(SESSION_BYTES)
        self._announcer = Announcer(topics, node, self._cameras, camera_info, self._session)
        self._connection = self._reconnector = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-{node}-{secrets.token_hex(4)}",
            on_message=self._receive,
            will=aiomqtt.Will(topics.state(node), encode_state(self._session, False), qos=1, retain=True),
            charger=self._charger,
            connect_bits=self._connect_bits(broker),
        )
        self._client: BrokerClient | None = None
        self._publishing: asyncio.TaskGroup | None = None
        self._unacknowledged = 0
        self._known_servers: set[str] | None = None  # that are online; None: the broker has reported none yet
        self._limit = PacketLimit()
        self._refusals: dict[str, str | None] = {}  # the broker's last answer to evidence, by camera
        self._logged_replies: set[str] = set()  # reasons for which replies were ignored

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._cost_model.packet_bits(self._packet_bytes(camera, message_bytes), PUBLISH_ACKS)

    def _packet_bytes(self, camera: str, message_bytes: int) -> int:
        topic_bytes = len(self._topics.evidence(f"{self._node}/{camera}").encode())
        properties = _EXPIRY_PROPERTY_BYTES if self._connection.v5 else 0
        extra_bytes = EXTRA_BYTES if self._auth else 0
        return publish_bytes(topic_bytes, PREFIX_BYTES + message_bytes + extra_bytes, properties)

    def _connect_bits(self, broker: Broker) -> int:
        """What setting up a connection costs, announcements and their acknowledgements included."""
        bits = self._cost_model.connect_bits(broker.certificate_bytes)
        for topic, state in self._announcer.states(online=True).items():
            bits += self._cost_model.packet_bits(publish_bytes(len(topic.encode()), len(state), 1), acks=1)
        return bits

    def max_message_bytes(self, camera: str) -> int:
        limit = self._limit.max_packet_bytes
        framing_bytes = self._packet_bytes(camera, 0) - varint_bytes(0) + varint_bytes(limit)
        return max(0, min(MAX_MESSAGE_BYTES, limit - framing_bytes))

    def _is_connected(self) -> bool:
        return self._client is not None

    def _congestion(self) -> str | None:
        if self._known_servers is not None and not self._known_servers:
            return "no server is online"
        if self._unacknowledged >= self._in_flight:
            return f"the broker has not acknowledged {self._unacknowledged} messages"
        return None

    async def _transmit(self, camera: str, message: bytes) -> None:
        assert self._publishing is not None
        self._unacknowledged += 1
        self._limit.sent(self._packet_bytes(camera, len(message)), time.monotonic())
        self._publishing.create_task(self._publish(camera, message))

    async def _publish(self, camera: str, message: bytes) -> None:
        assert self._client is not None
        properties = None
        if self._connection.v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, round(self._deadline_s))
        address = f"{self._node}/{camera}"
        sealed = message if self._auth is None else self._auth.seal(message, address, self._session)
        payload = self._session[:PREFIX_BYTES] + sealed
        refusal = await self._client.publish_confirmed(self._topics.evidence(address), payload, properties=properties)
        self._limit.acknowledged(self._packet_bytes(camera, len(message)))
        self._unacknowledged -= 1
        self._changed.set()
        self._note_refusal(camera, refusal)
        seq = claimed_seq(message)
        if refusal is not None and seq is not None:
            self._deliver(camera, Undelivered(seq))

    def _note_refusal(self, camera: str, refusal: str | None) -> None:
        """Logs each change of the broker's answers to a camera's evidence."""
        if refusal == self._refusals.get(camera):
            return
        self._refusals[camera] = refusal
        if refusal is not None:
            log.warning("event=publish_refused camera=%s reason=%r", camera, refusal)
        else:
            log.info("event=publish_accepted camera=%s", camera)

    async def _run_session(self, client: BrokerClient) -> None:
        """Serves one connection until it ends."""
        self._cost_model = replace(self._cost_model, ipv6=client.ipv6, tls=client.tls_version)
        self._limit.connected(client.max_packet_bytes)
        self._known_servers = None
        await client.subscribe(self._topics.verdict(f"{self._node}/+"), qos=0)
        await client.subscribe(self._topics.presence("+"), qos=0)
        if self._on_budget is not None:
            await client.subscribe(self._topics.budget(self._node), qos=1)
        await self._announcer.announce(client)
        await self._announcer.follow(client)  # not in a task: aiomqtt may lose its only cancellation
        try:
            async with asyncio.TaskGroup() as group:
                self._client, self._publishing, self._unacknowledged = client, group, 0
                self._connection.established()
                self._log_limit(client.max_packet_bytes)
                self._changed.set()
                group.create_task(self._announcer.repair(client))
                await client.until_disconnected()
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._announcer.withdraw(client)
            raise
        finally:
            self._client = self._publishing = None
            if self._limit.disconnected(time.monotonic()):
                self._log_limit(self._limit.max_packet_bytes)

    def _log_limit(self, max_packet_bytes: int | None) -> None:
        """Logs a limit of the broker that may keep messages short."""
        longest = min(map(self.max_message_bytes, self._cameras), default=MAX_MESSAGE_BYTES)
        if max_packet_bytes is not None and longest < MAX_MESSAGE_BYTES:
            log.warning(
                "event=packet_limit broker=%s max_packet_bytes=%d: messages have at most %d bytes, whatever "
                "encode.max_message says",
                self._broker_url,
                max_packet_bytes,
                longest,
            )

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic == self._topics.budget(self._node):
            if self._on_budget is not None:
                self._on_budget(payload, retained)
        elif topic.endswith("/state"):
            self._announcer.observe(topic, payload)
        elif topic.endswith("/presence"):
            self._observe_server(topic, online=bool(payload))
        elif payload[:PREFIX_BYTES] == self._session[:PREFIX_BYTES]:  # else: a reply to an earlier run of the same name
            address = self._topics.address_of(topic)
            reply = payload[PREFIX_BYTES:]
            try:
                reply = reply if self._auth is None else self._auth.open(reply, address, self._session)
            except MalformedMessage as error:
                self._ignore_reply(str(error))
            else:
                self._deliver(address.removeprefix(f"{self._node}/"), reply)

    def _observe_server(self, topic: str, online: bool) -> None:
        """Takes the presence of a server: a retained message while it is online, an empty one when it is gone."""
        known = set() if self._known_servers is None else self._known_servers
        known = known | {topic} if online else known - {topic}
        self._known_servers = set(sorted(known)[:_MAX_SERVERS])
        self._changed.set()

    def _ignore_reply(self, reason: str) -> None:
        if reason not in self._logged_replies:
            self._logged_replies.add(reason)
            log.warning("event=reply_ignored reason=%r: the server has another key, or the reply is forged", reason)
