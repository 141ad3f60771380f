"""Pictures are sent in parts, after events, and go on where they stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sagelink.monitor.events import picture_delivery as module
from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.picture_delivery import PictureDelivery
from sagelink.pipeline.files.picture_queue import PictureQueue
from sagelink.pipeline.tasks import background
from sagelink.transport.picture_parts import PicturePart

DATA = bytes(range(250)) * 4


class FakePictureLink:
    """A PictureLink that takes parts of up to 400 bytes."""

    def __init__(self) -> None:
        self.parts: list[PicturePart] = []
        self.paid: list[int] = []
        self.answers: list[str | None] = []  # for the next parts; then None
        self.complete = asyncio.Event()

    def pay_picture(self, camera: str, event: str, rest_bytes: int) -> int:
        self.paid.append(rest_bytes)
        return min(400, rest_bytes)

    async def connected(self) -> None:
        pass

    async def publish_picture(self, camera: str, part: PicturePart) -> str | None:
        self.parts.append(part)
        answer = self.answers.pop(0) if self.answers else None
        if answer == "gone":
            raise ConnectionError("the connection broke off")
        if answer is None and part.offset + len(part.data) == part.total_bytes:
            self.complete.set()
        return answer


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PictureQueue:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    queue = PictureQueue(tmp_path / "queue.sqlite")
    queue.put("e", "gate", DATA, 0.0)
    return queue


async def test_a_picture_goes_in_parts_that_are_repeated_until_they_arrive(queue: PictureQueue) -> None:
    link = FakePictureLink()
    link.answers = [None, "nobody has subscribed", "gone"]
    async with asyncio.timeout(60), background(PictureDelivery(queue, link, AlertCharges()).run()):
        await link.complete.wait()
    assert [part.offset for part in link.parts] == [0, 400, 400, 400, 800]
    assert b"".join(part.data for part in (link.parts[0], *link.parts[3:])) == DATA
    queue.close()


async def test_a_new_run_goes_on_where_the_last_one_stopped(queue: PictureQueue) -> None:
    queue.note_sent("e", 900)
    link = FakePictureLink()
    async with asyncio.timeout(60), background(PictureDelivery(queue, link, AlertCharges()).run()):
        await link.complete.wait()
    assert [(part.offset, part.data) for part in link.parts] == [(900, DATA[900:])]
    queue.close()


async def test_events_that_wait_go_first(queue: PictureQueue) -> None:
    link, alerts = FakePictureLink(), AlertCharges()
    has_room = False
    alert = asyncio.create_task(alerts.wait_for(lambda: has_room))
    await asyncio.sleep(0)
    async with asyncio.timeout(60), background(PictureDelivery(queue, link, alerts).run()):
        await asyncio.sleep(0.05)
        assert link.paid == []
        has_room = True
        await alert
        await link.complete.wait()
    queue.close()
