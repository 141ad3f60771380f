"""The server's end over MQTT: receives evidence, tracks which cameras are online, and publishes replies.

The servers of one group share the frames through a shared subscription of MQTT 5.
"""

from __future__ import annotations

import contextlib
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
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import SESSION_BYTES, Topics
from sagelink.transport.wire import MAX_MESSAGE_BYTES

_MAX_WAITING = 1024  # messages for the service, which reads them at once: more mean that the process stalls


class MqttServerLink:
    """A ServerLink. A camera's address is `node/camera`."""

    def __init__(
        self, broker: Broker, topics: Topics, group: str, on_connection: Callable[[bool], None] = lambda _: None
    ) -> None:
        """`group`: servers of one group share the frames; empty if the broker has no shared subscriptions.

        `on_connection` is called with True when the broker is connected, and with False when it is lost."""
        self.url = broker.url
        self._topics = topics
        self._group = group
        self._on_connection = on_connection
        self._received: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_MAX_WAITING)
        self._connection = BrokerConnection(
            broker, self._run_session, identifier=f"sagelink-server-{secrets.token_hex(6)}", queue=_MAX_WAITING
        )
        self._client: BrokerClient | None = None
        self._registry = CameraRegistry()
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

    @property
    def cameras(self) -> dict[str, CameraInfo]:
        return self._registry.online

    @property
    def trouble(self) -> str | None:
        """The reason why the broker is not connected; None while it is."""
        return self._connection.trouble

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._received)

    async def reply(self, message: Message, data: bytes) -> bool:
        client = self._client
        if client is None:
            return False
        try:
            await client.publish(self._topics.verdict(message.sender), message.session + data, qos=0)
        except aiomqtt.MqttError:
            return False
        return True

    async def _run_session(self, client: BrokerClient) -> None:
        """Serves one connection until it ends."""
        evidence = self._topics.evidence("+/+")
        for address in ("+", "+/+"):
            await client.subscribe(self._topics.state(address), qos=1)
        await client.subscribe(f"$share/{self._group}/{evidence}" if self._group else evidence, qos=1)
        self._client = client
        self._connection.established()
        self._on_connection(True)
        try:
            async for message in client.messages:
                if isinstance(message.payload, bytes):
                    self._receive(str(message.topic), message.payload)
        finally:
            self._client = None
            self._on_connection(False)

    def _receive(self, topic: str, payload: bytes) -> None:
        address = self._topics.address_of(topic)
        if not topic.endswith("/evidence"):
            self._registry.update(address, payload)
        elif SESSION_BYTES <= len(payload) <= MAX_MESSAGE_BYTES + SESSION_BYTES:
            session, data = payload[:SESSION_BYTES], payload[SESSION_BYTES:]
            with contextlib.suppress(ChannelClosed):
                self._received.put_now(Message(address, data, time.monotonic(), session))
