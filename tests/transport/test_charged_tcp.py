"""A TCP connection is charged from its first attempt, and begins only where the window has room for it."""

from __future__ import annotations

import socket
import time

import pytest

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.charged_tcp import ChargedTcp
from sagelink.transport.wire_cost import WireCharger

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="no TCP counters on this system")


async def test_a_full_window_does_not_even_connect() -> None:
    budget = UplinkBudget(16_000, 1.0)
    assert budget.charge(0.0, 16_000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = ChargedTcp(WireCharger(WireLedger(budget, lambda: 0.0)), *listener.getsockname())
        with pytest.raises(OSError, match="timed out"):
            await tcp.open(0.05)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_refused_connection_costs_its_attempt() -> None:
    budget = UplinkBudget(None, 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        await ChargedTcp(WireCharger(WireLedger(budget, time.monotonic)), host, port).open(5.0)
    assert 8 * 74 <= budget.total_bits < 8 * 200
