"""A console's end over MQTT: observes what edges and servers exchange, and sends an operator's changes to cameras.

A console subscribes beside the servers, in no group, and to every topic with QoS 0 but events: what it misses while the
broker queues for it is no loss to anybody. Messages are checked as a server checks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter, OrderedDict
from contextlib import AsyncExitStack
from typing import Any, Self

import aiomqtt

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.tasks import background
from sagelink.transport.camera_observer import CameraObserver
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.head_messages import HeadAssembly, decode_part
from sagelink.transport.link import CameraInfo, node_of
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient, explain
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.evidence_check import MAX_PAYLOAD_BYTES, EvidenceCheck
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics, decode_state
from sagelink.transport.mqtt.wire_cost import MqttCostModel
from sagelink.transport.operator_commands import (
    Action,
    CommandOutcome,
    OperatorCommand,
    decode_outcome,
    encode_command,
)
from sagelink.transport.picture_parts import decode_picture_part

log = logging.getLogger(__name__)

_MAX_ADDRESS = 160  # characters of node/camera
_MAX_JSON_BYTES = 4096  # of an event or a digest
_MAX_REPLY_BYTES = 4096
_MAX_NODE_MESSAGES = 4000  # of a node in a second; further ones are ignored
_EXPIRY_PROPERTY_BYTES = 6
_MAX_HEADS = 16  # that are looked for at a time
_OUTCOME_S = 20.0  # longest wait for a camera's answer: its uplink may be busy


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
        self._heads: OrderedDict[bytes, HeadAssembly | None] = OrderedDict()  # that are looked for, by fingerprint
        self._heads_changed = asyncio.Event()
        self._client: BrokerClient | None = None
        self._last_number = 0  # of a command of anybody
        self._commands: dict[tuple[str, int], asyncio.Future[CommandOutcome]] = {}  # by camera and number
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

    @property
    def change_refusal(self) -> str | None:
        """Why this console can change no camera; None if it can."""
        if self._auth is None:
            return "mqtt.mac_key_file is not set: cameras take changes only from who has their key"
        return None

    async def change(self, camera: str, values: bytes) -> CommandOutcome:
        """Asks a camera to change settings; `values`: JSON object. Returns its answer. Raises SagelinkError when the
        camera is not online, or does not answer."""
        session, auth = self._registry.session_of(camera), self._auth
        if auth is None or session is None or self._client is None:
            reason = self.change_refusal or self.trouble or f"{camera} is not online"
            raise SagelinkError(reason)
        number = self._last_number = max(time.time_ns(), self._last_number + 1)
        command = encode_command(OperatorCommand(number, Action.CHANGE, change=values))
        answer: asyncio.Future[CommandOutcome] = asyncio.get_running_loop().create_future()
        self._commands[camera, number] = answer
        try:
            async with asyncio.timeout(_OUTCOME_S):
                sealed = auth.seal(command, camera, bytes.fromhex(session))
                refusal = await self._client.publish_confirmed(self._topics.command(camera), sealed)
                if refusal is not None:
                    raise SagelinkError(refusal)
                return await answer
        except (aiomqtt.MqttError, TimeoutError) as error:
            reason = explain(error) if isinstance(error, aiomqtt.MqttError) else f"no answer within {_OUTCOME_S:.0f} s"
            raise SagelinkError(f"{camera}: {reason}; the change may still come into effect") from None
        finally:
            del self._commands[camera, number]

    async def _run_session(self, client: BrokerClient) -> None:
        topics, every = self._topics, "+/+"
        for topic in (topics.state("+"), topics.state(every), topics.evidence(every), topics.verdict(every)):
            await client.must_subscribe(topic, 0)
        await client.must_subscribe(topics.event(every), 1)
        await client.must_subscribe(topics.picture(every), 1)
        await client.must_subscribe(topics.digest(every), 0)
        if self._auth is not None:
            await client.must_subscribe(topics.outcome(every), 1)
        self._client = client
        self._connection.established()
        self._heads_changed.set()
        try:
            async with background(self._seek_heads(client)):
                await client.until_disconnected()
        finally:
            self._client = None

    async def _seek_heads(self, client: BrokerClient) -> None:
        """Subscribes to the parts of heads that the broker has stored."""
        subscribed: set[bytes] = set()
        while True:
            await self._heads_changed.wait()
            self._heads_changed.clear()
            for fingerprint in self._heads.keys() - subscribed:
                await client.must_subscribe(self._topics.head("+", fingerprint.hex(), "+"), 1)
            for fingerprint in subscribed - self._heads.keys():
                await client.unsubscribe(self._topics.head("+", fingerprint.hex(), "+"))
            subscribed = {*self._heads}

    def _note_heads(self, info: CameraInfo) -> None:
        for fingerprint in map(bytes.fromhex, info.heads):
            if fingerprint not in self._heads and self._observer.lacks_head(fingerprint):
                self._heads[fingerprint] = None
                if len(self._heads) > _MAX_HEADS:
                    self._heads.popitem(last=False)
                self._heads_changed.set()

    def _take_part(self, node: str, payload: bytes) -> None:
        """A part of a head; one that is wrong is ignored."""
        try:
            part = decode_part(payload if self._auth is None else self._auth.open(payload, node, b""))
            if part.fingerprint not in self._heads:
                return
            assembly = self._heads[part.fingerprint] or HeadAssembly(part.fingerprint, part.total_bytes)
            self._heads[part.fingerprint] = assembly
            content = assembly.add(part)
        except MalformedMessage:
            self._observer.ignored(node, "malformed")
            return
        if content is not None:
            del self._heads[part.fingerprint]
            self._heads_changed.set()
            self._observer.head(content)

    def _receive(self, topic: str, payload: bytes, _retained: bool) -> None:
        now_s = time.monotonic()
        address, kind = self._topics.address_of(topic), topic.rpartition("/")[2]
        node = node_of(address)
        if len(address) > _MAX_ADDRESS:
            self._observer.ignored(node[:_MAX_ADDRESS], "long_name")
        elif not self._admits(node, now_s):
            self._observer.ignored(node, "flood")
        elif (head_node := self._topics.node_of_head(topic)) is not None:
            self._take_part(head_node, payload)
        elif kind == "state":
            self._take_state(address, payload, now_s)
        elif kind == "evidence":
            self._take_evidence(address, topic, payload)
        elif address not in self._registry.online:
            self._observer.ignored(node, "not_announced")
        elif kind == "verdict":
            self._take_reply(address, payload, now_s)
        elif kind == "outcome":
            self._take_outcome(address, payload)
        elif kind == "picture":
            self._take_picture(address, topic, payload, now_s)
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
            self._note_heads(info)
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

    def _take_picture(self, address: str, topic: str, payload: bytes, now_s: float) -> None:
        bits = self._cost_model.publish_bits(len(topic.encode()), len(payload), 1)
        try:
            part = decode_picture_part(payload if self._auth is None else self._auth.open(payload, address, b""))
        except MalformedMessage:
            self._observer.ignored(node_of(address), "malformed" if self._auth is None else "mac")
            return
        self._observer.picture(address, part, bits, now_s)

    def _take_outcome(self, address: str, payload: bytes) -> None:
        """The answer of a camera to a command, of this console or of another operator."""
        session = self._registry.session_of(address)
        if self._auth is None or session is None:
            return
        try:
            outcome = decode_outcome(self._auth.open(payload, address, bytes.fromhex(session)))
        except MalformedMessage:
            self._observer.ignored(node_of(address), "mac")
            return
        self._last_number = max(self._last_number, outcome.number)
        if outcome.done and (settings := _parse_object(outcome.text.encode())) is not None:
            self._observer.settings(address, settings)
        waiting = self._commands.get((address, outcome.number))
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)


def _parse_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object in a payload; None for anything else."""
    if len(payload) > _MAX_JSON_BYTES:
        return None
    with contextlib.suppress(DocumentError):
        value = parse_json(payload)
        return value if isinstance(value, dict) else None
    return None
