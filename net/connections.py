"""Accepts connections for an HTTP server, within limits: in total, per address, and in time.

A connection that waits for its peer (for a request, or for the rest of one) is closed after a time limit. When there is
no room for a new connection, the one that has waited longest makes room; so silent peers never keep others out. The
limit in total is a part of the descriptors of the process: the rest belongs to the run, whose results matter more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from sagelink.pipeline.descriptors import descriptor_limit

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
MAX_PER_ADDRESS = 64
_SHARE = 4  # at most one in so many descriptors of the process is for connections
_SWEEP_S = 0.5
_RETRY_S = 1.0  # pause after a failed accept
_TLS_S = 5.0  # time limit for a TLS handshake
_WAIT_S = 10.0  # time limit for a request to arrive
_ANSWER_S = 60.0  # time limit for a peer to take its response
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(slots=True, eq=False)
class _Connection:
    address: str
    since_s: float  # when its state changed last
    opening: asyncio.Task[None] | None = None  # makes the transport, after the TLS handshake if there is one
    transport: asyncio.Transport | None = None
    state: object = None  # see `Acceptor`
    waits: bool = True  # for its peer

    @property
    def closed(self) -> bool:
        if self.transport is None:
            return self.opening is None or self.opening.done()
        return self.transport.is_closing()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    total: int = MAX_CONNECTIONS
    per_address: int = MAX_PER_ADDRESS
    wait_s: float = _WAIT_S
    answer_s: float = _ANSWER_S


class Acceptor:
    """Accepts the connections of a listening socket while it is entered."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        limits: ConnectionLimits,
    ) -> None:
        """`protocol` makes the protocol of a connection. Its method `progress` returns a value that changes as the
        connection proceeds, and whether it waits for its peer. A protocol without this method has no time limit."""
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._limits = limits
        self._total = max(1, min(limits.total, descriptor_limit() // _SHARE))
        self._per_address = min(limits.per_address, self._total)
        self._loop = asyncio.get_running_loop()
        self._connections: list[_Connection] = []
        self._timer: asyncio.TimerHandle | None = None
        self._fault: str | None = None  # why connections are not accepted now
        self._full_s: float | None = None  # when a connection last found no room

    def start(self) -> None:
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def stop(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
        for connection in self._connections:
            if connection.transport is None:
                connection.close()

    def _accept(self) -> None:
        """Accepts one connection: the loop calls again while more are waiting, and other work gets its turn."""
        try:
            accepted, peer = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._pause(error.strerror or str(error))
            return
        if self._fault is not None:
            log.info("event=accepts_again")
            self._fault = None
        accepted.setblocking(False)
        connection = _Connection(address_block(peer[0]), self._loop.time())
        if not self._make_room(connection.address):
            accepted.close()
            return
        self._connections.append(connection)
        connection.opening = self._loop.create_task(self._open(connection, accepted))
        connection.opening.add_done_callback(lambda _: accepted.close() if connection.transport is None else None)

    async def _open(self, connection: _Connection, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):  # the peer left, or speaks no TLS
            connection.transport, _ = await self._loop.connect_accepted_socket(
                self._protocol, accepted, ssl=self._tls, ssl_handshake_timeout=_TLS_S if self._tls else None
            )

    def _make_room(self, address: str) -> bool:
        """Makes room for one more connection from this address; False if none waits that could be closed."""
        self._connections = [connection for connection in self._connections if not connection.closed]
        crowd = [connection for connection in self._connections if connection.address == address]
        if len(crowd) < self._per_address:
            if len(self._connections) < self._total:
                return True
            crowd = self._connections
        if self._full_s is None:
            log.warning(
                "event=connections_full connections=%d limit=%d per_address=%d: the longest waiting are closed",
                *(len(self._connections), self._total, self._per_address),
            )
        self._full_s = self._loop.time()
        for connection in crowd:
            self._note_progress(connection)
            if connection.waits:
                connection.close()
                self._connections.remove(connection)
                return True
        return False

    def _pause(self, reason: str) -> None:
        if self._fault is None:
            log.error("event=cannot_accept connections=%d reason=%r", len(self._connections), reason)
        self._fault = reason
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_RETRY_S, self._resume)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _note_progress(self, connection: _Connection) -> None:
        if connection.transport is None:
            return
        progress = getattr(connection.transport.get_protocol(), "progress", None)
        state, waits = (None, False) if progress is None else progress()
        if progress is None or (state, waits) != (connection.state, connection.waits):
            connection.state, connection.waits, connection.since_s = state, waits, self._loop.time()

    def _sweep(self) -> None:
        """Closes the connections whose time is over, and logs what has ended."""
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)
        now_s = self._loop.time()
        for connection in self._connections:
            self._note_progress(connection)
            limit_s = self._limits.wait_s if connection.waits else self._limits.answer_s
            if now_s - connection.since_s > limit_s:
                connection.close()
        self._connections = [connection for connection in self._connections if not connection.closed]
        if self._full_s is not None and now_s - self._full_s > self._limits.wait_s:
            log.info("event=connections_free connections=%d", len(self._connections))
            self._full_s = None


def address_block(address: str) -> str:
    """The address that a limit counts: an IPv4 address, or the /64 network of an IPv6 address, which has one owner."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
