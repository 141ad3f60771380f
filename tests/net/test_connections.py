"""Connections are accepted within limits: silent peers are closed, and never keep others out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sagelink.net import connections
from sagelink.net.connections import Acceptor, ConnectionLimits, address_block
from sagelink.net.http import serve_http
from tests.patience import PATIENCE_S


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {len(await request.body())}")


async def slow(_: Request) -> PlainTextResponse:
    await asyncio.sleep(0.6)
    return PlainTextResponse("slow")


APP = Starlette(routes=[Route("/", hello, methods=["GET", "POST"]), Route("/slow", slow)])


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[int]:
    async with serve_http(APP, "127.0.0.1", 0, limits=ConnectionLimits(**limits)) as (_, port):  # type: ignore[arg-type]
        yield port


@contextlib.contextmanager
def silent(port: int, count: int, send: bytes = b"", source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5, (source, 0)))
            peer.sendall(send)
            sockets.append(peer)
        yield sockets


async def ask(port: int, request: bytes = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n") -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def closed(peer: socket.socket, within_s: float) -> bool:
    """Whether the server closes the connection in time."""
    peer.setblocking(False)
    try:
        async with asyncio.timeout(within_s):
            while await asyncio.get_running_loop().sock_recv(peer, 1000):
                pass
            return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_silent_peers_of_one_address_do_not_keep_others_out() -> None:
    async with serving(total=16, per_address=4) as port:
        with silent(port, 100, source="127.0.0.2"):
            assert b"hello" in await ask(port)
        with silent(port, 100):
            assert b"hello" in await ask(port)


async def test_no_more_connections_are_open_than_the_limit() -> None:
    async with serving(total=16, per_address=16) as port:
        with silent(port, 60) as peers:
            await asyncio.sleep(0.3)
            open_now = 0
            for peer in peers:
                open_now += not await closed(peer, 0.01)
            assert open_now <= 16


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_an_incomplete_request_is_closed_in_time(sent: bytes) -> None:
    async with serving(wait_s=0.5) as port:
        with silent(port, 1, sent) as (peer,):
            assert await closed(peer, 3)


async def test_a_peer_that_sends_slowly_is_closed_in_time() -> None:
    async with serving(wait_s=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 5 and not reader.at_eof():
                writer.write(b"G" if time.monotonic() == began else b"x")
                await asyncio.sleep(0.05)
        assert time.monotonic() - began < 3
        writer.close()


async def test_a_request_in_progress_has_priority_over_silent_peers() -> None:
    async with serving(total=8, per_address=8, wait_s=0.3) as port:
        answer = asyncio.create_task(ask(port, b"GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
        await asyncio.sleep(0.1)
        with silent(port, 40):
            assert b"slow" in await answer


async def test_a_flood_leaves_two_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(total=8, per_address=8, wait_s=0.5) as port:
            with silent(port, 100):
                await asyncio.sleep(0.2)
            await asyncio.sleep(1.6)
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["event=connections_full", "event=connections_free"]


async def test_a_process_without_descriptors_says_so_once_and_recovers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_RETRY_S", 0.05)

    class Exhausted:
        """A listener of a process that has no descriptors left for a while."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.failures = 5

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            return self.real.fileno()

        def setblocking(self, flag: bool) -> None:
            self.real.setblocking(flag)

    with caplog.at_level(logging.INFO), socket.create_server(("127.0.0.1", 0)) as real:
        acceptor = Acceptor(Exhausted(real), asyncio.Protocol, None, ConnectionLimits())  # type: ignore[arg-type]
        acceptor.start()
        with silent(real.getsockname()[1], 3):
            await asyncio.sleep(1.0)
        acceptor.stop()
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["event=cannot_accept", "event=accepts_again"]


async def test_the_descriptors_of_the_process_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "descriptor_limit", lambda: 40)
    async with serving() as port:
        with silent(port, 30) as peers:
            await asyncio.sleep(0.3)
            open_now = 0
            for peer in peers:
                open_now += not await closed(peer, 0.01)
            assert open_now <= 10


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, block: str) -> None:
    assert address_block(address) == block
