"""The uplink bits that WebRTC costs, estimated before they are sent.

A message is charged as its datagrams, each with the headers of SCTP, DTLS, UDP, IP and Ethernet, and the
acknowledgement that the edge will send for the two packets of the verdict. What the connection itself costs is charged
as it leaves (transport/webrtc/datagram_gate.py); it is estimated here to plan a connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from sagelink.transport.bundle import PART_BYTES
from sagelink.transport.webrtc.reassembly import DATAGRAM

ETHERNET, IPV4, IPV6, UDP = 14, 20, 40, 8  # header bytes
_DTLS = 13 + 8 + 16  # header of a record, nonce and tag of AES-GCM (RFC 6347, RFC 5288)
_SCTP, _DATA, _SACK, _GAP = 12, 16, 16, 4  # common header; chunk headers; a gap of an acknowledgement (RFC 9260)
_MEAN_PART = 1000  # bytes of a part, typically; further datagrams are charged as they leave
_PADDING = 3  # SCTP pads a chunk to four bytes
_ACKS = 1  # of both packets of the verdict
_CONNECT = 5000  # bytes of a typical connection: offer, ICE checks, DTLS and SCTP handshakes
_TLS = 1800  # bytes of TLS around the offer
MAX_SCTP_MESSAGE_BYTES = 262_000  # that aiortc accepts


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
        """Uplink bits of a message, and of the acknowledgement that this side sends because of it. Never decreases
        with the size."""
        datagrams = 1 if message_bytes <= PART_BYTES else -(-message_bytes // _MEAN_PART)
        return self.parts_bits(message_bytes, datagrams)

    def parts_bits(self, message_bytes: int, datagrams: int) -> int:
        """The same, of a message in so many datagrams: never below their real bits."""
        framing = DATAGRAM - PART_BYTES + _PADDING
        per_datagram = self.header_bytes + _DTLS + _SCTP + _DATA + framing
        per_ack = self.header_bytes + _DTLS + _SCTP + _SACK + _GAP
        return 8 * (message_bytes + datagrams * per_datagram + _ACKS * per_ack)

    def connect_bits(self, announcement_bytes: int) -> int:
        """Uplink bits of a typical connection up to its first message."""
        return 8 * (_CONNECT + _TLS * self.tls) + self.message_bits(announcement_bytes)

    def packet_bits(self) -> int:
        """Uplink bits of the longest datagram."""
        return 8 * (self.header_bytes + _DTLS + _SCTP + _DATA + DATAGRAM + _PADDING)
