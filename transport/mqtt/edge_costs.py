"""Computes the uplink bits of each message that an edge publishes over MQTT, before it is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.message_auth import EXTRA_BYTES
from sagelink.transport.mqtt.topics import PREFIX_BYTES, Topics
from sagelink.transport.mqtt.wire_cost import PUBLISH_ACKS, MqttCostModel, publish_bytes, varint_bytes
from sagelink.transport.picture_parts import picture_message_bytes

_EXPIRY_PROPERTY_BYTES = 6  # length of the properties, and the message expiry interval


class EdgeCosts:
    """The costs of one node's messages."""

    def __init__(self, topics: Topics, node: str, model: MqttCostModel, mac: bool, v5: Callable[[], bool]) -> None:
        """`mac`: messages carry one. `v5`: whether the connection is one of MQTT 5."""
        self._topics = topics
        self._node = node
        self._model = model
        self._mac_bytes = EXTRA_BYTES if mac else 0
        self._v5 = v5

    def connected(self, ipv6: bool, tls: str | None) -> None:
        """Takes what the open connection is. `tls`: its version."""
        self._model = replace(self._model, ipv6=ipv6, tls=tls)

    def connect_bits(self, certificate_bytes: int, states: Mapping[str, bytes]) -> int:
        """Of setting up a connection, announcements and their acknowledgements included. `states`: by topic."""
        packets = (publish_bytes(len(topic.encode()), len(state), 1) for topic, state in states.items())
        bits = sum(self._model.packet_bits(packet_bytes, acks=1) for packet_bytes in packets)
        return self._model.connect_bits(certificate_bytes) + bits

    def evidence_bytes(self, camera: str, message_bytes: int) -> int:
        """The MQTT packet of an evidence message."""
        topic_bytes = len(self._topics.evidence(f"{self._node}/{camera}").encode())
        properties = _EXPIRY_PROPERTY_BYTES if self._v5() else 0
        return publish_bytes(topic_bytes, PREFIX_BYTES + message_bytes + self._mac_bytes, properties)

    def evidence_bits(self, camera: str, message_bytes: int) -> int:
        return self._model.packet_bits(self.evidence_bytes(camera, message_bytes), PUBLISH_ACKS)

    def max_evidence_bytes(self, camera: str, max_packet_bytes: int) -> int:
        """The longest message whose packet has at most `max_packet_bytes`."""
        framing_bytes = self.evidence_bytes(camera, 0) - varint_bytes(0) + varint_bytes(max_packet_bytes)
        return max(0, min(MAX_MESSAGE_BYTES, max_packet_bytes - framing_bytes))

    def head_part_bits(self, message_bytes: int) -> int:
        topic = self._topics.head(self._node, "0" * 32, "0000000")
        return self._publish_bits(topic, message_bytes + self._mac_bytes)

    def event_bits(self, camera: str, payload_bytes: int) -> int:
        return self._publish_bits(self._topics.event(f"{self._node}/{camera}"), payload_bytes)

    def picture_bits(self, camera: str, event: str, part_bytes: int) -> int:
        """Of a part of the picture of an event."""
        message_bytes = picture_message_bytes(event, part_bytes) + self._mac_bytes
        return self._publish_bits(self._topics.picture(f"{self._node}/{camera}"), message_bytes)

    def _publish_bits(self, topic: str, payload_bytes: int) -> int:
        packet_bytes = publish_bytes(len(topic.encode()), payload_bytes, 1 if self._v5() else 0)
        return self._model.packet_bits(packet_bytes, acks=1)


def goodbye_bytes(states: Mapping[str, bytes]) -> int:
    """Of the states of the cameras and of the node, by topic, when they are withdrawn."""
    return sum(publish_bytes(len(topic.encode()), len(state), 1) for topic, state in states.items())
