"""The uplink bits that MQTT costs: estimates charged before sending, and the kernel's counters to check them.

A message is charged as its MQTT packet, TLS records, the headers of its TCP segments, and the two acknowledgements that
the edge will send in return (for the broker's PUBACK and for the reply). The cost of connecting, keep-alives
and retransmissions is uncertain: Linux counts a socket's segments and bytes, and the excess over the charges is charged
as well.
"""

from __future__ import annotations

import math
import socket
import struct
from dataclasses import dataclass

ETHERNET, IPV4, IPV6, TCP_WITH_TIMESTAMPS = 14, 20, 40, 32  # header bytes
SEGMENT = 1448  # bytes of TCP payload in a packet of 1500 bytes, timestamps on
PUBLISH_ACKS = 2  # of the broker's PUBACK, and of the reply
_RECORD, _RECORD_OVERHEAD = 16_384, 22  # TLS 1.3

# Offsets in struct tcp_info of linux/tcp.h: segs_out at 136, bytes_sent (retransmissions included) at 200.
_TCP_INFO_BYTES, _SEGS_OUT, _BYTES_SENT = 208, 136, 200


@dataclass(frozen=True, slots=True)
class MqttCostModel:
    """The costs of one kind of connection."""

    tls: bool = False
    ipv6: bool = False
    client_certificate: bool = False

    @property
    def header_bytes(self) -> int:
        """Headers of one packet, Ethernet's included, as an interface counts them."""
        return ETHERNET + (IPV6 if self.ipv6 else IPV4) + TCP_WITH_TIMESTAMPS

    def publish_bits(self, topic_bytes: int, payload_bytes: int, property_bytes: int) -> int:
        """Uplink bits of a QoS 1 PUBLISH and of the acknowledgements that this side sends because of it."""
        return self.packet_bits(publish_bytes(topic_bytes, payload_bytes, property_bytes), PUBLISH_ACKS)

    def packet_bits(self, mqtt_bytes: int, acks: int) -> int:
        """Uplink bits of one MQTT packet, and of `acks` empty TCP segments."""
        if self.tls:
            mqtt_bytes += _RECORD_OVERHEAD * math.ceil(mqtt_bytes / _RECORD)
        packets = math.ceil(mqtt_bytes / SEGMENT) + acks
        return 8 * (mqtt_bytes + packets * self.header_bytes)

    def connect_bits(self) -> int:
        """Uplink bits of a typical connection up to its first message; the kernel's counters correct it."""
        handshake = (1000 + 2500 * self.client_certificate) if self.tls else 0
        return 8 * (600 + handshake + (9 + 3 * self.tls) * self.header_bytes)


def publish_bytes(topic_bytes: int, payload_bytes: int, property_bytes: int) -> int:
    """Bytes of an MQTT PUBLISH packet with a QoS of 1."""
    rest = 2 + topic_bytes + 2 + property_bytes + payload_bytes
    return 1 + varint_bytes(rest) + rest


def varint_bytes(number: int) -> int:
    """Bytes of an MQTT variable byte integer."""
    return 1 if number < 128 else 2 if number < 16_384 else 3 if number < 2_097_152 else 4


def counted_bits(connection: socket.socket, header_bytes: int) -> int | None:
    """Uplink bits of a TCP connection so far, from the kernel's counters; None where there are none (not on Linux)."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    (segments,) = struct.unpack_from("=I", info, _SEGS_OUT)
    (sent_bytes,) = struct.unpack_from("=Q", info, _BYTES_SENT)
    return 8 * (int(sent_bytes) + int(segments) * header_bytes)
