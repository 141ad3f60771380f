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

from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import SESSION_BYTES, NodeState, Topics, decode_state
from sagelink.transport.wire import MAX_MESSAGE_BYTES

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
        self._connection = BrokerConnection(
            broker, self._run_session, identifier=f"sagelink-server-{secrets.token_hex(6)}", queue=_ARRIVED
        )
        self._client: aiomqtt.Client | None = None
        self.cameras: dict[str, CameraInfo] = {}
        self._nodes: dict[str, str] = {}  # session of each node that is there
        self._announced: dict[str, dict[str, NodeState]] = {}  # by node and address, whether or not the node is there
        self._count = 0  # of announced cameras
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

    async def reply(self, message: Message, data: bytes) -> bool:
        client = self._client
        if client is None:
            return False
        try:
            await client.publish(self._topics.verdict(message.sender), message.session + data, qos=0)
        except aiomqtt.MqttError:
            return False
        return True

    async def _run_session(self, client: aiomqtt.Client) -> None:
        evidence = self._topics.evidence("+/+")
        for place in ("+", "+/+"):
            await client.subscribe(self._topics.state(place), qos=1)
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
                    self._topics.place_of(topic),
                    payload[SESSION_BYTES:],
                    time.monotonic(),
                    payload[:SESSION_BYTES],
                )
                with contextlib.suppress(ChannelClosed):
                    await self._up.put(arrived)
        else:
            self._know(self._topics.place_of(topic), payload)

    def _know(self, place: str, payload: bytes) -> None:
        """Takes what a node or a camera says of itself. A camera is there while its node is, in the same session."""
        node, is_camera, _ = place.partition("/")
        state = decode_state(payload, bool(is_camera))
        known = self._announced.setdefault(node, {})
        if is_camera:
            if known.pop(place, None):
                self._count -= 1
            if state is not None and state.online and self._count < _MAX_CAMERAS:
                known[place] = state
                self._count += 1
        elif state is not None and state.online and len(self._nodes) < _MAX_CAMERAS:
            self._nodes[node] = state.session
        elif state is None or state.session == self._nodes.get(node):  # else: the will of an earlier run, come late
            self._nodes.pop(node, None)
        for address in (place,) if is_camera else known:
            camera = known.get(address)
            if camera is not None and camera.camera_info and camera.session == self._nodes.get(node):
                self.cameras[address] = camera.camera_info
            else:
                self.cameras.pop(address, None)
        if not known:
            del self._announced[node]
