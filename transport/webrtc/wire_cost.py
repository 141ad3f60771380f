"""The uplink bits that WebRTC costs: estimates charged before sending, and a count of every datagram that leaves.

A message is charged as its datagrams, each with the headers of SCTP, DTLS, UDP, IP and Ethernet, and the
acknowledgements that the edge will send for the two packets of the verdict. The cost of connecting, of heartbeats, of
ICE consent and of further SCTP packets is uncertain: every datagram that leaves a socket is counted, and the excess
over the charges is charged as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagelink.transport.webrtc.aiortc_internals import observe_datagrams
from sagelink.transport.webrtc.reassembly import DATAGRAM
from sagelink.transport.wire import PART_BYTES, max_datagrams

if TYPE_CHECKING:
    from aiortc import RTCSctpTransport

ETHERNET, IPV4, IPV6, UDP = 14, 20, 40, 8  # header bytes
_RELAYED = 36  # bytes of a TURN Send indication, at most
_RELAYED_TCP = 45  # further bytes per datagram to a relay over TCP: a longer header, and an acknowledgement per two
_DTLS = 13 + 8 + 16  # header of a record, nonce and tag of AES-GCM (RFC 6347, RFC 5288)
_SCTP, _DATA, _SACK, _GAP = 12, 16, 16, 4  # common header; chunk headers; a gap of an acknowledgement (RFC 9260)
_PADDING = 3  # SCTP pads a chunk to four bytes
_ACKS = 2  # the verdict is sent twice
_CONNECT = 5200  # bytes of a typical connection: offer, ICE checks, DTLS and SCTP handshakes, announcement
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
        """Uplink bits of a message, and of the acknowledgements that this side sends because of it. Never decreases
        with the size, and never below the bits of the real datagrams (see `max_datagrams`)."""
        framing = DATAGRAM - PART_BYTES + _PADDING
        per_datagram = self.header_bytes + _DTLS + _SCTP + _DATA + framing
        per_ack = self.header_bytes + _DTLS + _SCTP + _SACK + _GAP
        return 8 * (message_bytes + max_datagrams(message_bytes) * per_datagram + _ACKS * per_ack)

    def connect_bits(self) -> int:
        """Uplink bits of a typical connection up to its first message; the count corrects it."""
        return 8 * (_CONNECT + _TLS * self.tls)


class DatagramCounter:
    """Counts the bits of all datagrams that leave a connection, headers included."""

    def __init__(self) -> None:
        self.sent_bits = 0

    def attach(self, sctp: RTCSctpTransport) -> None:
        """Starts counting. Call it once the ICE candidates are gathered."""
        observe_datagrams(sctp, self._counter)

    def _counter(self, ipv6: bool, relay_transport: str | None) -> Callable[[int], None]:
        relayed = 0 if relay_transport is None else _RELAYED + _RELAYED_TCP * (relay_transport == "tcp")
        header_bytes = WebRtcCostModel(ipv6).header_bytes + relayed

        def count(datagram_bytes: int) -> None:
            self.sent_bits += 8 * (datagram_bytes + header_bytes)

        return count
