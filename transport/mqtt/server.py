"""The server's end over MQTT: receives evidence, tracks which cameras are online, and publishes replies.

The servers of one group share the frames through a shared subscription of MQTT 5. A server whose model fits none of the
online cameras leaves the group until one fits: else it would receive and refuse a share of all frames.
"""

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
from sagelink.transport.head_messages import MAX_PART_BYTES, is_part, part_message_bytes
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.evidence_check import MAX_PAYLOAD_BYTES, EvidenceCheck
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics
from sagelink.transport.wire import MalformedMessage

log = logging.getLogger(__name__)

_MAX_WAITING = 64  # messages for the service, which reads them at once: more mean that the process stalls
_MEMBERSHIP_S = 0.2  # between two decisions whether to be in the group
_STORED_HEAD_S = 1.0  # after subscribing, the retained parts of a head arrive within this time
_MAX_PART_MESSAGE_BYTES = part_message_bytes(MAX_PART_BYTES)

Misfit = Callable[[CameraInfo], str | None]  # why the server's model cannot serve a camera


class MqttServerLink:
    """A ServerLink. A camera's address is `node/camera`."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        group: str,
        on_connection: Callable[[bool], None] = lambda _: None,
        auth: MessageAuth | None = None,
    ) -> None:
        """`group`: servers of one group share the frames; empty if the broker has no shared subscriptions.

        `on_connection` is called with True when the broker is connected, and with False when it is lost. `auth` opens
        messages and seals replies."""
        self.url = broker.url
        self._topics = topics
        evidence = topics.evidence("+/+")
        self._evidence = f"$share/{group}/{evidence}" if group else evidence
        self._on_connection = on_connection
        self._auth = auth
        self._received: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_MAX_WAITING)
        self._connection = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-server-{secrets.token_hex(6)}",
            on_message=self._receive,
        )
        self._client: BrokerClient | None = None
        self._registry = CameraRegistry()
        self._states_changed = asyncio.Event()
        self._misfit: Misfit = lambda camera_info: None
        self._idle: str | None = None  # why the server is not in the group
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
        self._misfit = misfit
        self._states_changed.set()

    @property
    def cameras(self) -> dict[str, CameraInfo]:
        return self._registry.online

    @property
    def trouble(self) -> str | None:
        """The reason why the server serves no camera; None while it is ready to."""
        return self._connection.trouble or self._idle

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._received)

    async def seek_head(self, fingerprint: bytes) -> float:
        self._sought.add(fingerprint)
        if self._client is not None:
            await self._subscribe_head(self._client, fingerprint)
        return _STORED_HEAD_S

    async def _subscribe_head(self, client: BrokerClient, fingerprint: bytes) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            await client.subscribe(self._topics.head("+", fingerprint.hex(), "+"), qos=1)

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
        if self._auth is not None and message.refusal is None:  # a sender without a session has proved nothing
            data = self._auth.seal(data, message.sender, message.session)
        payload = message.session[:PREFIX_BYTES] + data
        try:
            await client.publish(self._topics.verdict(message.sender), payload, qos=0)
        except aiomqtt.MqttError:
            return False
        return True

    async def _run_session(self, client: BrokerClient) -> None:
        """Serves one connection until it ends."""
        # QoS 0: a broker queues only so many messages with a QoS of 1 (mosquitto: 1000), and drops further states.
        for address in ("+", "+/+"):
            await client.subscribe(self._topics.state(address), qos=0)
        for fingerprint in [*self._sought]:
            await self._subscribe_head(client, fingerprint)
        try:
            async with asyncio.TaskGroup() as group:
                in_group = await self._update_membership(client, in_group=False)
                self._client = client
                self._connection.established()
                self._on_connection(True)
                group.create_task(self._follow_states(client, in_group))
                await client.until_disconnected()
        finally:
            self._client = None
            self._on_connection(False)

    async def _follow_states(self, client: BrokerClient, in_group: bool) -> None:
        while True:
            await self._states_changed.wait()
            self._states_changed.clear()
            in_group = await self._update_membership(client, in_group)
            await asyncio.sleep(_MEMBERSHIP_S)

    async def _update_membership(self, client: BrokerClient, in_group: bool) -> bool:
        """Joins or leaves the group. Returns whether the server is in it now."""
        idle = self._idle_reason()
        if idle is not None and self._idle is None:
            log.warning("event=idle reason=%r", idle)
        elif idle is None and self._idle is not None:
            log.info("event=serving")
        self._idle = idle
        if idle is None and not in_group:
            await client.subscribe(self._evidence, qos=1)
        elif idle is not None and in_group:
            await client.unsubscribe(self._evidence)
        return idle is None

    def _idle_reason(self) -> str | None:
        """Why the server should serve no camera; None if it should."""
        reason = None
        for camera_info in self._registry.online.values():
            if (reason := self._misfit(camera_info)) is None:
                return None
        if reason is None:
            return None
        return f"serving no camera: the model fits none of the cameras that are online: {reason}"

    def _receive(self, topic: str, payload: bytes) -> None:
        if (node := self._topics.node_of_head(topic)) is not None:
            self._receive_part(node, payload)
            return
        address = self._topics.address_of(topic)
        if not topic.endswith("/evidence"):
            self._registry.update(address, payload)
            self._states_changed.set()
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
