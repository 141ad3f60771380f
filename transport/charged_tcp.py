"""A TCP connection whose packets are charged to the budget: connects, and charges what the kernel has counted since.

Linux counts all segments of a socket, repeats and acknowledgements included. A connection begins only when the window
has room for it. On systems without the counters, `GatedTcp` charges what it writes, and repeats are not charged.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import time

from sagelink.transport.header_sizes import ETHERNET, IPV4, IPV6, SACK_BYTES, SEGMENT, SYN_BYTES, TCP_WITH_TIMESTAMPS
from sagelink.transport.tcp_counters import TcpCounters, read_counters
from sagelink.transport.tcp_repeats import SegmentSizes
from sagelink.transport.wire_cost import WireCharger

_LOSSY_S = 1.0  # so long after a gap, each segment is charged as one that reports it
_SMALL_WINDOW = 16_000  # bytes; in a smaller one an acknowledgement counts, so it waits for data that leaves anyway
_READ_AHEAD = 3  # segments that the other side may send before they are read: each may cost an acknowledgement
_DNS_BITS = 8 * 2 * (ETHERNET + IPV4 + 8 + 12 + 4 + 11)  # two queries without the name; with EDNS
_STEP_S, _CONNECTING_STEP_S = 0.004, 0.05  # between two looks at the window
_DEAD_MS = 5000  # bytes that stay unacknowledged for longer are stale: the kernel ends the connection
_PACING = 8  # times the rate of the budget
_SO_MAX_PACING_RATE, _TCP_THIN_LINEAR_TIMEOUTS = 47, 16  # Linux; Python has no names for them
_THIN_BPS = 128_000  # a slower connection repeats at a steady pace; the waits of a faster one double, as usual
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: discard what waits, and send RST
_NOTHING = TcpCounters(0, 0, 0, 0, 0, 0, 0, 0, SEGMENT, 0, 0, 0.0, 0.0, 0.0)


class ChargedTcp:
    """One connection. `open` makes it, `count` charges what has left and arrived, `abort` ends it."""

    def __init__(self, charger: WireCharger, host: str, port: int) -> None:
        self._charger = charger
        self._host = host
        self._port = port
        self.socket: socket.socket | None = None  # None: not open
        self.counted = _NOTHING  # the last reading of the kernel's counters
        self._connected = False
        self._lossy_until_s = 0.0
        self.header_bytes = ETHERNET + IPV4 + TCP_WITH_TIMESTAMPS  # of a segment without options

    @property
    def ipv6(self) -> bool:
        return self.socket is not None and self.socket.family == socket.AF_INET6

    @property
    def sizes(self) -> SegmentSizes:
        """Of packets as long as they can be now."""
        lossy = SACK_BYTES if time.monotonic() < self._lossy_until_s else 0
        return SegmentSizes(self.header_bytes + lossy, self.header_bytes + lossy + SACK_BYTES)

    async def open(self, timeout_s: float) -> None:
        """Connects to the first address that takes a connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        self._charge_lookup()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        error: OSError = OSError(f"no address for {self._host}")
        for family, kind, protocol, _, address in addresses:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._connect(family, kind, protocol, address)
            except TimeoutError:
                error = TimeoutError("timed out")
            except OSError as caught:
                error = OSError(caught.errno, os.strerror(caught.errno)) if caught.errno else caught
            else:
                self._connected = True
                return
            self.abort()
        raise error

    def count(self) -> TcpCounters:
        """Charges what has left since the last reading."""
        before, counters = self.counted, None if self.socket is None else read_counters(self.socket)
        if counters is None:
            return before
        self.counted = counters
        if counters.out_of_order > before.out_of_order:
            self._lossy_until_s = time.monotonic() + _LOSSY_S
        self._delay_acks()
        segments = counters.segments_sent - before.segments_sent
        acks = segments - (counters.data_segments_sent - before.data_segments_sent)
        sent = self.sizes.packet_bytes(counters.bytes_sent - before.bytes_sent, segments)
        sent += acks * (SACK_BYTES if self._connected else SYN_BYTES)
        if sent:
            self._charger.left(8 * sent)
        received = counters.segments_received - before.segments_received
        if received:
            payload = counters.bytes_received - before.bytes_received
            self._charger.received(8 * self.sizes.packet_bytes(payload, received))
        return counters

    def abort(self) -> None:
        """Closes the socket at once: what waits in the kernel is discarded, and RST leaves."""
        if self.socket is None:
            return
        self.count()
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.socket.close()
        self.socket = None
        if self._connected:  # RST, and one more in answer to a packet that was on its way
            self._charger.left(8 * 2 * (self.header_bytes + SACK_BYTES), of_messages=False)

    def _charge_lookup(self) -> None:
        try:
            ipaddress.ip_address(self._host)
        except ValueError:
            self._charger.left(_DNS_BITS + 8 * 2 * len(self._host), of_messages=False)

    async def _connect(
        self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, address: tuple[object, ...]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.header_bytes = ETHERNET + (IPV6 if family == socket.AF_INET6 else IPV4) + TCP_WITH_TIMESTAMPS
        self.counted = _NOTHING
        tcp = self.socket = socket.socket(family, kind, protocol)
        tcp.setblocking(False)
        options: list[tuple[int, int, int | bytes]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MS))
        if self._charger.rate_bps is not None and hasattr(socket, "TCP_INFO"):
            options.append((socket.SOL_SOCKET, _SO_MAX_PACING_RATE, int(_PACING * self._charger.rate_bps / 8)))
            if self._charger.rate_bps < _THIN_BPS:
                options.append((socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"))
                options.append((socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS, 1))
            read_ahead = max(_READ_AHEAD * SEGMENT, (self._charger.limit_bits or 0) // 16)
            options.append((socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, read_ahead))
        for level, option, value in options:
            with contextlib.suppress(OSError):
                tcp.setsockopt(level, option, value)
        # The SYN, one repeat of it, and the acknowledgement that completes the connection.
        syn_bits = 8 * (2 * (self.header_bytes + SYN_BYTES) + self.header_bytes + 2 * self.sizes.ack_bytes)
        await self._room(syn_bits)
        self._charger.reserve(syn_bits)
        connecting = loop.create_task(loop.sock_connect(tcp, address))
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=_CONNECTING_STEP_S)
                self.count()
                if (room := self._charger.room_bits()) is not None and room < syn_bits // 3 and not connecting.done():
                    raise TimeoutError("timed out: the window has no room for another attempt")
            await connecting
        finally:
            connecting.cancel()

    async def _room(self, bits: int) -> None:
        while (room := self._charger.room_bits(0.0, bits)) is not None and room < bits:  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)

    def _delay_acks(self) -> None:
        """The kernel goes back to immediate acknowledgements now and then."""
        limit = self._charger.limit_bits
        if self.socket is not None and self._connected and limit is not None and limit < 8 * _SMALL_WINDOW:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
