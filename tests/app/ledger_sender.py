"""A process that sends as much as its budget allows, with the real link and the real ledger of a run, without models.

A test can kill and restart it many times within one window.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sagelink.app.edge.budgets import open_budgets
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.clock import MonotonicClock
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.link import MqttConfig
from sagelink.stages.budget_meter import affordable_bytes
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.topics import Topics

_EVERY_S = 0.02
_MAX_BYTES = 3000


async def send(url: str, node: str, rate: str, window: str, ledger: Path) -> None:
    settings = {"capture.source": "synthetic:1", "budget.uplink": rate, "budget.window": window}
    budgets = open_budgets(load_config(None, settings | {"budget.ledger": str(ledger)}), live=True)
    assert budgets.ledger is not None
    clock, budget, account = MonotonicClock(), budgets.site, budgets.accounts["camera"]
    budgets.ledger.start(clock.elapsed_s())
    wire = WireLedger(budget, clock.elapsed_s, budgets.accounts)
    broker = open_broker(url, MqttConfig(), "server")
    info = CameraInfo(16, 14, 0, 1.0)
    async with (
        budgets.ledger.running(),
        MqttEdgeLink(broker, Topics("sagelink"), node, ["camera"], info, wire_ledger=wire) as link,
    ):
        while True:
            await asyncio.sleep(_EVERY_S)
            account.claim(clock.elapsed_s())
            allowance = account.allowance(clock.elapsed_s())
            assert allowance is not None
            size = affordable_bytes(lambda count: link.wire_bits("camera", count), allowance, _MAX_BYTES)
            if size < 200 or link.refusal() is not None:
                continue
            bits = link.wire_bits("camera", size)
            await budgets.ledger.reserve(lambda bits=bits: account.is_covered(clock.elapsed_s(), bits))
            if account.charge(clock.elapsed_s(), bits):
                await link.send("camera", os.urandom(size))


def main(url: str, node: str, rate: str, window: str, ledger: Path) -> None:
    asyncio.run(send(url, node, rate, window, ledger))
