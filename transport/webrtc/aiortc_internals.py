"""The private attributes of aiortc and aioice that the WebRTC transport uses; pyproject.toml pins both for that reason.

- `RTCSctpTransport._handle_data`: receives each decrypted packet. There is no public sign of life of a peer.
- `RTCSctpTransport._transmit`, `_cwnd` and `_forward_tsn_chunk`: sends what the congestion window allows, that window,
  and a chunk that `_transmit` sends first.
- `RTCSctpTransport._send_sack`: acknowledges what arrived.
- `RTCSctpTransport._rto`: the time after which a lost packet is sent again.
- `RTCIceTransport._send` and `_recv`: take the datagrams of DTLS, and return those that arrive.
- `RTCIceTransport._connection`, `aioice.Connection._protocols` and `protocol.transport`: the sockets, and
  `TurnTransport.__inner_protocol`, which has the socket to a TURN server. Neither library asks before it sends.

net/video_peer.py uses one more: `RTCRtpReceiver.__decoder_queue`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sagelink.transport.header_sizes import ETHERNET, IPV4, IPV6, TCP_WITH_TIMESTAMPS
from sagelink.transport.webrtc.wire_cost import UDP

if TYPE_CHECKING:
    from aiortc import RTCSctpTransport

# Takes a datagram, the bytes of its headers, and a function that sends it.
Gate = Callable[[bytes, int, Callable[[], None]], None]

_ACKNOWLEDGE_S = 0.02
_FIRST_REPEAT_S = 1.0
_FORWARD_TSN_S = 0.3
_RECENT = 8  # datagrams; a flight of a handshake has fewer
_HANDSHAKE_REPEATS_S = 0.3, 0.7  # a satellite's round trip is 0.6 s
RECORDS = range(20, 64)  # first bytes of DTLS records (RFC 7983)
_HANDSHAKE = 20, 22  # first bytes of those of a handshake


async def _unless_ended(send: Callable[[], Awaitable[None]]) -> None:
    """Sends what has waited; the connection may have ended meanwhile."""
    from OpenSSL import SSL

    with contextlib.suppress(ConnectionError, SSL.Error):
        await send()


def on_packet(sctp: RTCSctpTransport, callback: Callable[[], None]) -> None:
    """Calls `callback` for each packet that arrives, acknowledgements included."""
    handle = sctp._handle_data

    async def handle_data(data: bytes) -> None:
        callback()
        await handle(data)

    sctp._handle_data = handle_data  # type: ignore[method-assign]


def keep_window(sctp: RTCSctpTransport, window_bytes: Callable[[], int]) -> None:
    """Keeps SCTP's congestion window at `window_bytes` or more.

    SCTP takes every loss for congestion, and waits a second for a packet that was lost: on a lossy link it would leave
    most of the budget unused. The budget limits the rate already."""
    transmit = sctp._transmit

    async def transmit_with_window() -> None:
        sctp._cwnd = max(sctp._cwnd, window_bytes())
        await transmit()

    sctp._transmit = transmit_with_window  # type: ignore[method-assign]


def join_forward_tsn(sctp: RTCSctpTransport) -> None:
    """Sends a FORWARD TSN (the peer must not wait for what is lost) now and then; aiortc sends one for each
    acknowledgement. What has arrived is delivered anyway: no channel here keeps the order."""
    transmit, loop = sctp._transmit, asyncio.get_running_loop()
    next_s = 0.0
    timer: asyncio.TimerHandle | None = None
    sending: set[asyncio.Task[None]] = set()

    def send() -> None:
        nonlocal timer
        timer = None
        task = loop.create_task(_unless_ended(sctp._transmit))
        sending.add(task)
        task.add_done_callback(sending.discard)

    async def transmit_with_pauses() -> None:
        nonlocal next_s, timer
        chunk = sctp._forward_tsn_chunk
        if chunk is None or loop.time() >= next_s:
            next_s = loop.time() + _FORWARD_TSN_S if chunk else next_s
            await transmit()
            return
        if timer is None:
            timer = loop.call_at(next_s, send)
        sctp._forward_tsn_chunk = None
        try:
            await transmit()
        finally:
            sctp._forward_tsn_chunk = sctp._forward_tsn_chunk or chunk  # a later one says more

    sctp._transmit = transmit_with_pauses  # type: ignore[method-assign]


def join_acknowledgements(sctp: RTCSctpTransport) -> None:
    """Acknowledges packets that arrive together once, as RFC 9260 (6.2) allows; aiortc acknowledges each."""
    acknowledge = sctp._send_sack
    waiting: set[asyncio.Task[None]] = set()

    async def acknowledge_later() -> None:
        await asyncio.sleep(_ACKNOWLEDGE_S)
        waiting.clear()
        await _unless_ended(acknowledge)

    async def send_sack() -> None:
        if not waiting:
            waiting.add(asyncio.create_task(acknowledge_later()))

    sctp._send_sack = send_sack  # type: ignore[method-assign]


def begin_repeats_early(sctp: RTCSctpTransport) -> None:
    """Sets the first repeat to a second, as RFC 9260 (16) has it; aiortc has three seconds, of an earlier RFC."""
    sctp._rto = _FIRST_REPEAT_S


def repeat_handshake(sctp: RTCSctpTransport) -> None:
    """Sends the datagrams of a DTLS handshake again soon if no answer arrives; OpenSSL waits one second, then two, ....

    A datagram that arrives twice is ignored: it has the same record number (RFC 6347, 4.1.2.6)."""
    ice, loop = sctp.transport.transport, asyncio.get_running_loop()
    send, receive = ice._send, ice._recv
    arrived = 0  # records
    recent: deque[bytes] = deque(maxlen=_RECENT)
    sending: set[asyncio.Task[None]] = set()

    async def send_again(data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await send(data)

    def repeat(data: bytes, arrived_before: int) -> None:
        if arrived == arrived_before:
            task = loop.create_task(send_again(data))
            sending.add(task)
            task.add_done_callback(sending.discard)

    async def send_and_repeat(data: bytes) -> None:
        await send(data)
        if data[0] in _HANDSHAKE:
            for pause_s in _HANDSHAKE_REPEATS_S:
                loop.call_later(pause_s, repeat, data, arrived)

    async def receive_and_count() -> bytes:
        nonlocal arrived
        data: bytes = await receive()
        if data[:1] != b"" and data[0] in RECORDS and data not in recent:  # else: the peer repeats, and has no answer
            arrived += 1
            recent.append(data)
        return data

    ice._send, ice._recv = send_and_repeat, receive_and_count


def gate_datagrams(sctp: RTCSctpTransport, gate: Gate, received: Callable[[int], None]) -> None:
    """Sends every datagram through `gate`, and calls `received` with the bits of each that arrives, headers included.
    Call it once the ICE candidates are gathered.

    A datagram to a TURN server passes with the header of TURN. What leaves for a TURN server over TCP passes too, but
    the kernel may send it again, which nobody charges.
    """
    for protocol in sctp.transport.transport._connection._protocols:
        if protocol.local_candidate.type == "relay":
            client = cast(Any, protocol.transport)._TurnTransport__inner_protocol
            client.transport = cast(asyncio.DatagramTransport, _GatedTransport(client.transport, gate))
        else:
            protocol.transport = cast(asyncio.DatagramTransport, _GatedTransport(protocol.transport, gate))
        protocol.datagram_received = partial(  # type: ignore[method-assign]
            _receive, protocol.datagram_received, received, ":" in protocol.local_candidate.host
        )


def _receive(
    take: Callable[[Any, Any], None], received: Callable[[int], None], ipv6: bool, data: Any, address: Any
) -> None:
    received(8 * (len(data) + ETHERNET + (IPV6 if ipv6 else IPV4) + UDP))
    take(data, address)


class _GatedTransport:
    """A transport whose data leaves through a gate."""

    def __init__(self, transport: Any, gate: Gate) -> None:
        """`transport`: an asyncio.DatagramTransport, or an asyncio.Transport."""
        self._transport = transport
        self._gate = gate
        address = transport.get_extra_info("sockname") or ("",)
        self._ip_bytes = ETHERNET + (IPV6 if ":" in address[0] else IPV4)

    def sendto(self, data: bytes, *address: tuple[Any, ...]) -> None:
        self._gate(data, self._ip_bytes + UDP, partial(self._send, self._transport.sendto, data, *address))

    def write(self, data: bytes) -> None:
        """To a TURN server over TCP: a segment, and an acknowledgement of what comes back."""
        headers = 2 * (self._ip_bytes + TCP_WITH_TIMESTAMPS)
        self._gate(data, headers, partial(self._send, self._transport.write, data))

    def _send(self, send: Callable[..., None], *arguments: Any) -> None:
        if not self._transport.is_closing():
            send(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
