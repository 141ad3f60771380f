"""The edge's end over MQTT: sends evidence, few messages at a time, and charges every uplink bit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVarTuple

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.envelope import MAX_MESSAGE_BYTES, MalformedMessage, claimed_seq
from sagelink.transport.head_messages import HeadPart, decode_status, encode_part, is_status
from sagelink.transport.head_sender import HeadOffers, with_heads
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
from sagelink.transport.operator_commands import Action, CommandOutcome, CommandReceiver, decode_command, encode_outcome
from sagelink.transport.picture_parts import (
    MAX_PART_BYTES,
    MIN_PART_BYTES,
    PicturePart,
    encode_picture_part,
    picture_message_bytes,
)
from sagelink.transport.remote_edge import RemoteEdgeLink
from sagelink.transport.wire_cost import Prepaid

log = logging.getLogger(__name__)
_Ts = TypeVarTuple("_Ts")

_MAX_SERVERS = 1000  # whose presence is stored
_DIGEST_EVERY_S = 60.0
_FIRST_DIGEST_S = 5.0
_LAST_ACK_S = 0.3  # from a PUBACK until the reply is acknowledged too
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
        heads: HeadOffers | None = None,
        on_command: Callable[[str, Action, bytes, str], str] | None = None,
        digest: Callable[[str], bytes] | None = None,
        digest_every_s: float = _DIGEST_EVERY_S,
    ) -> None:
        """`in_flight`: messages that the broker has not acknowledged or, with a QoS of 0, that no server has answered.
        `wire_ledger`, `must_connect`, `heads`: see RemoteEdgeLink. `on_budget` receives the payloads published to the
        node's budget topic, and whether the broker had retained them. `auth` seals messages and opens replies.
        `on_command` carries out an operator's command to a camera: see CommandReceiver; without `auth`, there are none.
        `digest` returns the message for a console about a camera, which is sent each `digest_every_s` seconds, first a
        few after the connection begins."""
        super().__init__(wire_ledger, must_connect, heads)
        self._broker_url = broker.url
        self._confirmed = broker.evidence_qos == 1  # the broker confirms evidence
        self._topics = topics
        self._node = node
        self._cameras = list(cameras)
        self._deadline_s = camera_info.deadline_s
        self._in_flight = in_flight
        self._on_budget = on_budget
        self._auth = auth
        self._cost_model = MqttCostModel("TLSv1.3" if broker.tls else None, web=broker.web_path is not None)
        self._session = secrets.token_bytes(SESSION_BYTES)
        announced = partial(with_heads, camera_info, self._heads.offers)
        self._announcer = Announcer(topics, node, self._cameras, announced, self._session)
        self._connection = self._reconnector = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-{node}-{secrets.token_hex(4)}",
            on_message=self._receive,
            will=aiomqtt.Will(topics.state(node), encode_state(self._session, False), qos=1, retain=True),
            charger=self._charger,
            connect_bits=self._connect_bits(broker),
            goodbye_bytes=self._goodbye_bytes(),
        )
        self._commands: dict[str, CommandReceiver] = {}  # by camera
        if on_command is not None and auth is not None:
            self._commands = {camera: CommandReceiver(partial(on_command, camera)) for camera in self._cameras}
        self._digest = digest
        self._digest_every_s = digest_every_s
        self._client: BrokerClient | None = None
        self._session_began = asyncio.Event()
        self._publishing: asyncio.TaskGroup | None = None
        self._ending = False  # the session has failed: its task group takes no further task
        self._unacknowledged = 0
        self._unanswered: dict[tuple[str, int], asyncio.Event] = {}  # evidence of QoS 0, by camera and `seq`
        self._known_servers: set[str] | None = None  # that are online; None: the broker has reported none yet
        self._retains = False  # the broker has delivered a retained message: it reports all servers
        self._limit = PacketLimit()
        self._refusals: dict[str, str | None] = {}  # the broker's last answer to evidence, by camera
        self._logged_commands: set[str] = set()  # reasons for which commands were ignored
        self._logged_replies: set[str] = set()  # reasons for which replies were ignored
        self._logged_subscriptions: set[str] = set()  # refusals of subscriptions

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

    def _goodbye_bytes(self) -> int:
        """Of the states of the cameras and of the node, when they are withdrawn."""
        states = self._announcer.states(online=False)
        return sum(publish_bytes(len(topic.encode()), len(state), 1) for topic, state in states.items())

    def max_message_bytes(self, camera: str) -> int:
        limit = self._limit.max_packet_bytes
        framing_bytes = self._packet_bytes(camera, 0) - varint_bytes(0) + varint_bytes(limit)
        return max(0, min(MAX_MESSAGE_BYTES, limit - framing_bytes))

    def _is_connected(self) -> bool:
        return self._client is not None and not self._ending

    def _congestion(self) -> str | None:
        if self._retains and self._known_servers is not None and not self._known_servers:
            return "no server is online"
        if self._unacknowledged >= self._in_flight:
            who = "the broker has not acknowledged" if self._confirmed else "no server has answered"
            return f"{who} {self._unacknowledged} messages"
        return None

    def _part_bits(self, message_bytes: int) -> int:
        topic_bytes = len(self._topics.head(self._node, "0" * 32, "0000000").encode())
        extra_bytes = EXTRA_BYTES if self._auth else 0
        properties = 1 if self._connection.v5 else 0
        packet_bytes = publish_bytes(topic_bytes, message_bytes + extra_bytes, properties)
        return self._cost_model.packet_bits(packet_bytes, acks=1)

    async def _transmit_part(self, part: HeadPart) -> None:
        assert self._client is not None
        message = encode_part(part)
        payload = message if self._auth is None else self._auth.seal(message, self._node, b"")
        topic = self._topics.head(self._node, part.fingerprint.hex(), str(part.offset))
        # Retained: a server that starts later gets it from the broker.
        refusal = await self._client.publish_confirmed(topic, payload, retain=True)
        self._note_refusal("head", refusal)

    def pay_event(self, camera: str, payload_bytes: int) -> bool:
        """Charges an event that is about to be published; False if the budget has no room for it now."""
        topic_bytes = len(self._topics.event(f"{self._node}/{camera}").encode())
        packet_bytes = publish_bytes(topic_bytes, payload_bytes, 1 if self._connection.v5 else 0)
        return self._try_prepay("", self._cost_model.packet_bits(packet_bytes, acks=1))

    def pay_picture(self, camera: str, event: str, rest_bytes: int) -> int:
        """Charges a part of the picture of an event, as long as nothing else needs the bits. Returns how many of its
        `rest_bytes` the part may have; 0 for none now."""
        if not self._is_connected():
            return 0
        idle, longest = self._charger.idle_bits(), min(rest_bytes, MAX_PART_BYTES)
        part_bytes = longest
        if idle is not None:
            part_bytes = bisect_right(range(longest + 1), idle, key=partial(self._picture_bits, camera, event)) - 1
        if part_bytes < min(longest, MIN_PART_BYTES):
            return 0
        return part_bytes if self._try_prepay("", self._picture_bits(camera, event, part_bytes)) else 0

    def _picture_bits(self, camera: str, event: str, part_bytes: int) -> int:
        topic_bytes = len(self._topics.picture(f"{self._node}/{camera}").encode())
        message_bytes = picture_message_bytes(event, part_bytes) + (EXTRA_BYTES if self._auth else 0)
        packet_bytes = publish_bytes(topic_bytes, message_bytes, 1 if self._connection.v5 else 0)
        return self._cost_model.packet_bits(packet_bytes, acks=1)

    async def publish_picture(self, camera: str, part: PicturePart) -> str | None:
        """Publishes a part that is charged. Returns and raises as `publish_event`; that nobody has subscribed is a
        reason too."""
        address, message = f"{self._node}/{camera}", encode_picture_part(part)
        payload = message if self._auth is None else self._auth.seal(message, address, b"")
        return await self._publish_apart(self._topics.picture(address), payload, for_somebody=True)

    async def connected(self) -> None:
        """Waits until the link is connected."""
        while not self._is_connected():
            self._session_began.clear()
            await self._session_began.wait()

    async def publish_event(self, camera: str, payload: bytes) -> str | None:
        """Publishes an event that is charged. Returns None when the broker has it, or why the broker refuses it.
        Raises ConnectionError when the connection ends first."""
        return await self._publish_apart(self._topics.event(f"{self._node}/{camera}"), payload)

    async def _publish_apart(self, topic: str, payload: bytes, for_somebody: bool = False) -> str | None:
        """Publishes in the session that is open now, whoever waits for the answer."""
        if self._publishing is None or self._ending:
            raise ConnectionError("the connection broke off")
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._publishing.create_task(self._in_session(self._publish_to, topic, payload, for_somebody, answer))
        return await answer

    async def _publish_to(
        self, topic: str, payload: bytes, for_somebody: bool, answer: asyncio.Future[str | None]
    ) -> None:
        assert self._client is not None
        try:
            refusal = await self._client.publish_confirmed(topic, payload, for_somebody=for_somebody)
            if not answer.done():
                answer.set_result(refusal)
        finally:
            if not answer.done():
                answer.set_exception(ConnectionError("the connection broke off before the broker confirmed a message"))

    async def _announce(self) -> None:
        if self._client is not None:
            self._heads.announced(self._cameras)
            await self._announcer.announce(self._client)

    async def _transmit(self, camera: str, message: bytes, prepaid: Prepaid) -> None:
        assert self._publishing is not None
        self._unacknowledged += 1
        self._limit.sent(self._packet_bytes(camera, len(message)), time.monotonic())
        publishing = self._publishing.create_task(self._in_session(self._publish, camera, message))
        publishing.add_done_callback(lambda _: self._close_later(prepaid, _LAST_ACK_S))

    async def _publish(self, camera: str, message: bytes) -> None:
        assert self._client is not None
        properties = None
        if self._connection.v5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, round(self._deadline_s))
        address = f"{self._node}/{camera}"
        sealed = message if self._auth is None else self._auth.seal(message, address, self._session)
        payload = self._session[:PREFIX_BYTES] + sealed
        topic, seq = self._topics.evidence(address), claimed_seq(message)
        refusal = None
        if self._confirmed:
            refusal = await self._client.publish_confirmed(topic, payload, properties=properties)
        else:
            await self._publish_until_answered(topic, payload, properties, (camera, seq or 0))
        self._limit.acknowledged(self._packet_bytes(camera, len(message)))
        self._unacknowledged -= 1
        self._changed.set()
        self._note_refusal(camera, refusal)
        if refusal is not None and seq is not None:
            self._deliver(camera, Undelivered(seq))

    async def _publish_until_answered(
        self, topic: str, payload: bytes, properties: Properties | None, key: tuple[str, int]
    ) -> None:
        """Publishes with QoS 0, and waits for the reply, or for the deadline of the frame."""
        assert self._client is not None
        answered = self._unanswered[key] = asyncio.Event()
        try:
            await self._client.publish(topic, payload, qos=0, properties=properties)
            async with asyncio.timeout(self._deadline_s):
                await answered.wait()
        except TimeoutError:
            pass
        finally:
            self._unanswered.pop(key, None)

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
        self._known_servers, self._retains = None, False
        optional = [(self._topics.presence("+"), 0, "frames are sent though no server may be online")]
        if self._on_budget is not None:
            optional.append((self._topics.budget(self._node), 1, "no budget can be set over MQTT"))
        if self._commands:
            commands = self._topics.command(f"{self._node}/+")
            optional.append((commands, 1, "no operator can change anything over MQTT"))
        async with asyncio.TaskGroup() as group:  # what is sent at once shares a segment
            group.create_task(client.must_subscribe(self._topics.verdict(f"{self._node}/+"), qos=0))
            for topic, qos, without in optional:
                group.create_task(self._subscribe(client, topic, qos, without))
        self._heads.forget()
        self._heads.announced(self._cameras)
        await self._announcer.announce(client)
        async with asyncio.TaskGroup() as group:
            for topic in self._announcer.followed:
                group.create_task(self._subscribe(client, topic, 0, "states are not repaired in time"))
        try:
            async with asyncio.TaskGroup() as group:
                self._client, self._publishing, self._unacknowledged, self._ending = client, group, 0, False
                self._connection.established()
                self._log_limit(client.max_packet_bytes)
                self._changed.set()
                self._session_began.set()
                group.create_task(self._in_session(self._announcer.repair, client))
                if self._digest is not None:
                    group.create_task(self._in_session(self._publish_digests, client, self._digest))
                await self._in_session(client.until_disconnected)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._announcer.withdraw(client)
            raise
        finally:
            self._client = self._publishing = None
            if self._limit.disconnected(time.monotonic()):
                self._log_limit(self._limit.max_packet_bytes)

    async def _in_session(self, work: Callable[[*_Ts], Awaitable[None]], *arguments: *_Ts) -> None:
        """Work whose failure ends the session. Between the failure and its end, the link counts as not connected."""
        try:
            await work(*arguments)
        except BaseException:
            self._ending = True
            raise

    async def _subscribe(self, client: BrokerClient, topic: str, qos: int, without: str) -> None:
        """A subscription that the link can do without; `without`: the consequence, for the log."""
        refusal = await client.subscribe_confirmed(topic, qos)
        if refusal is not None and refusal not in self._logged_subscriptions:
            self._logged_subscriptions.add(refusal)
            log.warning("event=subscription_refused reason=%r: %s", refusal, without)

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
        self._retains = self._retains or retained
        if topic == self._topics.budget(self._node):
            if self._on_budget is not None:
                self._on_budget(payload, retained)
        elif (address := self._topics.camera_of_command(topic)) is not None:
            self._take_command(address, payload)
        elif topic.endswith("/state/get"):
            self._announcer.requested(topic)
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
                return
            if is_status(reply):
                self._take_status(reply)
            else:
                self._take_reply(address.removeprefix(f"{self._node}/"), reply)

    def _take_reply(self, camera: str, reply: bytes) -> None:
        answered = self._unanswered.get((camera, claimed_seq(reply) or 0))
        if answered is not None:
            answered.set()
        self._deliver(camera, reply)

    def _take_command(self, address: str, payload: bytes) -> None:
        """Carries out a command of the operator, if it has the right MAC."""
        receiver = self._commands.get(address.removeprefix(f"{self._node}/"))
        if receiver is None or self._auth is None or self._publishing is None or self._ending:
            return
        try:
            outcome = receiver.take(decode_command(self._auth.open(payload, address, self._session)))
        except MalformedMessage as error:
            if str(error) not in self._logged_commands:
                self._logged_commands.add(str(error))
                log.warning("event=command_ignored camera=%s reason=%r", address, str(error))
            return
        if outcome is not None:
            self._publishing.create_task(self._in_session(self._publish_outcome, address, outcome))

    async def _publish_outcome(self, address: str, outcome: CommandOutcome) -> None:
        assert self._client is not None
        assert self._auth is not None
        payload, topic = (
            self._auth.seal(encode_outcome(outcome), address, self._session),
            self._topics.outcome(address),
        )
        await self._client.publish_confirmed(topic, payload)

    async def _publish_digests(self, client: BrokerClient, digest: Callable[[str], bytes]) -> None:
        """Publishes a digest of each camera from time to time."""
        pause_s = min(_FIRST_DIGEST_S, self._digest_every_s)
        while True:
            await asyncio.sleep(pause_s)
            for camera in self._cameras:
                await client.publish(self._topics.digest(f"{self._node}/{camera}"), digest(camera), qos=0)
            pause_s = self._digest_every_s

    def _take_status(self, data: bytes) -> None:
        with contextlib.suppress(MalformedMessage):
            self._heads.take(decode_status(data))
            self._changed.set()

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
