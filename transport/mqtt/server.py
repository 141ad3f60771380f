"""The server's end over MQTT or NATS: receives evidence, tracks which cameras are online, and publishes replies.

The servers of one group share the frames through a shared subscription (NATS: a queue group). Where the broker has
none, one server serves alone and the others stand by. A server whose model fits none of the online cameras leaves the
group until one fits: else it would receive and refuse a share of all frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
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
from sagelink.transport.mqtt.nats_client import NatsConnection
from sagelink.transport.mqtt.nats_cluster import NatsCluster
from sagelink.transport.mqtt.server_claim import ServerClaim
from sagelink.transport.mqtt.server_client import OnMessage, ServerClient, Session
from sagelink.transport.mqtt.sharing_probe import SharingProbe
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics

log = logging.getLogger(__name__)

_MAX_WAITING = 64  # messages for the service, which reads them at once: more mean that the process stalls
_MEMBERSHIP_S = 0.2  # between two decisions whether to be in the group
_CLAIM_STEP_S = 0.5  # between two looks at the claim
_SILENT_S = 1.0  # after subscribing, retained states arrive within this time
_ASK_AGAIN_S = 2.0  # between two requests for states
_ANSWERED_S = 3.5  # edges answer a request for all states within this time, also directly after another request
_PRESENCE_S = 60.0  # between two reports of the presence, where nothing retains it
_MAX_ASKED = 1000  # nodes within this time
_NO_SHARING = "the broker has no shared subscriptions"
_ONLINE = b"online"  # presence; edges send nothing while every server that they know has withdrawn it
_WITHDRAW_S = 0.02  # longest wait for that when the link is closed
_STORED_HEAD_S = 1.0  # after subscribing, the retained parts of a head arrive within this time
_MAX_PART_MESSAGE_BYTES = part_message_bytes(MAX_PART_BYTES)

Misfit = Callable[[CameraInfo], str | None]  # why the server's model cannot serve a camera


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
        self._group = group
        self._shared = False  # the frames are shared through the broker; decided for each connection
        self._evidence = topics.evidence("+/+")  # the subscription
        server = secrets.token_hex(6)
        self._claim = ServerClaim(server)
        self._claim_topic = topics.claim(group)
        self._sharing_probe = SharingProbe(topics, server)
        self._on_connection = on_connection
        self._auth = auth
        self._received: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_MAX_WAITING)
        self._presence = topics.presence(server)
        self._connection = _connection(
            broker,
            self._run_session,
            f"sagelink-server-{server}",
            self._receive,
            aiomqtt.Will(self._presence, b"", qos=1, retain=True),
        )
        self._asked_s: dict[str, float] = {}  # time of the last request for states, by node; "" for all
        self._client: ServerClient | None = None
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
            await self._ask_for_states(client, node_of(message.sender))
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
        self._asked_s.clear()
        await self._choose_subscription(client)
        # QoS 0: a broker queues only so many messages with a QoS of 1 (mosquitto: 1000), and drops further states.
        for address in ("+", "+/+"):
            await client.must_subscribe(self._topics.state(address), qos=0)
        for fingerprint in [*self._sought]:
            await self._subscribe_head(client, fingerprint)
        if not client.retains and not self._registry.online:
            await self._ask_for_states(client, "")
            await asyncio.sleep(_ANSWERED_S)  # so that no frame is refused
        try:
            async with asyncio.TaskGroup() as group:
                if not self._shared:
                    await self._follow_claim(client, group)
                in_group = await self._update_membership(client, in_group=False)
                self._client = client
                self._connection.established()
                self._on_connection(True)
                group.create_task(self._follow_states(client, in_group))
                group.create_task(self._ask_if_silent(client) if client.retains else self._repeat_presence(client))
                await client.until_disconnected()
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.publish(self._presence, b"", qos=0, retain=True, timeout=_WITHDRAW_S)
            raise
        finally:
            self._client = None
            self._on_connection(False)

    async def _choose_subscription(self, client: ServerClient) -> None:
        """Decides whether the frames are shared through the broker."""
        evidence = self._topics.evidence("+/+")
        self._shared = bool(self._group) and await self._sharing_probe.broker_shares(client, self._group)
        self._evidence = f"$share/{self._group}/{evidence}" if self._shared else evidence
        if self._group and not self._shared:
            log.warning("event=no_sharing reason=%r: one server of the group serves, others stand by", _NO_SHARING)

    async def _follow_claim(self, client: ServerClient, group: asyncio.TaskGroup) -> None:
        """Takes the group's claim if it is free, and keeps it in a task of `group`."""
        self._claim.connected(time.monotonic())
        for topic in (self._claim_topic, self._topics.presence("+")):
            await client.must_subscribe(topic, qos=0)

        async def keep() -> None:
            while True:
                held = self._claim.held
                if self._claim.is_due(time.monotonic()):
                    await client.publish(self._claim_topic, self._claim.encode(), qos=0, retain=True)
                if held != self._claim.held:
                    self._states_changed.set()
                await asyncio.sleep(_CLAIM_STEP_S)

        group.create_task(keep())
        while not self._claim.settled(time.monotonic()):  # noqa: ASYNC110
            await asyncio.sleep(_CLAIM_STEP_S)

    async def _repeat_presence(self, client: ServerClient) -> None:
        """For edges that have missed it, because nothing retains it."""
        while True:
            await asyncio.sleep(_PRESENCE_S)
            if self._idle is None:
                await client.publish(self._presence, _ONLINE, qos=0)

    async def _ask_if_silent(self, client: ServerClient) -> None:
        """Asks all nodes for their states if the broker delivers no retained ones."""
        await asyncio.sleep(_SILENT_S)
        if not self._registry.online:
            await self._ask_for_states(client, "")

    async def _ask_for_states(self, client: ServerClient, node: str) -> None:
        """Asks a node, or all with an empty `node`, to publish its states again: the broker may keep none."""
        now_s = time.monotonic()
        if now_s - self._asked_s.get(node, -math.inf) < _ASK_AGAIN_S:
            return
        self._asked_s = {known: at_s for known, at_s in self._asked_s.items() if now_s - at_s < _ASK_AGAIN_S}
        if len(self._asked_s) >= _MAX_ASKED:
            return
        self._asked_s[node] = now_s
        with contextlib.suppress(aiomqtt.MqttError):
            await client.publish(self._topics.state_request(node), b"", qos=0)

    async def _follow_states(self, client: ServerClient, in_group: bool) -> None:
        while True:
            await self._states_changed.wait()
            self._states_changed.clear()
            in_group = await self._update_membership(client, in_group)
            await asyncio.sleep(_MEMBERSHIP_S)

    async def _update_membership(self, client: ServerClient, in_group: bool) -> bool:
        """Joins or leaves the group. Returns whether the server is in it now."""
        idle = self._idle_reason()
        if idle is not None and self._idle is None:
            log.warning("event=idle reason=%r", idle)
        elif idle is None and self._idle is not None:
            log.info("event=serving")
        self._idle = idle
        if idle is None and not in_group:
            await client.must_subscribe(self._evidence, qos=1)
            await client.publish_confirmed(self._presence, _ONLINE, retain=True)
        elif idle is not None and in_group:
            await client.unsubscribe(self._evidence)
            await client.publish_confirmed(self._presence, b"", retain=True)
        return idle is None

    def _idle_reason(self) -> str | None:
        """Why the server should serve no camera; None if it should."""
        if not self._shared and not self._claim.held:
            return f"standing by: {_NO_SHARING}, or serve.group is empty, and another server serves"
        reason = None
        for camera_info in self._registry.online.values():
            if (reason := self._misfit(camera_info)) is None:
                return None
        if reason is None:
            return None
        return f"serving no camera: the model fits none of the cameras that are online: {reason}"

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if self._sharing_probe.observe(topic):
            return
        if (node := self._topics.node_of_head(topic)) is not None:
            self._receive_part(node, payload)
            return
        address = self._topics.address_of(topic)
        if topic == self._claim_topic:
            held = self._claim.held
            self._claim.observe(payload, time.monotonic(), retained)
            if held != self._claim.held:
                self._states_changed.set()
        elif topic.endswith("/presence"):
            self._claim.observe_presence(address.rpartition("/")[2], bool(payload), time.monotonic())
        elif not topic.endswith("/evidence"):
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


def _connection(
    broker: Broker | NatsCluster, session: Session, identifier: str, on_message: OnMessage, will: aiomqtt.Will
) -> BrokerConnection | NatsConnection:
    if isinstance(broker, NatsCluster):
        return NatsConnection(broker, session, identifier=identifier, on_message=on_message)
    return BrokerConnection(broker, session, identifier=identifier, on_message=on_message, will=will)
