"""The server's end over MQTT or NATS: receives evidence, tracks which cameras are online, and publishes replies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Self

import aiomqtt

from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.head_messages import MAX_PART_BYTES, is_part, part_message_bytes
from sagelink.transport.link import CameraInfo, Message, node_of
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.evidence_check import MAX_PAYLOAD_BYTES, NOT_ANNOUNCED, EvidenceCheck
from sagelink.transport.mqtt.group_membership import GroupMembership, Misfit
from sagelink.transport.mqtt.nats_client import NatsConnection
from sagelink.transport.mqtt.nats_cluster import NatsCluster
from sagelink.transport.mqtt.server_client import OnMessage, ServerClient, Session
from sagelink.transport.mqtt.state_requests import StateRequests
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics

log = logging.getLogger(__name__)

_MAX_WAITING = 64  # messages for the service, which reads them at once: more mean that the process stalls
_RETAINED_S = 1.0  # after subscribing, retained states arrive within this time
_ANSWERED_S = 3.5  # edges answer a request for all states within this time, also directly after another request
_STORED_HEAD_S = 1.0  # after subscribing, the retained parts of a head arrive within this time
_MAX_PART_MESSAGE_BYTES = part_message_bytes(MAX_PART_BYTES)


class MqttServerLink:
    """A ServerLink. A camera's address is `node/camera`."""

    def __init__(
        self,
        broker: Broker | NatsCluster,
        topics: Topics,
        group: str,
        on_connection: Callable[[bool], None] = lambda _: None,
        auth: MessageAuth | None = None,
    ) -> None:
        """`group`: servers of one group share the frames; empty: a plain subscription, this server serves alone.

        `on_connection` is called with True when the broker is connected, and with False when it is lost. `auth` opens
        messages and seals replies."""
        self.url = broker.url
        self._topics = topics
        self._on_connection = on_connection
        self._auth = auth
        self._received: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_MAX_WAITING)
        server = secrets.token_hex(6)
        self._registry = CameraRegistry()
        self._membership = GroupMembership(topics, group, server, self._registry.online)
        self._state_requests = StateRequests(topics)
        self._connection = _connection(
            broker,
            self._run_session,
            f"sagelink-server-{server}",
            self._receive,
            aiomqtt.Will(self._membership.presence, b"", qos=1, retain=True),
        )
        self._client: ServerClient | None = None
        self._check = EvidenceCheck(self._registry, auth)
        self._sought: set[bytes] = set()  # fingerprints of the heads that the server looks for
        self._part_fault: str | None = None
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises SagelinkError when the first attempt to connect fails."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(background(self._connection.run()))
            if (trouble := await self._connection.first_attempt()) is not None:
                raise SagelinkError(trouble)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self._entered.aclose()

    def close(self) -> None:
        """Accepts no more messages; replies to messages already received are sent until the link is left."""
        self._received.close()

    def serve_fitting(self, misfit: Misfit) -> None:
        """From now on the server is in the group only while a camera fits, or none is online."""
        self._membership.serve_fitting(misfit)

    @property
    def cameras(self) -> dict[str, CameraInfo]:
        return self._registry.online

    @property
    def trouble(self) -> str | None:
        """The reason why the server serves no camera; None while it is ready to."""
        return self._connection.trouble or self._membership.idle

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._received)

    async def seek_head(self, fingerprint: bytes) -> float:
        self._sought.add(fingerprint)
        client = self._client
        if client is not None:
            await self._subscribe_head(client, fingerprint)
        return 0.0 if client is not None and not client.retains else _STORED_HEAD_S

    async def _subscribe_head(self, client: ServerClient, fingerprint: bytes) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            await client.subscribe_confirmed(self._topics.head("+", fingerprint.hex(), "+"), qos=1)

    async def end_seeking(self, fingerprint: bytes) -> None:
        self._sought.discard(fingerprint)
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.unsubscribe(self._topics.head("+", fingerprint.hex(), "+"))

    async def send_head_status(self, camera: str, status: bytes) -> None:
        session = self._registry.session_of(camera)
        if session is not None:
            await self.reply(Message(camera, b"", 0.0, bytes.fromhex(session)), status)

    async def reply(self, message: Message, data: bytes) -> bool:
        client = self._client
        if client is None:
            return False
        if message.refusal == NOT_ANNOUNCED:
            await self._state_requests.ask(client, node_of(message.sender))
        if self._auth is not None and message.refusal is None:  # a sender without a session has proved nothing
            data = self._auth.seal(data, message.sender, message.session)
        payload = message.session[:PREFIX_BYTES] + data
        try:
            await client.publish(self._topics.verdict(message.sender), payload, qos=0)
        except aiomqtt.MqttError:
            return False
        return True

    async def _run_session(self, client: ServerClient) -> None:
        """Serves one connection until it ends."""
        self._state_requests.forget()
        await self._membership.choose_subscription(client)
        # QoS 0: a broker queues only so many messages with a QoS of 1 (mosquitto: 1000), and drops further states.
        for address in ("+", "+/+"):
            await client.must_subscribe(self._topics.state(address), qos=0)
        for fingerprint in [*self._sought]:
            await self._subscribe_head(client, fingerprint)
        if not client.retains and not self._registry.online:
            await self._state_requests.ask(client, "")
            await asyncio.sleep(_ANSWERED_S)  # so that no frame is refused
        try:
            async with asyncio.TaskGroup() as group:
                await self._membership.join(client, group)
                self._client = client
                self._connection.established()
                self._on_connection(True)
                if client.retains:
                    group.create_task(self._ask_if_silent(client))
                await client.until_disconnected()
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._membership.withdraw(client)
            raise
        finally:
            self._client = None
            self._on_connection(False)

    async def _ask_if_silent(self, client: ServerClient) -> None:
        """Asks all nodes for their states if the broker delivers no retained ones."""
        await asyncio.sleep(_RETAINED_S)
        if not self._registry.online:
            await self._state_requests.ask(client, "")

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if (node := self._topics.node_of_head(topic)) is not None:
            self._receive_part(node, payload)
            return
        if self._membership.receive(topic, payload, retained):
            return
        address = self._topics.address_of(topic)
        if not topic.endswith("/evidence"):
            self._registry.update(address, payload)
            self._membership.cameras_changed()
        elif PREFIX_BYTES <= len(payload) <= MAX_PAYLOAD_BYTES:
            with contextlib.suppress(ChannelClosed):
                self._received.put_now(self._check.message(address, payload))

    def _receive_part(self, node: str, payload: bytes) -> None:
        """A part of a head that this server looks for; one without the right MAC is ignored."""
        try:
            data = payload if self._auth is None else self._auth.open(payload, node, b"")
        except MalformedMessage as error:
            if str(error) != self._part_fault:
                self._part_fault = str(error)
                log.warning("event=head_part_ignored node=%s reason=%r", node, self._part_fault)
            return
        if len(data) <= _MAX_PART_MESSAGE_BYTES and is_part(data):
            with contextlib.suppress(ChannelClosed):
                self._received.put_now(Message(node, data, time.monotonic()))


def _connection(
    broker: Broker | NatsCluster, session: Session, identifier: str, on_message: OnMessage, will: aiomqtt.Will
) -> BrokerConnection | NatsConnection:
    if isinstance(broker, NatsCluster):
        return NatsConnection(broker, session, identifier=identifier, on_message=on_message)
    return BrokerConnection(broker, session, identifier=identifier, on_message=on_message, will=will)
