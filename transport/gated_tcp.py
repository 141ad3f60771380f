"""A TCP connection whose bits are in the budget before they leave: the kernel gets a segment when the window has room.

TCP sends again by itself, so a limit on what is written does not limit what leaves. This module stands between a
library and its TCP socket. The library gets one end of a socket pair; the bytes that it writes there, TLS included, go
to the kernel in pieces, and for each piece the window has room for all that the kernel may send because of it
(`transport/tcp_repeats.py`). Linux counts all segments of the socket: what it counts is charged, repeats and
acknowledgements included. If the kernel is about to repeat a segment for which there is no room all the same, the
connection is aborted, which discards what waits in the kernel.

The kernel's pacing only smooths repeats. On systems without the counters, pieces are charged as they are written and
repeats are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import struct
import time

from sagelink.transport.tcp_counters import TcpCounters, read_counters
from sagelink.transport.tcp_repeats import ACKS, SegmentSizes, longest_payload, needs, repeat_bytes
from sagelink.transport.wire_cost import WireCharger

log = logging.getLogger(__name__)

ETHERNET, IPV4, IPV6, TCP_WITH_TIMESTAMPS = 14, 20, 40, 32  # header bytes
SEGMENT = 1448  # bytes of TCP payload in a packet of 1500 bytes, timestamps on
SYN_BYTES = 8  # of a SYN's header beyond those of other segments
SACK_BYTES = 12  # of an acknowledgement that reports a gap or a duplicate
_LOSSY_S = 1.0  # so long after a gap, each segment is charged as one that reports it
_OPTIONS = 24  # bytes that such reports take from a segment's payload
_MIN_PIECE = 64  # bytes of the shortest segment of several
_SMALL_WINDOW = 16_000  # bytes; in a smaller one an acknowledgement counts, so it waits for data that leaves anyway
_RESERVED_PART = 16  # of a window, at most, is kept from messages for the connection's own packets
_READ_AHEAD = 3  # segments that the other side may send before they are read: each may cost an acknowledgement
_DNS_BITS = 8 * 2 * (ETHERNET + IPV4 + 8 + 12 + 4 + 11)  # two queries without the name; with EDNS
_TICK_S, _IDLE_TICK_S = 0.004, 0.05
_EARLY_S = 0.02  # before a repeat at the earliest, so that a process that is late still acts in time
_DEAD_MS = 5000  # bytes that stay unacknowledged for longer are stale: the kernel ends the connection
_MAX_WAITING = 65_536  # bytes in either direction
_PACING = 8  # times the rate of the budget
_SO_MAX_PACING_RATE, _TCP_THIN_LINEAR_TIMEOUTS = 47, 16  # Linux; Python has no names for them
_THIN_BPS = 128_000  # a slower connection repeats at a steady pace; the waits of a faster one double, as usual
_FLUSH_S, _FIN_S = 1.15, 0.3  # a window of a second empties within the first; in a longer one, the goodbye is reserved
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: discard what waits, and send RST
_NOTHING = TcpCounters(0, 0, 0, 0, 0, 0, 0, 0, SEGMENT, 0, 0, 0.0, 0.0, 0.0)


class GatedTcp:
    """One connection. `open` makes it, `run` carries bytes until it ends, `close` ends it."""

    def __init__(self, charger: WireCharger, host: str, port: int, goodbye_bytes: int = 0) -> None:
        """`goodbye_bytes`: of what the library sends last, without the headers of its one segment."""
        self._charger = charger
        self._goodbye_bytes = goodbye_bytes
        self._host = host
        self._port = port
        self._tcp: socket.socket | None = None
        self._inner: socket.socket | None = None  # our end of the pair
        self.library_end: socket.socket | None = None
        self._out = bytearray()  # from the library, not given to the kernel yet
        self._in = bytearray()  # from the network, not given to the library yet
        self._ended = asyncio.Event()
        self._inner_closed = False
        self._connected = False
        self._counted = _NOTHING
        self._lossy_until_s = 0.0
        self._header_bytes = ETHERNET + IPV4 + TCP_WITH_TIMESTAMPS
        self._timer: asyncio.TimerHandle | None = None
        self.fault: str | None = None

    @property
    def header_bytes(self) -> int:
        """Headers of one segment, Ethernet's included."""
        return self._header_bytes

    @property
    def tcp_socket(self) -> socket.socket | None:
        return self._tcp

    @property
    def ipv6(self) -> bool:
        return self._tcp is not None and self._tcp.family == socket.AF_INET6

    def smallest_room_bits(self) -> int:
        """The room that a window must have for anything to leave."""
        return 8 * self._room_bytes(_MIN_PIECE)

    def _room_bytes(self, payload: int) -> int:
        """Of a segment, with its repeats and acknowledgements."""
        return 4 * (payload + self._header_bytes) + ACKS * self._sizes.ack_bytes

    async def open(self, timeout_s: float) -> socket.socket:
        """Connects. Returns the library's end. Raises OSError."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        self._charge_lookup()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        error: OSError = OSError(f"no address for {self._host}")
        for family, kind, protocol, _, address in addresses:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._connect(family, kind, protocol, address)
                break
            except TimeoutError:
                error = TimeoutError("timed out")
            except OSError as caught:
                error = OSError(caught.errno, os.strerror(caught.errno)) if caught.errno else caught
            self._abort()
        else:
            raise error
        self._inner, self.library_end = socket.socketpair()
        for end in (self._inner, self.library_end):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_WAITING)
        self._connected = True
        return self.library_end

    async def run(self) -> None:
        """Carries bytes until one side ends the connection; the reason is in `fault` if it broke off."""
        loop = asyncio.get_running_loop()
        assert self._tcp is not None
        assert self._inner is not None
        loop.add_reader(self._inner, self._read_library)
        loop.add_reader(self._tcp, self._read_network)
        self._tick()
        try:
            await self._ended.wait()
            if self.fault is None:
                await self._finish()
        finally:
            self._stop()

    async def _finish(self) -> None:
        """The library has closed its end: sends what waits, then FIN, within a time limit."""
        assert self._tcp is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while self._out or self._count().queued_bytes:  # noqa: ASYNC110
                    await asyncio.sleep(_TICK_S)
        room = self._charger.room_bits()
        if self._out or self.fault or (room is not None and room < 8 * 4 * self._header_bytes):
            return
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIN_S):
                while not self.fault:
                    self._count()
                    await asyncio.sleep(_TICK_S)

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for end in (self._inner, self._tcp):
            if end is not None and end.fileno() >= 0:
                loop.remove_reader(end)
                loop.remove_writer(end)
        if self._timer is not None:
            self._timer.cancel()
        self._abort()
        if self._inner is not None:
            self._inner.close()
        self._charger.reserve(0)

    def _abort(self) -> None:
        """Closes the socket at once: what waits in the kernel is discarded, and RST leaves."""
        if self._tcp is None:
            return
        self._count()
        with contextlib.suppress(OSError):
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._tcp.close()
        self._tcp = None
        if self._connected:  # RST, and one more in answer to a packet that was on its way
            self._charger.left(8 * 2 * (self._header_bytes + SACK_BYTES), of_messages=False)

    def _charge_lookup(self) -> None:
        try:
            ipaddress.ip_address(self._host)
        except ValueError:
            self._charger.left(_DNS_BITS + 8 * 2 * len(self._host), of_messages=False)

    async def _connect(
        self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int, address: tuple[object, ...]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._header_bytes = ETHERNET + (IPV6 if family == socket.AF_INET6 else IPV4) + TCP_WITH_TIMESTAMPS
        self._counted = _NOTHING
        tcp = self._tcp = socket.socket(family, kind, protocol)
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
        syn_bits = 8 * (2 * (self._header_bytes + SYN_BYTES) + self._header_bytes + 2 * self._sizes.ack_bytes)
        await self._room(syn_bits)
        self._charger.reserve(syn_bits)
        connecting = loop.create_task(loop.sock_connect(tcp, address))
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=_IDLE_TICK_S)
                self._count()
                if (room := self._charger.room_bits()) is not None and room < syn_bits // 3 and not connecting.done():
                    raise TimeoutError("timed out: the window has no room for another attempt")
            await connecting
        finally:
            connecting.cancel()

    async def _room(self, bits: int) -> None:
        while (room := self._charger.room_bits(0.0, bits)) is not None and room < bits:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)

    @property
    def _sizes(self) -> SegmentSizes:
        """Of packets as long as they can be now."""
        lossy = SACK_BYTES if time.monotonic() < self._lossy_until_s else 0
        return SegmentSizes(self._header_bytes + lossy, self._header_bytes + lossy + SACK_BYTES)

    def _count(self) -> TcpCounters:
        """Charges what has left since the last reading."""
        before, counters = self._counted, None if self._tcp is None else read_counters(self._tcp)
        if counters is None:
            return before
        self._counted = counters
        if counters.out_of_order > before.out_of_order:
            self._lossy_until_s = time.monotonic() + _LOSSY_S
        self._delay_acks()
        segments = counters.segments_sent - before.segments_sent
        acks = segments - (counters.data_segments_sent - before.data_segments_sent)
        sent = self._sizes.packet_bytes(counters.bytes_sent - before.bytes_sent, segments)
        sent += acks * (SACK_BYTES if self._connected else SYN_BYTES)
        if sent:
            self._charger.left(8 * sent)
        received = counters.segments_received - before.segments_received
        if received:
            payload = counters.bytes_received - before.bytes_received
            self._charger.received(8 * self._sizes.packet_bytes(payload, received))
        return counters

    def _delay_acks(self) -> None:
        """The kernel goes back to immediate acknowledgements now and then."""
        limit = self._charger.limit_bits
        if self._tcp is not None and self._connected and limit is not None and limit < 8 * _SMALL_WINDOW:
            with contextlib.suppress(OSError):
                self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        counters = self._count()
        self._write_network()
        self._check_repeats(self._counted)
        busy = self._out or counters.queued_bytes
        if not self._ended.is_set() or busy:
            self._timer = loop.call_later(_TICK_S if busy else _IDLE_TICK_S, self._tick)

    def _check_repeats(self, counters: TcpCounters) -> None:
        """Aborts the connection before a repeat for which the window has no room."""
        sizes = self._sizes
        waiting = repeat_bytes(counters, sizes)
        smallest = _MIN_PIECE + self._header_bytes + sizes.ack_bytes  # messages have paid for more
        if self._charger.window_s > _FLUSH_S:
            smallest = max(smallest, self._room_bytes(self._goodbye_bytes))
        smallest = min(smallest, (self._charger.limit_bits or 0) // 8 // _RESERVED_PART)
        self._charger.reserve(8 * (waiting + smallest))
        room = self._charger.room_bits(max(0.0, counters.next_repeat_s))
        if not waiting or room is None or counters.next_repeat_s > _EARLY_S:
            return
        # The timer repeats one segment; there are further ones only after an acknowledgement, or a longer wait.
        if room < 8 * min(waiting, sizes.packet_bytes(counters.segment_bytes, 1)):
            self._end("the window has no room for a repeated segment")

    def _write_network(self) -> None:
        """Gives the kernel as much as the window has room for."""
        while self._out and self._tcp is not None:
            payload = self._payload(self._counted)
            if payload <= 0:
                return
            try:
                written = self._tcp.send(self._out[:payload])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._end(error.strerror or str(error))
                return
            del self._out[:written]
            self._resume_library()
            if self._count() is self._counted and self._counted.segments_sent == 0:  # the system does not count
                self._charger.left(8 * self._sizes.packet_bytes(written, -(-written // SEGMENT)))

    def _payload(self, counters: TcpCounters) -> int:
        """Bytes that the kernel may get now; 0 while it must wait."""
        limit = self._charger.share_bits
        if limit is None:
            return min(counters.segment_bytes, len(self._out))
        if counters.queued_bytes > max(2 * counters.segment_bytes, limit // 8 // 2):
            return 0
        longest = min(longest_payload(limit // 8, counters, self._sizes), counters.segment_bytes - _OPTIONS)
        longest = max(_MIN_PIECE, longest)
        payload = -(-len(self._out) // -(-len(self._out) // longest))  # segments of one length
        for need in needs(counters, self._sizes, payload):
            room = self._charger.room_bits(need.until_s, 8 * need.size_bytes)
            if room is not None and room < 8 * need.size_bytes:
                return 0
        return payload

    def _read_library(self) -> None:
        assert self._inner is not None
        try:
            data = self._inner.recv(_MAX_WAITING)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        loop = asyncio.get_running_loop()
        if not data:
            self._inner_closed = True
            loop.remove_reader(self._inner)
            self._ended.set()
            return
        self._out += data
        if len(self._out) >= _MAX_WAITING:
            loop.remove_reader(self._inner)
        self._count()
        self._write_network()
        self._soon()

    def _resume_library(self) -> None:
        if self._inner is not None and not self._inner_closed and len(self._out) < _MAX_WAITING // 2:
            asyncio.get_running_loop().add_reader(self._inner, self._read_library)

    def _soon(self) -> None:
        """The next reading of the counters is soon, now that something is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _read_network(self) -> None:
        assert self._tcp is not None
        try:
            data = self._tcp.recv(_MAX_WAITING - len(self._in))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not data:
            self._end("the other side ended the connection")
            return
        self._count()
        self._in += data
        self._write_library()
        self._write_network()
        self._soon()

    def _write_library(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._inner is not None
        try:
            while self._in:
                del self._in[: self._inner.send(self._in)]
        except (BlockingIOError, InterruptedError):
            loop.add_writer(self._inner, self._write_library)
            if self._tcp is not None and len(self._in) >= _MAX_WAITING:
                loop.remove_reader(self._tcp)
            return
        except OSError:
            self._in.clear()
        loop.remove_writer(self._inner)
        if self._tcp is not None and not self.fault:
            loop.add_reader(self._tcp, self._read_network)

    def _end(self, reason: str) -> None:
        if self.fault is None:
            self.fault = reason
            log.info("event=tcp_ended host=%s port=%d reason=%r", self._host, self._port, reason)
            if self._tcp is not None:
                asyncio.get_running_loop().remove_reader(self._tcp)
        self._ended.set()
