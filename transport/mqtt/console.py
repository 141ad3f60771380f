"""A console's end over MQTT: observes what edges and servers exchange, without a message of its own on any uplink.

A console subscribes beside the servers, in no group, and to every topic with QoS 0 but events: what it misses while the
broker queues for it is no loss to anybody. Messages are checked as a server checks them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.link import CameraInfo, Message, node_of
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.evidence_check import MAX_PAYLOAD_BYTES, EvidenceCheck
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics, decode_state
from sagelink.transport.mqtt.wire_cost import MqttCostModel
from sagelink.transport.wire import MalformedMessage

log = logging.getLogger(__name__)

_MAX_ADDRESS = 160  # characters of node/camera
_MAX_JSON_BYTES = 4096  # of an event or a digest
_MAX_REPLY_BYTES = 4096
_MAX_NODE_MESSAGES = 4000  # of a node in a second; further ones are ignored
_EXPIRY_PROPERTY_BYTES = 6


class CameraObserver(Protocol):
    """What learns of cameras. Times are seconds of the monotonic clock; `wire_bits` are estimates of uplink bits."""

    def online(self, camera: str, info: CameraInfo, now_s: float) -> None: ...

    def offline(self, camera: str, reason: str | None, now_s: float) -> None:
        """`reason`: None where the camera was offline before anybody observed it."""
        ...

    def evidence(self, message: Message, wire_bits: int) -> None: ...

    def reply(self, camera: str, data: bytes, now_s: float) -> None: ...

    def event(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None: ...

    def digest(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None: ...

    def ignored(self, node: str, reason: str) -> None:
        """A message that has no effect."""
        ...


class MqttConsoleLink:
    """Observes all cameras of a broker."""

    def __init__(self, broker: Broker, topics: Topics, observer: CameraObserver, auth: MessageAuth | None) -> None:
        """`auth`: opens messages; None where they have no MAC."""
        self.url = broker.url
        self._topics = topics
        self._observer = observer
        self._auth = auth
        self._cost_model = MqttCostModel(None if broker.tls is None else "TLSv1.3")
        self._registry = CameraRegistry(on_change=self._note_change)
        self._check = EvidenceCheck(self._registry, auth)
        self._ended: str | None = None  # camera whose own state says now that it is offline
        self._second = 0
        self._node_messages: Counter[str] = Counter()  # in this second
        self._connection = BrokerConnection(
            broker,
            self._run_session,
            identifier=f"sagelink-console-{secrets.token_hex(6)}",
            on_message=self._receive,
        )
        self._client: BrokerClient | None = None
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
        await self._entered.aclose()

    @property
    def trouble(self) -> str | None:
        """The reason why nothing is observed now; None while the broker is connected."""
        return self._connection.trouble

    async def _run_session(self, client: BrokerClient) -> None:
        topics, every = self._topics, "+/+"
        for topic in (topics.state("+"), topics.state(every), topics.evidence(every), topics.verdict(every)):
            await client.subscribe(topic, qos=0)
        await client.subscribe(topics.event(every), qos=1)
        await client.subscribe(topics.digest(every), qos=0)
        self._client = client
        self._connection.established()
        try:
            await client.until_disconnected()
        finally:
            self._client = None

    def _receive(self, topic: str, payload: bytes, _retained: bool) -> None:
        now_s = time.monotonic()
        address, kind = self._topics.address_of(topic), topic.rpartition("/")[2]
        node = node_of(address)
        if len(address) > _MAX_ADDRESS:
            self._observer.ignored(node[:_MAX_ADDRESS], "long_name")
        elif not self._admits(node, now_s):
            self._observer.ignored(node, "flood")
        elif kind == "state":
            self._take_state(address, payload, now_s)
        elif kind == "evidence":
            self._take_evidence(address, topic, payload)
        elif address not in self._registry.online:
            self._observer.ignored(node, "not_announced")
        elif kind == "verdict":
            self._take_reply(address, payload, now_s)
        elif (record := _parse_object(payload)) is None:
            self._observer.ignored(node, "malformed")
        else:
            bits = self._cost_model.publish_bits(len(topic.encode()), len(payload), 1)
            take = self._observer.event if kind == "event" else self._observer.digest
            take(address, record, bits, now_s)

    def _admits(self, node: str, now_s: float) -> bool:
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._node_messages.clear()
        self._node_messages[node] += 1
        return self._node_messages[node] <= _MAX_NODE_MESSAGES

    def _take_state(self, address: str, payload: bytes, now_s: float) -> None:
        is_camera = "/" in address
        state = decode_state(payload, is_camera)
        self._ended = address if is_camera and (state is None or not state.online) else None
        self._registry.update(address, payload)
        if is_camera and state is not None and address not in self._registry.online:
            self._observer.offline(address, None, now_s)

    def _note_change(self, address: str) -> None:
        info, now_s = self._registry.online.get(address), time.monotonic()
        if info is not None:
            self._observer.online(address, info, now_s)
        else:
            said = "the run ended" if address == self._ended else "the connection was lost"
            self._observer.offline(address, said, now_s)

    def _take_evidence(self, address: str, topic: str, payload: bytes) -> None:
        if not PREFIX_BYTES <= len(payload) <= MAX_PAYLOAD_BYTES:
            return
        bits = self._cost_model.publish_bits(len(topic.encode()), len(payload), _EXPIRY_PROPERTY_BYTES)
        self._observer.evidence(self._check.message(address, payload), bits)

    def _take_reply(self, address: str, payload: bytes, now_s: float) -> None:
        session = self._registry.session_of(address) or ""
        prefix, data = payload[:PREFIX_BYTES], payload[PREFIX_BYTES:]
        if len(payload) > _MAX_REPLY_BYTES or not session.startswith(prefix.hex()):
            self._observer.ignored(node_of(address), "other_session")
            return
        try:
            data = data if self._auth is None else self._auth.open(data, address, bytes.fromhex(session))
        except MalformedMessage:
            self._observer.ignored(node_of(address), "mac")
            return
        self._observer.reply(address, data, now_s)


def _parse_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a payload; None for anything else."""
    if len(payload) > _MAX_JSON_BYTES:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(payload)
        return value if isinstance(value, dict) else None
    return None
