"""Delivery: until Frigate has it, nothing twice, nothing lost, and every refusal with a reason."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from sagelink.pipeline.files.outbox import Outbox
from sagelink.pipeline.tasks import background
from sagelink.stages.nvr import delivery as module
from sagelink.stages.nvr.delivery import SubLabelDelivery
from sagelink.stages.nvr.frigate_api import Delivery, DeliveryResult
from sagelink.stages.nvr.sub_label import RECEIVER, SubLabel
from tests.patience import PATIENCE_S

LATER = DeliveryResult(Delivery.LATER, "away")
WRITTEN = DeliveryResult(Delivery.WRITTEN)


class FakeApi:
    """Answers with the next result of `results`, then with WRITTEN."""

    url = "http://frigate"

    def __init__(self, *results: DeliveryResult) -> None:
        self.results = list(results)
        self.posts: list[tuple[str, str]] = []
        self.known: dict[str, str] = {}  # what Frigate has
        self.at_once = self.peak = 0

    async def set_sub_label(self, event_id: str, label: str, score: float, camera: str) -> DeliveryResult:
        self.posts.append((event_id, label))
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        result = self.results.pop(0) if self.results else WRITTEN
        if result.delivery is Delivery.WRITTEN:
            self.known[event_id] = label
        return result

    async def sub_label(self, event_id: str) -> str | None:
        return self.known.get(event_id)


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(module, "_UNKNOWN_EVENT_WAITS_S", (0.0, 0.0))
    box = Outbox(tmp_path / "q.sqlite", "frigate.queue", 0.0, 86_400.0)
    yield box
    box.close()


def put(box: Outbox, event: str) -> None:
    box.put([RECEIVER], event, SubLabel(event, "rex", 0.9, "yard").content(), 0.0)


async def deliver(box: Outbox, api: FakeApi, count: int) -> list[tuple[str, str | None]]:
    """Runs until `count` deliveries are over."""
    done: list[tuple[str, str | None]] = []
    delivery = SubLabelDelivery(box, api, lambda item, reason: done.append((item.event, reason)))
    async with background(delivery.run()), asyncio.timeout(PATIENCE_S):
        while len(done) < count:
            delivery.notify()
            await asyncio.sleep(0.01)
    return done


async def test_each_is_written_once_and_few_at_a_time(box):
    for number in range(40):
        put(box, f"e{number}")
    api = FakeApi()
    done = await deliver(box, api, 40)
    assert sorted(done) == sorted((f"e{number}", None) for number in range(40))
    assert len(api.posts) == 40
    assert api.peak <= 4
    assert box.waiting(RECEIVER, 1) == []


async def test_frigate_away_loses_nothing_and_is_logged_once(box, caplog):
    caplog.set_level(logging.INFO)
    for number in range(3):
        put(box, f"e{number}")
    api = FakeApi(*[LATER] * 8)
    done = await deliver(box, api, 3)
    assert sorted(done) == [("e0", None), ("e1", None), ("e2", None)]
    assert caplog.text.count("sub_labels_wait") == 1
    assert caplog.text.count("event=sub_labels_written") == 1


async def test_a_lost_answer_does_not_lead_to_a_second_write(box):
    put(box, "a")
    api = FakeApi(LATER)
    api.known["a"] = "rex"  # it was written, but the answer was lost
    assert await deliver(box, api, 1) == [("a", None)]
    assert api.posts == [("a", "rex")]


async def test_an_unknown_event_is_tried_again_for_some_time(box):
    unknown = DeliveryResult(Delivery.NO_EVENT, "not found")
    put(box, "a")
    assert await deliver(box, FakeApi(unknown), 1) == [("a", None)]
    put(box, "b")
    assert await deliver(box, FakeApi(*[unknown] * 5), 1) == [("b", "Frigate does not know the event")]
    assert box.waiting(RECEIVER, 1) == []


async def test_a_full_disk_is_waited_for(box, caplog, monkeypatch):
    put(box, "a")
    confirm, errors = box.confirm, [OSError(errno.ENOSPC, "no room on the disk")]

    def confirm_later(item):
        if errors:
            raise errors.pop()
        confirm(item)

    monkeypatch.setattr(box, "confirm", confirm_later)
    api = FakeApi()
    assert await deliver(box, api, 1) == [("a", None)]
    assert api.posts == [("a", "rex")]  # not written again
    assert "sub_labels_wait url=http://frigate reason='no room on the disk'" in caplog.text


async def test_a_refusal_is_final(box, caplog):
    put(box, "a")
    refused = DeliveryResult(Delivery.REFUSED, "422")
    assert await deliver(box, FakeApi(refused), 1) == [("a", "Frigate refuses the sub-label")]
    assert "422" in caplog.text
