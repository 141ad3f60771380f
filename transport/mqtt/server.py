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
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.message_auth import EXTRA_BYTES, MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics
from sagelink.transport.wire import MAX_MESSAGE_BYTES, MalformedMessage, claimed_seq

log = logging.getLogger(__name__)

_MAX_WAITING = 64  # messages for the service, which reads them at once: more mean that the process stalls
_MEMBERSHIP_S = 0.2  # between two decisions whether to be in the group
_ONLINE = b"online"  # presence; edges send nothing while every server that they know has withdrawn it
_WITHDRAW_S = 0.02  # longest wait for that when the link is closed
_HEADER_BYTES = 16  # that are kept of a message that will be refused
_NOT_ANNOUNCED = "the camera has not announced itself"
_OTHER_SESSION = "another run has announced itself as this camera: two runs at a time need different mqtt.node"
_REPEATED = "a frame that this run has sent before: a repeated message"

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
        identifier = secrets.token_hex(6)
        self._presence = topics.presence(identifier)
        self._connection = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-server-{identifier}",
            on_message=self._receive,
            will=aiomqtt.Will(self._presence, b"", qos=1, retain=True),
        )
        self._client: BrokerClient | None = None
        self._registry = CameraRegistry()
        self._states_changed = asyncio.Event()
        self._misfit: Misfit = lambda camera_info: None
        self._idle: str | None = None  # why the server is not in the group
        self._last_frames: dict[str, tuple[str, int]] = {}  # session and seq of the last authentic message, by camera
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
        try:
            async with asyncio.TaskGroup() as group:
                in_group = await self._update_membership(client, in_group=False)
                self._client = client
                self._connection.established()
                self._on_connection(True)
                group.create_task(self._follow_states(client, in_group))
                await client.until_disconnected()
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.publish(self._presence, b"", qos=0, retain=True, timeout=_WITHDRAW_S)
            raise
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
            await client.publish_confirmed(self._presence, _ONLINE, retain=True)
        elif idle is not None and in_group:
            await client.unsubscribe(self._evidence)
            await client.publish_confirmed(self._presence, b"", retain=True)
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

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        address = self._topics.address_of(topic)
        if not topic.endswith("/evidence"):
            self._registry.update(address, payload)
            self._states_changed.set()
        elif PREFIX_BYTES <= len(payload) <= MAX_MESSAGE_BYTES + EXTRA_BYTES + PREFIX_BYTES:
            with contextlib.suppress(ChannelClosed):
                self._received.put_now(self._message(address, payload[:PREFIX_BYTES], payload[PREFIX_BYTES:]))

    def _message(self, address: str, prefix: bytes, data: bytes) -> Message:
        """The message; with a refusal unless it is of the run that has announced the camera."""
        now_s, session = time.monotonic(), self._registry.session_of(address)
        if session is None or not session.startswith(prefix.hex()):
            refusal = _NOT_ANNOUNCED if session is None else _OTHER_SESSION
            return Message(address, data[:_HEADER_BYTES], now_s, prefix, refusal=refusal)
        if self._auth is None:
            return Message(address, data, now_s, prefix)
        try:
            data = self._auth.open(data, address, bytes.fromhex(session))
            self._check_new(address, session, data)
        except MalformedMessage as error:
            return Message(address, data[:_HEADER_BYTES], now_s, prefix, refusal=str(error))
        return Message(address, data, now_s, bytes.fromhex(session))

    def _check_new(self, address: str, session: str, data: bytes) -> None:
        """Raises MalformedMessage if the run has sent this or a later frame of the camera before."""
        seq = claimed_seq(data) or 0
        last_session, last_seq = self._last_frames.get(address, (session, -1))
        if last_session == session and seq <= last_seq:
            raise MalformedMessage(_REPEATED)
        if len(self._last_frames) > 2 * len(self._registry.online) + 1000:
            self._last_frames = {known: last for known, last in self._last_frames.items() if known in self.cameras}
        self._last_frames[address] = session, seq
