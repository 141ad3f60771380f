"""Viewers at their own pace: none holds up another, or the run."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from sagelink.monitor import dashboard_viewers as viewer_module
from sagelink.monitor.dashboard_viewers import DashboardViewer, ViewerHub
from tests.monitor.test_verdict_feed import verdict_of


class Page:
    """A socket that reads all, or none once it has stopped."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.seen: list[int] = []  # numbers of frames
        self.news = asyncio.Event()
        self.closed: int | None = None

    async def accept(self) -> None:
        pass

    async def send_text(self, data: str) -> None:
        await self.reads.wait()
        said = json.loads(data)
        if said["type"] == "frames":
            self.seen += [frame["n"] for frame in said["frames"]]
        self.news.set()

    async def send_bytes(self, data: bytes) -> None:
        await self.reads.wait()

    async def receive_json(self) -> Any:
        await asyncio.Event().wait()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed = code

    async def until(self, n: int) -> None:
        async with asyncio.timeout(20):
            while n not in self.seen:
                self.news.clear()
                await self.news.wait()


async def test_a_viewer_that_never_reads_is_closed_and_holds_up_nobody(watched, coder, monkeypatch):
    monkeypatch.setattr(viewer_module, "_TICK_S", 0.001)
    monkeypatch.setattr(viewer_module, "_SEND_S", 0.5)
    crowd, good, stuck = ViewerHub(watched, coder), Page(), Page()
    stuck.reads.clear()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(crowd.serve(DashboardViewer(good)))
        waiting = group.create_task(crowd.serve(DashboardViewer(stuck)))
        for seq in range(3, 40):
            watched.feed.write(verdict_of(seq))  # returns at once, whoever reads
            await good.until(seq)
        await waiting
        watching.cancel()
    assert (stuck.closed, stuck.seen) == (1008, [])
    assert good.seen == list(range(40))


async def test_a_viewer_that_was_hidden_reads_on(watched, coder, monkeypatch):
    monkeypatch.setattr(viewer_module, "_TICK_S", 0.001)
    monkeypatch.setattr(viewer_module, "_EVENTS_A_TICK", 5)
    page = Page()
    viewer = DashboardViewer(page)
    task = asyncio.create_task(ViewerHub(watched, coder).serve(viewer))
    await page.until(2)
    viewer.visible.clear()
    for seq in range(3, 10):
        watched.feed.write(verdict_of(seq))
    viewer.visible.set()
    await page.until(9)
    assert page.seen == list(range(10))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
