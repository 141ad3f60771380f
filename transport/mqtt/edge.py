"""The edge's end over MQTT: sends evidence, few messages at a time, and charges every uplink bit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import aiomqtt

from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.envelope import MalformedMessage, claimed_seq
from sagelink.transport.head_messages import HeadPart, decode_status, encode_part, is_status
from sagelink.transport.head_sender import HeadOffers, with_heads
from sagelink.transport.link import CameraInfo
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.announcer import Announcer
from sagelink.transport.mqtt.command_intake import CommandIntake, OnCommand
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.edge_costs import EdgeCosts, goodbye_bytes
from sagelink.transport.mqtt.evidence_publisher import EvidencePublisher
from sagelink.transport.mqtt.known_servers import KnownServers
from sagelink.transport.mqtt.open_session import OpenSession
from sagelink.transport.mqtt.topics import PREFIX_BYTES, SESSION_BYTES, Topics, encode_state
from sagelink.transport.mqtt.wire_cost import MqttCostModel
from sagelink.transport.picture_parts import MAX_PART_BYTES, MIN_PART_BYTES, PicturePart, encode_picture_part
from sagelink.transport.remote_edge import RemoteEdgeLink
from sagelink.transport.wire_cost import Prepaid

log = logging.getLogger(__name__)

_DIGEST_EVERY_S = 60.0
_FIRST_DIGEST_S = 5.0
_LAST_ACK_S = 0.3  # from a PUBACK until the reply is acknowledged too


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
        on_command: OnCommand | None = None,
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
        self._topics = topics
        self._node = node
        self._cameras = list(cameras)
        self._on_budget = on_budget
        self._auth = auth
        self._digest = digest
        self._digest_every_s = digest_every_s
        self._run_id = secrets.token_bytes(SESSION_BYTES)  # of the session that the node announces
        announced = partial(with_heads, camera_info, self._heads.offers)
        self._announcer = Announcer(topics, node, self._cameras, announced, self._run_id)
        cost_model = MqttCostModel("TLSv1.3" if broker.tls else None, web=broker.web_path is not None)
        self._costs = EdgeCosts(topics, node, cost_model, auth is not None, lambda: self._connection.v5)
        self._connection = self._reconnector = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-{node}-{secrets.token_hex(4)}",
            on_message=self._receive,
            will=aiomqtt.Will(topics.state(node), encode_state(self._run_id, False), qos=1, retain=True),
            charger=self._charger,
            connect_bits=self._costs.connect_bits(broker.certificate_bytes, self._announcer.states(online=True)),
            goodbye_bytes=goodbye_bytes(self._announcer.states(online=False)),
        )
        self._session = OpenSession()
        self._servers = KnownServers()
        self._evidence = EvidencePublisher(
            self._session,
            topics,
            node,
            self._cameras,
            self._costs,
            broker_url=broker.url,
            confirmed=broker.evidence_qos == 1,
            in_flight=in_flight,
            deadline_s=camera_info.deadline_s,
            auth=auth,
            run_id=self._run_id,
            v5=lambda: self._connection.v5,
            on_undelivered=self._deliver,
            on_change=self._changed.set,
        )
        self._commands: CommandIntake | None = None
        if on_command is not None and auth is not None:
            self._commands = CommandIntake(self._session, topics, node, cameras, on_command, auth, self._run_id)
        self._logged_replies: set[str] = set()  # reasons for which replies were ignored
        self._logged_subscriptions: set[str] = set()  # refusals of subscriptions

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._costs.evidence_bits(camera, message_bytes)

    def max_message_bytes(self, camera: str) -> int:
        return self._evidence.max_message_bytes(camera)

    def _is_connected(self) -> bool:
        return self._session.is_open

    def _congestion(self) -> str | None:
        return "no server is online" if self._servers.none_online else self._evidence.congestion()

    def _part_bits(self, message_bytes: int) -> int:
        return self._costs.head_part_bits(message_bytes)

    async def _transmit_part(self, part: HeadPart) -> None:
        assert self._session.client is not None
        message = encode_part(part)
        payload = message if self._auth is None else self._auth.seal(message, self._node, b"")
        topic = self._topics.head(self._node, part.fingerprint.hex(), str(part.offset))
        # Retained: a server that starts later gets it from the broker.
        refusal = await self._session.client.publish_confirmed(topic, payload, retain=True)
        self._evidence.note_refusal("head", refusal)

    def pay_event(self, camera: str, payload_bytes: int) -> bool:
        """Charges an event that is about to be published; False if the budget has no room for it now."""
        return self._try_prepay("", self._costs.event_bits(camera, payload_bytes))

    def pay_picture(self, camera: str, event: str, rest_bytes: int) -> int:
        """Charges a part of the picture of an event, as long as nothing else needs the bits. Returns how many of its
        `rest_bytes` the part may have; 0 for none now."""
        if not self._is_connected():
            return 0
        idle, longest = self._charger.idle_bits(), min(rest_bytes, MAX_PART_BYTES)
        bits = partial(self._costs.picture_bits, camera, event)
        part_bytes = longest if idle is None else bisect_right(range(longest + 1), idle, key=bits) - 1
        if part_bytes < min(longest, MIN_PART_BYTES):
            return 0
        return part_bytes if self._try_prepay("", bits(part_bytes)) else 0

    async def publish_picture(self, camera: str, part: PicturePart) -> str | None:
        """Publishes a part that is charged. Returns and raises as `publish_event`; that nobody has subscribed is a
        reason too."""
        address, message = f"{self._node}/{camera}", encode_picture_part(part)
        payload = message if self._auth is None else self._auth.seal(message, address, b"")
        return await self._session.publish(self._topics.picture(address), payload, for_somebody=True)

    async def connected(self) -> None:
        """Waits until the link is connected."""
        await self._session.opened()

    async def publish_event(self, camera: str, payload: bytes) -> str | None:
        """Publishes an event that is charged. Returns None when the broker has it, or why the broker refuses it.
        Raises ConnectionError when the connection ends first."""
        return await self._session.publish(self._topics.event(f"{self._node}/{camera}"), payload)

    async def _announce(self) -> None:
        if self._session.client is not None:
            self._heads.announced(self._cameras)
            await self._announcer.announce(self._session.client)

    async def _transmit(self, camera: str, message: bytes, prepaid: Prepaid) -> None:
        publishing = self._evidence.start(camera, message)
        publishing.add_done_callback(lambda _: self._close_later(prepaid, _LAST_ACK_S))

    async def _run_session(self, client: BrokerClient) -> None:
        """Serves one connection until it ends."""
        self._costs.connected(client.ipv6, client.tls_version)
        self._evidence.connected(client.max_packet_bytes)
        self._servers.connected()
        optional = [(self._topics.presence("+"), 0, "frames are sent though no server may be online")]
        if self._on_budget is not None:
            optional.append((self._topics.budget(self._node), 1, "no budget can be set over MQTT"))
        if self._commands is not None:
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
            async with self._session.running(client):
                self._connection.established()
                self._changed.set()
                self._session.began()
                self._session.start(self._announcer.repair, client)
                if self._digest is not None:
                    self._session.start(self._publish_digests, client, self._digest)
                await self._session.run(client.until_disconnected)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._announcer.withdraw(client)
            raise
        finally:
            self._evidence.disconnected()

    async def _subscribe(self, client: BrokerClient, topic: str, qos: int, without: str) -> None:
        """A subscription that the link can do without; `without`: the consequence, for the log."""
        refusal = await client.subscribe_confirmed(topic, qos)
        if refusal is not None and refusal not in self._logged_subscriptions:
            self._logged_subscriptions.add(refusal)
            log.warning("event=subscription_refused reason=%r: %s", refusal, without)

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if retained:
            self._servers.note_retained()
        if topic == self._topics.budget(self._node):
            if self._on_budget is not None:
                self._on_budget(payload, retained)
        elif (address := self._topics.camera_of_command(topic)) is not None:
            if self._commands is not None:
                self._commands.take(address, payload)
        elif topic.endswith("/state/get"):
            self._announcer.requested(topic)
        elif topic.endswith("/state"):
            self._announcer.observe(topic, payload)
        elif topic.endswith("/presence"):
            self._servers.observe(topic, online=bool(payload))
            self._changed.set()
        elif payload[:PREFIX_BYTES] == self._run_id[:PREFIX_BYTES]:  # else: a reply to an earlier run of the same name
            address = self._topics.address_of(topic)
            reply = payload[PREFIX_BYTES:]
            try:
                reply = reply if self._auth is None else self._auth.open(reply, address, self._run_id)
            except MalformedMessage as error:
                self._ignore_reply(str(error))
                return
            if is_status(reply):
                self._take_status(reply)
            else:
                self._take_reply(address.removeprefix(f"{self._node}/"), reply)

    def _take_reply(self, camera: str, reply: bytes) -> None:
        self._evidence.answered(camera, claimed_seq(reply) or 0)
        self._deliver(camera, reply)

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

    def _ignore_reply(self, reason: str) -> None:
        if reason not in self._logged_replies:
            self._logged_replies.add(reason)
            log.warning("event=reply_ignored reason=%r: the server has another key, or the reply is forged", reason)
