"""A TCP connection whose bits are in the budget before they leave: the kernel gets a segment when the window has room.

TCP sends again by itself, so a limit on what is written does not limit what leaves. This module stands between a
library and its TCP socket. The library gets one end of a socket pair; the bytes that it writes there, TLS included, go
to the kernel in pieces, and for each piece the window has room for all that the kernel may send because of it
(`transport/tcp_repeats.py`). What the kernel counts is charged (`transport/charged_tcp.py`). If the kernel is about to
repeat a segment for which there is no room all the same, the connection is aborted, which discards what waits in the
kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from sagelink.transport.charged_tcp import ChargedTcp
from sagelink.transport.header_sizes import SEGMENT
from sagelink.transport.tcp_counters import TcpCounters
from sagelink.transport.tcp_repeats import ACKS, longest_payload, needs, repeat_bytes
from sagelink.transport.wire_cost import WireCharger

log = logging.getLogger(__name__)

_OPTIONS = 24  # bytes that reports of gaps take from a segment's payload
_MIN_PIECE = 64  # bytes of the shortest segment of several
_RESERVED_PART = 16  # of a window, at most, is kept from messages for the connection's own packets
_TICK_S, _IDLE_TICK_S = 0.004, 0.05
_EARLY_S = 0.02  # before a repeat at the earliest, so that a process that is late still acts in time
_MAX_WAITING = 65_536  # bytes in either direction
_FLUSH_S, _FIN_S = 1.15, 0.3  # a window of a second empties within the first; in a longer one, the goodbye is reserved


class GatedTcp:
    """One connection. `open` makes it, `run` carries bytes until it ends."""

    def __init__(self, charger: WireCharger, host: str, port: int, goodbye_bytes: int = 0) -> None:
        """`goodbye_bytes`: of what the library sends last, without the headers of its one segment."""
        self._charger = charger
        self._goodbye_bytes = goodbye_bytes
        self._host = host
        self._port = port
        self._tcp = ChargedTcp(charger, host, port)
        self._inner: socket.socket | None = None  # our end of the pair
        self.library_end: socket.socket | None = None
        self._out = bytearray()  # from the library, not given to the kernel yet
        self._in = bytearray()  # from the network, not given to the library yet
        self._ended = asyncio.Event()
        self._inner_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self.fault: str | None = None

    @property
    def tcp_socket(self) -> socket.socket | None:
        return self._tcp.socket

    @property
    def ipv6(self) -> bool:
        return self._tcp.ipv6

    def smallest_room_bits(self) -> int:
        """The room that a window must have for anything to leave."""
        return 8 * self._room_bytes(_MIN_PIECE)

    def _room_bytes(self, payload: int) -> int:
        """Of a segment, with its repeats and acknowledgements."""
        return 4 * (payload + self._tcp.header_bytes) + ACKS * self._tcp.sizes.ack_bytes

    async def open(self, timeout_s: float) -> socket.socket:
        """Connects. Returns the library's end. Raises OSError."""
        await self._tcp.open(timeout_s)
        self._inner, self.library_end = socket.socketpair()
        for end in (self._inner, self.library_end):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_WAITING)
        return self.library_end

    async def run(self) -> None:
        """Carries bytes until one side ends the connection; the reason is in `fault` if it broke off."""
        loop = asyncio.get_running_loop()
        assert self.tcp_socket is not None
        assert self._inner is not None
        loop.add_reader(self._inner, self._read_library)
        loop.add_reader(self.tcp_socket, self._read_network)
        self._tick()
        try:
            await self._ended.wait()
            if self.fault is None:
                await self._finish()
        finally:
            self._stop()

    async def _finish(self) -> None:
        """The library has closed its end: sends what waits, then FIN, within a time limit."""
        assert self.tcp_socket is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while self._out or self._tcp.count().queued_bytes:  # noqa: ASYNC110
                    await asyncio.sleep(_TICK_S)
        room = self._charger.room_bits()
        if self._out or self.fault or (room is not None and room < 8 * 4 * self._tcp.header_bytes):
            return
        with contextlib.suppress(OSError):
            self.tcp_socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIN_S):
                while not self.fault:
                    self._tcp.count()
                    await asyncio.sleep(_TICK_S)

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for end in (self._inner, self.tcp_socket):
            if end is not None and end.fileno() >= 0:
                loop.remove_reader(end)
                loop.remove_writer(end)
        if self._timer is not None:
            self._timer.cancel()
        self._tcp.abort()
        if self._inner is not None:
            self._inner.close()
        self._charger.reserve(0)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        counters = self._tcp.count()
        self._write_network()
        self._check_repeats(self._tcp.counted)
        busy = self._out or counters.queued_bytes
        if not self._ended.is_set() or busy:
            self._timer = loop.call_later(_TICK_S if busy else _IDLE_TICK_S, self._tick)

    def _check_repeats(self, counters: TcpCounters) -> None:
        """Aborts the connection before a repeat for which the window has no room."""
        sizes = self._tcp.sizes
        waiting = repeat_bytes(counters, sizes)
        smallest = _MIN_PIECE + self._tcp.header_bytes + sizes.ack_bytes  # messages have paid for more
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
        while self._out and self.tcp_socket is not None:
            payload = self._payload(self._tcp.counted)
            if payload <= 0:
                return
            try:
                written = self.tcp_socket.send(self._out[:payload])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._end(error.strerror or str(error))
                return
            del self._out[:written]
            self._resume_library()
            if self._tcp.count().segments_sent == 0:  # the system does not count
                self._charger.left(8 * self._tcp.sizes.packet_bytes(written, -(-written // SEGMENT)))

    def _payload(self, counters: TcpCounters) -> int:
        """Bytes that the kernel may get now; 0 while it must wait."""
        limit = self._charger.share_bits
        if limit is None:
            return min(counters.segment_bytes, len(self._out))
        if counters.queued_bytes > max(2 * counters.segment_bytes, limit // 8 // 2):
            return 0
        longest = min(longest_payload(limit // 8, counters, self._tcp.sizes), counters.segment_bytes - _OPTIONS)
        longest = max(_MIN_PIECE, longest)
        payload = -(-len(self._out) // -(-len(self._out) // longest))  # segments of one length
        for need in needs(counters, self._tcp.sizes, payload):
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
        self._tcp.count()
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
        assert self.tcp_socket is not None
        try:
            data = self.tcp_socket.recv(_MAX_WAITING - len(self._in))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not data:
            self._end("the other side ended the connection")
            return
        self._tcp.count()
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
            if self.tcp_socket is not None and len(self._in) >= _MAX_WAITING:
                loop.remove_reader(self.tcp_socket)
            return
        except OSError:
            self._in.clear()
        loop.remove_writer(self._inner)
        if self.tcp_socket is not None and not self.fault:
            loop.add_reader(self.tcp_socket, self._read_network)

    def _end(self, reason: str) -> None:
        if self.fault is None:
            self.fault = reason
            log.info("event=tcp_ended host=%s port=%d reason=%r", self._host, self._port, reason)
            if self.tcp_socket is not None:
                asyncio.get_running_loop().remove_reader(self.tcp_socket)
        self._ended.set()
