"""What viewers on other machines receive is counted, and charged if asked; loopback costs nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from sagelink.monitor.dashboard.traffic import DashboardTraffic, message_bits
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger

OFFICE, LOOPBACK = "192.0.2.7", "127.0.0.1"


async def serve(traffic: DashboardTraffic, messages: list[dict[str, Any]], client: str = OFFICE) -> list[Any]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await traffic.around(app)({"type": "http", "client": (client, 1)}, receive, send)
    return sent


def body(size: int) -> dict[str, Any]:
    return {"type": "http.response.body", "body": bytes(size), "more_body": False}


async def test_only_other_machines_are_counted() -> None:
    traffic = DashboardTraffic()
    await serve(traffic, [body(5000)], LOOPBACK)
    assert traffic.total_bits == 0
    assert await serve(traffic, [body(5000)]) == [body(5000)]
    assert 8 * 5000 < traffic.total_bits < 8 * 6000
    assert traffic.state() == {"sent_bits": traffic.total_bits, "rate_bps": traffic.total_bits / 10, "charged": False}


async def test_a_charged_page_waits_for_room_and_fits_every_window() -> None:
    now_s = 0.0
    budget = UplinkBudget(16_000, 1.0)
    traffic = DashboardTraffic(WireLedger(budget, lambda: now_s))
    serving = asyncio.create_task(serve(traffic, [body(6000)]))
    while not serving.done():
        await asyncio.sleep(0.06)
        now_s += 0.3
    sent = await serving
    assert b"".join(message["body"] for message in sent) == bytes(6000)
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [False]
    assert budget.total_bits == traffic.total_bits > 48_000
    assert budget.peak_window_bits <= 16_000


async def test_a_picture_without_room_is_not_sent() -> None:
    traffic = DashboardTraffic(WireLedger(UplinkBudget(16_000, 1.0), lambda: 0.0))
    picture = {"type": "websocket.send", "bytes": bytes(9000)}
    text = {"type": "websocket.send", "text": "state"}
    assert await serve(traffic, [picture, text]) == [text]
    assert traffic.total_bits == message_bits(text)
