"""Publishes evidence messages over MQTT, few at a time, no longer than the broker's packet limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sagelink.transport.envelope import MAX_MESSAGE_BYTES, claimed_seq
from sagelink.transport.link import Undelivered
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.edge_costs import EdgeCosts
from sagelink.transport.mqtt.open_session import OpenSession
from sagelink.transport.mqtt.packet_limit import PacketLimit
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics

log = logging.getLogger(__name__)


class EvidencePublisher:
    """The evidence of one run."""

    def __init__(
        self,
        session: OpenSession,
        topics: Topics,
        node: str,
        cameras: Sequence[str],
        costs: EdgeCosts,
        *,
        broker_url: str,
        confirmed: bool,
        in_flight: int,
        deadline_s: float,
        auth: MessageAuth | None,
        run_id: bytes,
        v5: Callable[[], bool],
        on_undelivered: Callable[[str, Undelivered], None],
        on_change: Callable[[], None],
    ) -> None:
        """`confirmed`: the broker confirms evidence (QoS 1). `in_flight`: messages that the broker has not acknowledged
        or, with a QoS of 0, that no server has answered. `deadline_s`: of a frame. `run_id`: the session that the node
        announces. `on_undelivered` gets what the broker refuses; `on_change` is called when `congestion` may have
        changed."""
        self._session = session
        self._topics = topics
        self._node = node
        self._cameras = cameras
        self._costs = costs
        self._broker_url = broker_url
        self._confirmed = confirmed
        self._in_flight = in_flight
        self._deadline_s = deadline_s
        self._auth = auth
        self._run_id = run_id
        self._v5 = v5
        self._on_undelivered = on_undelivered
        self._on_change = on_change
        self.unacknowledged = 0
        self._unanswered: dict[tuple[str, int], asyncio.Event] = {}  # evidence of QoS 0, by camera and `seq`
        self._limit = PacketLimit()
        self._refusals: dict[str, str | None] = {}  # the broker's last answer, by camera

    def max_message_bytes(self, camera: str) -> int:
        return self._costs.max_evidence_bytes(camera, self._limit.max_packet_bytes)

    def connected(self, max_packet_bytes: int | None) -> None:
        """`max_packet_bytes`: the limit that the broker has named; None if it has named none."""
        self.unacknowledged = 0
        self._limit.connected(max_packet_bytes)
        if max_packet_bytes is not None:
            self._log_limit()

    def disconnected(self) -> None:
        """A message that was too long may be why: then messages are shorter from now on."""
        if self._limit.disconnected(time.monotonic()):
            self._log_limit()

    def _log_limit(self) -> None:
        """Logs a limit of the broker that may keep messages short."""
        longest = min(map(self.max_message_bytes, self._cameras), default=MAX_MESSAGE_BYTES)
        if longest < MAX_MESSAGE_BYTES:
            log.warning(
                "event=packet_limit broker=%s max_packet_bytes=%d: messages have at most %d bytes, whatever "
                "encode.max_message says",
                self._broker_url,
                self._limit.max_packet_bytes,
                longest,
            )

    def congestion(self) -> str | None:
        """The reason why no message may be published now; None if one may."""
        if self.unacknowledged < self._in_flight:
            return None
        who = "the broker has not acknowledged" if self._confirmed else "no server has answered"
        return f"{who} {self.unacknowledged} messages"

    def start(self, camera: str, message: bytes) -> asyncio.Task[None]:
        """Starts to publish a message; the task ends when it is acknowledged or answered."""
        self.unacknowledged += 1
        self._limit.sent(self._costs.evidence_bytes(camera, len(message)), time.monotonic())
        return self._session.start(self._publish, camera, message)

    def answered(self, camera: str, seq: int) -> None:
        """A server has answered a frame."""
        answered = self._unanswered.get((camera, seq))
        if answered is not None:
            answered.set()

    def note_refusal(self, camera: str, refusal: str | None) -> None:
        """Logs each change of the broker's answers to a camera's messages. `refusal`: None if it takes them."""
        if refusal == self._refusals.get(camera):
            return
        self._refusals[camera] = refusal
        if refusal is not None:
            log.warning("event=publish_refused camera=%s reason=%r", camera, refusal)
        else:
            log.info("event=publish_accepted camera=%s", camera)

    async def _publish(self, camera: str, message: bytes) -> None:
        assert self._session.client is not None
        properties = None
        if self._v5():
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, round(self._deadline_s))
        address = f"{self._node}/{camera}"
        sealed = message if self._auth is None else self._auth.seal(message, address, self._run_id)
        payload = self._run_id[:PREFIX_BYTES] + sealed
        topic, seq = self._topics.evidence(address), claimed_seq(message)
        refusal = None
        if self._confirmed:
            refusal = await self._session.client.publish_confirmed(topic, payload, properties=properties)
        else:
            await self._publish_until_answered(topic, payload, properties, (camera, seq or 0))
        self._limit.acknowledged(self._costs.evidence_bytes(camera, len(message)))
        self.unacknowledged -= 1
        self._on_change()
        self.note_refusal(camera, refusal)
        if refusal is not None and seq is not None:
            self._on_undelivered(camera, Undelivered(seq))

    async def _publish_until_answered(
        self, topic: str, payload: bytes, properties: Properties | None, key: tuple[str, int]
    ) -> None:
        """Publishes with QoS 0, and waits for the reply, or for the deadline of the frame."""
        assert self._session.client is not None
        answered = self._unanswered[key] = asyncio.Event()
        try:
            await self._session.client.publish(topic, payload, qos=0, properties=properties)
            async with asyncio.timeout(self._deadline_s):
                await answered.wait()
        except TimeoutError:
            pass
        finally:
            self._unanswered.pop(key, None)
