"""The server's end over MQTT. Servers of one group share the frames by a shared subscription of MQTT 5."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Self

import aiomqtt

from pipeline.channel import Channel, ChannelClosed
from pipeline.errors import SagelinkError
from pipeline.tasks import background
from transport.announcement import decode_state
from transport.link import Hello, Message
from transport.mqtt.address import Broker
from transport.mqtt.connection import Connection
from transport.mqtt.topics import SESSION_BYTES, Topics
from transport.wire import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

_ARRIVED = 1024  # messages that may wait for the service; it takes them at once, so more mean that the process stalls
_MAX_CAMERAS = 200_000


class MqttServerLink:
    """A ServerLink. A camera's address is `node/camera`."""

    def __init__(
        self, broker: Broker, topics: Topics, group: str, on_connection: Callable[[bool], None] = lambda _: None
    ) -> None:
        """`group`: servers of one group share the frames; empty where the broker knows no shared subscriptions.

        `on_connection` is told when the broker is reached and when it is lost."""
        self.url = broker.url
        self._topics = topics
        self._group = group
        self._on_connection = on_connection
        self._up: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_ARRIVED)
        self._connection = Connection(
            broker, self._run_session, identifier=f"sagelink-server-{secrets.token_hex(6)}", queue=_ARRIVED
        )
        self._client: aiomqtt.Client | None = None
        self.cameras: dict[str, Hello] = {}
        self._nodes: dict[str, set[str]] = {}  # addresses of each node's cameras
        self.lost_replies = 0
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
        """Takes no more messages; replies to those inside are still sent until the link is left."""
        self._up.close()

    @property
    def trouble(self) -> str | None:
        """Why the broker is not reached; None while it is."""
        return self._connection.trouble

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._up)

    async def reply(self, message: Message, data: bytes) -> None:
        client = self._client
        if client is None:
            self.lost_replies += 1
            return
        try:
            await client.publish(self._topics.verdict(message.sender), message.session + data, qos=0)
        except aiomqtt.MqttError:
            self.lost_replies += 1

    async def _run_session(self, client: aiomqtt.Client) -> None:
        evidence = self._topics.evidence("+/+")
        await client.subscribe(self._topics.state("+"), qos=1)
        await client.subscribe(f"$share/{self._group}/{evidence}" if self._group else evidence, qos=1)
        self._client = client
        self._connection.established()
        self._on_connection(True)
        try:
            async for message in client.messages:
                await self._take(message)
        finally:
            self._client = None
            self._on_connection(False)

    async def _take(self, message: aiomqtt.Message) -> None:
        topic, payload = str(message.topic), message.payload
        if not isinstance(payload, bytes):
            return
        if topic.endswith("/evidence"):
            if SESSION_BYTES <= len(payload) <= MAX_MESSAGE_BYTES + SESSION_BYTES:
                arrived = Message(
                    self._topics.address_of(topic),
                    payload[SESSION_BYTES:],
                    time.monotonic(),
                    payload[:SESSION_BYTES],
                )
                with contextlib.suppress(ChannelClosed):
                    await self._up.put(arrived)
        else:
            self._know(self._topics.node_of(topic), payload)

    def _know(self, node: str, payload: bytes) -> None:
        """Takes what a node has announced, in place of what it announced before."""
        for address in self._nodes.pop(node, ()):
            del self.cameras[address]
        state = decode_state(payload)
        if state is not None and len(self.cameras) + len(state[1]) <= _MAX_CAMERAS:
            self._nodes[node] = {f"{node}/{camera}" for camera in state[1]}
            self.cameras.update(dict.fromkeys(self._nodes[node], state[0]))
