"""The uplink bits that MQTT costs, estimated before they are sent.

A message is charged as its MQTT packet, TLS records, the headers of its TCP segments, and an acknowledgement that the
edge will send in return (for the broker's PUBACK and the reply). What the connection itself costs is charged as
it leaves (transport/charged_tcp.py); it is estimated here to plan a connection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sagelink.transport.header_sizes import ETHERNET, IPV4, IPV6, SACK_BYTES, SEGMENT, TCP_WITH_TIMESTAMPS

PUBLISH_ACKS = 1  # of the broker's PUBACK and of the reply together; a second one is charged as it leaves
_RECORD, _RECORD_OVERHEAD, _RECORD_OVERHEAD_12 = 16_384, 22, 29  # TLS 1.3, and TLS 1.2
_WEB_FRAME, _WEB_UPGRADE = 14, 400  # the longest header of a masked WebSocket frame, and the HTTP request before all
_SIGNATURE = 512  # bytes of an RSA signature of 4096 bits


@dataclass(frozen=True, slots=True)
class MqttCostModel:
    """The costs of one kind of connection."""

    tls: str | None = None  # such as TLSv1.3
    ipv6: bool = False
    web: bool = False  # MQTT over a WebSocket

    @property
    def header_bytes(self) -> int:
        """Headers of one packet, Ethernet's included, as an interface counts them."""
        return ETHERNET + (IPV6 if self.ipv6 else IPV4) + TCP_WITH_TIMESTAMPS

    def publish_bits(self, topic_bytes: int, payload_bytes: int, property_bytes: int) -> int:
        """Uplink bits of a QoS 1 PUBLISH and of the acknowledgements that this side sends because of it."""
        return self.packet_bits(publish_bytes(topic_bytes, payload_bytes, property_bytes), PUBLISH_ACKS)

    def packet_bits(self, mqtt_bytes: int, acks: int) -> int:
        """Uplink bits of one MQTT packet, and of `acks` empty TCP segments."""
        if self.web:
            mqtt_bytes += _WEB_FRAME
        if self.tls is not None:
            record_bytes = _RECORD_OVERHEAD if self.tls == "TLSv1.3" else _RECORD_OVERHEAD_12
            mqtt_bytes += record_bytes * math.ceil(mqtt_bytes / _RECORD)
        packets = math.ceil(mqtt_bytes / SEGMENT) + acks
        return 8 * (mqtt_bytes + packets * self.header_bytes + acks * SACK_BYTES)

    def connect_bits(self, certificate_bytes: int) -> int:
        """Uplink bits of a typical connection up to its announcements. `certificate_bytes`: of the client's
        certificates; 0 if it has none."""
        handshake_bytes = 0 if self.tls is None else 800 + certificate_bytes + (_SIGNATURE if certificate_bytes else 0)
        handshake_bytes += _WEB_UPGRADE if self.web else 0
        packets = 9 + self.web + (4 + handshake_bytes // SEGMENT if self.tls else 0)
        return 8 * (600 + handshake_bytes + packets * self.header_bytes)


def publish_bytes(topic_bytes: int, payload_bytes: int, property_bytes: int) -> int:
    """Bytes of an MQTT PUBLISH packet with a QoS of 1."""
    rest = 2 + topic_bytes + 2 + property_bytes + payload_bytes
    return 1 + varint_bytes(rest) + rest


def varint_bytes(number: int) -> int:
    """Bytes of an MQTT variable byte integer."""
    return 1 if number < 128 else 2 if number < 16_384 else 3 if number < 2_097_152 else 4
