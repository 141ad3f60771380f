"""The private attributes of aiortc and aioice that the WebRTC transport uses; pyproject.toml pins both for that reason.

- `RTCSctpTransport._handle_data`: receives each decrypted packet. There is no public sign of life of a peer.
- `RTCIceTransport._connection`, `aioice.Connection._protocols` and `protocol.transport`: the sockets. Neither library
  counts the bytes that it sends.

net/video_peer.py uses one more: `RTCRtpReceiver.__decoder_queue`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from aiortc import RTCSctpTransport


def on_packet(sctp: RTCSctpTransport, callback: Callable[[], None]) -> None:
    """Calls `callback` for each packet that arrives, acknowledgements included."""
    handle = sctp._handle_data

    async def handle_data(data: bytes) -> None:
        callback()
        await handle(data)

    sctp._handle_data = handle_data  # type: ignore[method-assign]


def observe_datagrams(sctp: RTCSctpTransport, observer: Callable[[bool, str | None], Callable[[int], None]]) -> None:
    """Reports the size of each datagram that leaves. Call it once the ICE candidates are gathered.

    `observer(ipv6, relay_transport)` is called for each socket; `relay_transport` is "udp" or "tcp" for the way to a
    TURN server, and None for a direct socket. It returns a function that gets the bytes of each datagram.
    """
    connection = sctp.transport.transport._connection
    for protocol in connection._protocols:
        candidate = protocol.local_candidate
        relay_transport = connection.turn_transport if candidate.type == "relay" else None
        on_sent = observer(":" in candidate.host, relay_transport)
        protocol.transport = cast(asyncio.DatagramTransport, _ObservedTransport(protocol.transport, on_sent))


class _ObservedTransport:
    """A datagram transport that reports the bytes of each datagram before it sends the datagram."""

    def __init__(self, transport: asyncio.DatagramTransport, on_sent: Callable[[int], None]) -> None:
        self._transport = transport
        self._on_sent = on_sent

    def sendto(self, data: bytes, address: tuple[Any, ...] | None = None) -> None:
        self._on_sent(len(data))
        self._transport.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
