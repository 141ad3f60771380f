"""Datagrams leave in order when the window has room for them; without room they wait for a short time, then drop."""

from __future__ import annotations

import asyncio

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.webrtc.datagram_gate import DatagramGate
from sagelink.transport.wire_cost import WireCharger
from tests.patience import PATIENCE_S

RECORD, STUN = b"\x17", b"\x00"  # first bytes of a DTLS record with data, and of a STUN message


class Gated:
    def __init__(self, rate_bps: float | None) -> None:
        self.now_s = 0.0
        self.budget = UplinkBudget(rate_bps, 1.0)
        self.charger = WireCharger(WireLedger(self.budget, lambda: self.now_s))
        self.gate = DatagramGate(self.charger)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.gate.send(data, 42, lambda: self.sent.append(data))


async def test_each_datagram_is_charged_with_its_headers() -> None:
    gated = Gated(None)
    gated.send(RECORD + bytes(99))
    gated.send(STUN + bytes(19))
    assert [len(data) for data in gated.sent] == [100, 20]
    assert gated.budget.total_bits == 8 * (142 + 62)


async def test_data_is_paid_by_messages_and_ice_is_not() -> None:
    gated = Gated(10_000)
    assert gated.budget.charge(0.0, 2000)
    gated.charger.prepay("door", 2000)
    gated.send(STUN + bytes(19))
    assert gated.budget.total_bits == 2000 + 8 * 62
    gated.send(RECORD + bytes(99))
    assert gated.budget.total_bits == 2000 + 8 * 62


async def test_the_datagrams_of_a_message_leave_together() -> None:
    gated = Gated(4000)
    assert gated.budget.charge(0.0, 2400)
    gated.charger.prepay("door", 2400)
    gated.budget.charge_sent(0.0, 2000)  # bits of the connection itself
    for _ in range(2):
        gated.send(RECORD + bytes(149))
    assert gated.sent == []  # there is room for the first one only
    gated.now_s = 1.1
    await asyncio.sleep(0.05)
    assert [len(data) for data in gated.sent] == [150, 150]


async def test_without_room_a_datagram_waits_and_leaves_when_the_window_has_moved_on() -> None:
    gated = Gated(2000)
    for size in (150, 100, 90):
        gated.send(RECORD + bytes(size - 1))
    assert [len(data) for data in gated.sent] == [150]
    gated.now_s = 1.1
    await asyncio.sleep(0.05)
    assert [len(data) for data in gated.sent] == [150, 100]  # the third still waits for the second
    assert gated.budget.peak_window_bits <= 2000
    gated.gate.close()
    gated.now_s = 9.0
    await asyncio.sleep(0.05)
    assert len(gated.sent) == 2


async def test_a_datagram_that_finds_no_room_is_dropped() -> None:
    gated = Gated(1000)
    gated.send(STUN + bytes(999))
    gated.send(STUN + bytes(19))
    async with asyncio.timeout(PATIENCE_S):
        while not gated.sent:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (gated.gate.dropped, [len(data) for data in gated.sent]) == (1, [20])
    assert gated.budget.total_bits == 8 * 62


async def test_the_number_of_waiting_datagrams_is_bounded() -> None:
    gated = Gated(1000)
    for _ in range(1000):
        gated.send(RECORD + bytes(999))
    assert gated.gate.dropped == 1000 - 256
    gated.gate.close()
