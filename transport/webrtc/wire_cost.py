"""What WebRTC costs on the uplink: the estimate charged before sending, and a count of every datagram that leaves.

A message is charged as its datagrams, each with the headers of SCTP, DTLS, UDP, IP and Ethernet, and the
acknowledgements that the edge will send for the two packets of the verdict. Connecting, heartbeats, ICE consent and
what SCTP sends beyond that cannot be known so well: whatever leaves the socket is counted, and the excess is charged.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sagelink.transport.webrtc.datagrams import DATAGRAM
from sagelink.transport.wire import PART_BYTES

if TYPE_CHECKING:
    from aioice.ice import Connection

ETHERNET, IPV4, IPV6, UDP = 14, 20, 40, 8  # header bytes
_RELAYED = 36  # bytes of a TURN Send indication, at most
_RELAYED_TCP = 45  # more of the way to a relay over TCP: its longer header, and an acknowledgement for every second
_DTLS = 13 + 8 + 16  # header of a record, nonce and tag of AES-GCM (RFC 6347, RFC 5288)
_SCTP, _DATA, _SACK, _GAP = 12, 16, 16, 4  # common header; chunk headers; a gap of an acknowledgement (RFC 9260)
_ACKS = 2  # the verdict comes twice
_FILLED = 640  # bytes a datagram at least, on average, of what the encoder has split
_CONNECT = 5200  # bytes of a usual connection: offer, ICE checks, DTLS and SCTP handshakes, announcement
_TLS = 1800  # of TLS around the offer


@dataclass(frozen=True, slots=True)
class WebRtcCostModel:
    """The costs of one kind of connection."""

    ipv6: bool = False
    tls: bool = False

    @property
    def header_bytes(self) -> int:
        """Headers of one datagram, Ethernet's included, as an interface counts them."""
        return ETHERNET + (IPV6 if self.ipv6 else IPV4) + UDP

    def message_bits(self, message_bytes: int) -> int:
        """Uplink bits of a message and of all that it makes this side send. Never falls as messages grow."""
        packets = 1 if message_bytes <= PART_BYTES else math.ceil(message_bytes / _FILLED)
        framing = DATAGRAM - PART_BYTES + 3  # and padding to four bytes
        per_packet = self.header_bytes + _DTLS + _SCTP + _DATA + framing
        per_ack = self.header_bytes + _DTLS + _SCTP + _SACK + _GAP
        return 8 * (message_bytes + packets * per_packet + _ACKS * per_ack)

    def connect_bits(self) -> int:
        """A usual connection up to the first message; the count corrects it."""
        return 8 * (_CONNECT + _TLS * self.tls)


class DatagramCounter:
    """Counts the datagrams that leave the sockets of an ICE connection."""

    def __init__(self) -> None:
        self.sent_bits = 0

    def attach(self, connection: Connection) -> None:
        """Once the candidates are gathered. aioice has no counters, so its sockets are wrapped."""
        for protocol in connection._protocols:
            ipv6 = ":" in protocol.local_candidate.host
            relayed = 0
            if protocol.local_candidate.type == "relay":
                relayed = _RELAYED + _RELAYED_TCP * (connection.turn_transport == "tcp")
            socket = _Counted(protocol.transport, self, WebRtcCostModel(ipv6).header_bytes + relayed)
            protocol.transport = cast(asyncio.DatagramTransport, socket)


class _Counted:
    """A datagram transport that tells a meter what it sends."""

    def __init__(self, transport: asyncio.DatagramTransport, meter: DatagramCounter, header_bytes: int) -> None:
        self._transport = transport
        self._meter = meter
        self._header_bytes = header_bytes

    def sendto(self, data: bytes, address: tuple[Any, ...] | None = None) -> None:
        self._meter.sent_bits += 8 * (len(data) + self._header_bytes)
        self._transport.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
