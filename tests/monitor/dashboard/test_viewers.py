"""Dashboard viewers: a slow one delays neither another one nor the run."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from sagelink.monitor.dashboard.viewers import DashboardViewer, ViewerHub
from tests.monitor.dashboard.test_verdict_feed import verdict_of
from tests.patience import PATIENCE_S


class Page:
    """A WebSocket that reads every message while `reads` is set, else none."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.received: list[int] = []  # numbers of the frames that it received
        self.changed = asyncio.Event()
        self.closed: int | None = None

    async def accept(self) -> None:
        pass

    async def send_text(self, data: str) -> None:
        await self.reads.wait()
        message = json.loads(data)
        if message["type"] == "frames":
            self.received += [frame["n"] for frame in message["frames"]]
        self.changed.set()

    async def send_bytes(self, data: bytes) -> None:
        await self.reads.wait()

    async def receive_json(self) -> Any:
        await asyncio.Event().wait()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed = code

    async def until(self, n: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while n not in self.received:
                self.changed.clear()
                await self.changed.wait()


async def test_a_viewer_that_never_reads_is_closed_and_delays_no_other(watched, coder):
    hub, good, stuck = ViewerHub(watched, coder, tick_s=0.001), Page(), Page()
    stuck.reads.clear()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(hub.serve(DashboardViewer(good)))
        waiting = group.create_task(hub.serve(DashboardViewer(stuck, send_s=0.5)))
        for seq in range(3, 40):
            watched.feed.write(verdict_of(seq))  # returns at once, whoever reads
            await good.until(seq)
        await waiting
        watching.cancel()
    assert (stuck.closed, stuck.received) == (1008, [])
    assert good.received == list(range(40))


async def test_a_viewer_that_was_hidden_continues(watched, coder):
    page = Page()
    viewer = DashboardViewer(page)
    task = asyncio.create_task(ViewerHub(watched, coder, tick_s=0.001, events_per_tick=5).serve(viewer))
    await page.until(2)
    viewer.visible.clear()
    for seq in range(3, 10):
        watched.feed.write(verdict_of(seq))
    viewer.visible.set()
    await page.until(9)
    assert page.received == list(range(10))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
