"""A TCP connection that gives the kernel only what the window has room for. Over loopback, with real sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.gated_tcp import GatedTcp
from sagelink.transport.tcp_counters import read_counters
from sagelink.transport.wire_cost import WireCharger
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="no TCP counters on this system")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Connection:
    """A gated connection to a listening socket, and its budget."""

    def __init__(self, rate_bps: float | None, window_s: float = 1.0, goodbye_bytes: int = 0) -> None:
        self.clock = Clock()
        self.budget = UplinkBudget(rate_bps, window_s)
        self.listener = socket.create_server(("127.0.0.1", 0))
        host, port = self.listener.getsockname()
        self.gated = GatedTcp(WireCharger(WireLedger(self.budget, self.clock)), host, port, goodbye_bytes)

    async def __aenter__(self) -> Connection:
        self.library_end = await self.gated.open(5.0)
        self.carrying = asyncio.create_task(self.gated.run())
        self.server, _ = self.listener.accept()
        self.server.setblocking(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.library_end.close()
        await self.carrying
        self.server.close()
        self.listener.close()

    async def received(self, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            while len(data) < count:
                data += await asyncio.get_running_loop().sock_recv(self.server, count - len(data))
        return data


async def settle_down() -> None:
    await asyncio.sleep(0.1)


async def test_bytes_pass_both_ways_without_a_limit() -> None:
    payload = bytes(range(256)) * 2000
    async with Connection(None) as connection:
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(connection.library_end, payload))
        assert await connection.received(len(payload)) == payload
        await sending
        await loop.sock_sendall(connection.server, b"answer")
        assert await loop.sock_recv(connection.library_end, 100) == b"answer"
        assert connection.budget.total_bits > 8 * len(payload)


async def test_no_more_leaves_than_a_window_holds() -> None:
    """The clock stands still: however long the test waits, the kernel gets less than one window."""
    async with Connection(16_000) as connection:
        connection.clock.now_s = 1.01  # what connecting cost has left the window
        await asyncio.get_running_loop().sock_sendall(connection.library_end, bytes(5000))
        await settle_down()
        counters = read_counters(connection.gated.tcp_socket)
        assert counters is not None
        assert 300 < counters.bytes_sent < 2000
        assert counters.bytes_sent + 66 * counters.segments_sent <= 2000
        assert connection.budget.window_bits(1.01) <= 16_000
        received = counters.bytes_sent
        for second in range(2, 24):
            connection.clock.now_s = 1.01 * second
            await settle_down()
            assert connection.budget.window_bits(connection.clock.now_s) <= 16_000
        assert len(await connection.received(5000)) == 5000 > received


async def test_what_the_kernel_counts_is_charged() -> None:
    async with Connection(None) as connection:
        await asyncio.get_running_loop().sock_sendall(connection.library_end, bytes(3000))
        await connection.received(3000)
        await settle_down()
        counters = read_counters(connection.gated.tcp_socket)
        assert counters is not None
        wire_bits = 8 * (counters.bytes_sent + 66 * counters.segments_sent)
        assert counters.bytes_sent == 3000
        assert wire_bits <= connection.budget.total_bits <= wire_bits + 8 * 20 * counters.segments_sent


async def test_the_end_of_either_side_ends_the_other() -> None:
    async with Connection(None) as connection:
        connection.server.close()
        assert await asyncio.get_running_loop().sock_recv(connection.library_end, 10) == b""
        await connection.carrying
        assert connection.gated.fault is not None
    async with Connection(None) as connection:
        connection.library_end.send(b"goodbye")
        connection.library_end.close()
        assert await connection.received(7) == b"goodbye"


async def test_the_goodbye_waits_until_the_window_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagelink.transport.gated_tcp._FLUSH_S", 10.0)
    async with Connection(16_000) as connection:
        connection.clock.now_s = 1.01
        connection.budget.charge_sent(connection.clock.now_s, 16_000)
        connection.library_end.send(b"goodbye")
        connection.library_end.close()
        await settle_down()
        with pytest.raises(BlockingIOError):
            connection.server.recv(7)
        connection.clock.now_s = 2.02
        assert await connection.received(7) == b"goodbye"


async def test_in_a_long_window_messages_leave_room_for_the_goodbye() -> None:
    async with Connection(16_000, window_s=10.0, goodbye_bytes=100) as connection:
        await settle_down()
        budget = connection.budget
        assert budget.charge(0.0, budget.allowance(0.0) or 0)
        assert 0 < (budget.room(0.0) or 0) < 160_000 // 10
        connection.library_end.send(bytes(100))
        connection.library_end.close()
        assert len(await connection.received(100)) == 100
