"""Requests of an event source: missed events after each connection, and log lines that do not repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from sagelink.pipeline.tasks import background
from sagelink.pipeline.types import FrameEvent
from sagelink.stages.nvr import event_requests as module
from sagelink.stages.nvr.contract import PictureMissing, Sighting
from sagelink.stages.nvr.event_book import BookLimits, EventBook
from sagelink.stages.nvr.event_requests import EventRequests


class Source:
    """Answers the next requests with the errors of `failures`."""

    topics = ("t",)
    fetches = True

    def __init__(self, *failures: str) -> None:
        self.failures = [*failures]
        self.since: list[float] = []

    def receive(self, topic: str, payload: bytes) -> Sequence[Sighting]:
        return ()

    async def fetch(self, event: FrameEvent, ended: bool) -> bytes:
        return b"picture"

    async def missed(self, since_s: float) -> Sequence[Sighting]:
        if self.failures:
            raise PictureMissing(self.failures.pop(0), outage=True)
        self.since.append(since_s)
        return [Sighting(FrameEvent(f"e{len(self.since)}", "yard", "dog"), ended=True)]


@pytest.fixture
def waits(monkeypatch):
    monkeypatch.setattr(module, "_WAITS_S", (0.0,) * 4)


async def test_missed_events_are_those_of_an_hour_before_the_start_and_of_each_outage(waits, caplog):
    source, taken = Source("away", "away"), asyncio.Queue[Sequence[Sighting]]()
    book = EventBook(BookLimits(), True, lambda *_: None)
    requests = EventRequests(source, book, "frigate:x", taken.put_nowait, lambda: None)
    began_s = time.time()
    async with asyncio.timeout(60), background(requests.catch_up()):
        requests.connected()
        (first,) = await taken.get()
        requests.disconnected()
        requests.connected()
        (second,) = await taken.get()
    assert (first.event.id, second.event.id) == ("e1", "e2")
    assert source.since == pytest.approx([began_s - 3600] * 2, abs=60)
    assert caplog.text.count("picture_missing") == 1
