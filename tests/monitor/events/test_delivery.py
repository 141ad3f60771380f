"""Delivery from the queue: order, attempts that fail, refusals, the command, and what goes first over the uplink."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sagelink.monitor.events import delivery as module
from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.command import EventCommand
from sagelink.monitor.events.delivery import Attempt, EventDelivery
from sagelink.monitor.events.mqtt import EventPublisher, alert
from sagelink.pipeline.files.outbox import Outbox, OutboxItem
from sagelink.pipeline.tasks import background
from tests.patience import PATIENCE_S

RECORD = {
    **{"id": "gate-r-1", "rule": "r", "action": "open", "camera": "gate", "label": "lorry", "prob": 0.912345},
    **{"start_s": 1.0, "end_s": None, "wall_s": 1700000000.123456, "best_seq": 3, "cause": "edge", "wire_bits": 0},
}


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    box = Outbox(None, "events.queue", 0.0, 1e9)
    for number in range(4):
        box.put(["hook"], f"k{number}", str(number), 0.0)
    yield box
    box.close()


async def delivered(box: Outbox, answer: Callable[[OutboxItem, int], Attempt], until: int) -> list[str]:
    """The contents of the attempts, until so many have been made and the queue is at rest."""
    attempts: list[str] = []
    enough = asyncio.Event()

    async def send(item: OutboxItem) -> Attempt:
        attempts.append(item.content)
        if len(attempts) == until:
            enough.set()
        return answer(item, len(attempts))

    delivery = EventDelivery(box, "hook", "hook", send)
    async with asyncio.timeout(PATIENCE_S), background(delivery.run()):
        await enough.wait()
        await delivery.drain()
    return attempts


async def test_events_are_delivered_in_order(box: Outbox) -> None:
    assert await delivered(box, lambda item, count: Attempt("delivered"), 4) == ["0", "1", "2", "3"]
    assert box.waiting("hook", 10) == []


async def test_a_failed_attempt_is_repeated_before_the_next_event(box: Outbox) -> None:
    def answer(item: OutboxItem, count: int) -> Attempt:
        return Attempt("later", "away") if count in (2, 3) else Attempt("delivered")

    assert await delivered(box, answer, 6) == ["0", "1", "1", "1", "2", "3"]


async def test_an_event_that_is_refused_does_not_hold_up_the_next(
    box: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(item: OutboxItem, count: int) -> Attempt:
        return Attempt("refused", "HTTP status 422") if item.content == "1" else Attempt("delivered")

    assert await delivered(box, answer, 4) == ["0", "1", "2", "3"]
    assert "event_refused receiver=hook id=k1 reason='HTTP status 422'" in caplog.text


async def test_an_event_that_comes_later_is_delivered(box: Outbox) -> None:
    sent: list[str] = []

    async def send(item: OutboxItem) -> Attempt:
        sent.append(item.content)
        return Attempt("delivered")

    delivery = EventDelivery(box, "hook", "hook", send)
    async with background(delivery.run()):
        await asyncio.sleep(0)
        await delivery.drain()
        box.put(["hook"], "late", "late", 0.0)
        delivery.notify()
        await delivery.drain()
    assert sent[-1] == "late"


class FakeEventLink:
    """An EventLink that takes everything."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.has_room = True

    def pay_event(self, camera: str, payload_bytes: int) -> bool:
        return self.has_room

    async def connected(self) -> None:
        pass

    async def publish_event(self, camera: str, payload: bytes) -> str | None:
        self.published.append((camera, payload))
        return None


def test_an_alert_is_short() -> None:
    camera, payload = alert(json.dumps(RECORD))
    assert camera == "gate"
    assert len(payload) < 200
    values = json.loads(payload)
    assert values.keys() == RECORD.keys() - {"camera", "end_s"}
    assert (values["prob"], values["wall_s"]) == (0.912, 1700000000.123)


async def test_nothing_else_is_sent_while_an_event_waits_for_room() -> None:
    charges, link = AlertCharges(), FakeEventLink()
    link.has_room = False
    item = OutboxItem(1, "mqtt", "k", json.dumps(RECORD), 0.0, False)
    task = asyncio.create_task(EventPublisher(link, charges).send(item))
    await asyncio.sleep(0.05)
    assert (charges.pending(), link.published) == (True, [])
    link.has_room = True
    assert (await task).outcome == "delivered"
    assert (charges.pending(), [camera for camera, _ in link.published]) == (False, ["gate"])


async def test_a_command_gets_the_event(tmp_path: Path) -> None:
    out = tmp_path / "out"
    item = OutboxItem(1, "command", "k", json.dumps(RECORD | {"label": "$(touch hacked); 'x"}), 0.0, False)
    command = EventCommand(f'(cat; printf "%s" "$SAGELINK_EVENT_LABEL") > {out}')
    assert (await command.send(item)).outcome == "delivered"
    line, label = out.read_text().split("\n")
    assert json.loads(line)["id"] == "gate-r-1"
    assert label == "$(touch hacked); 'x"


@pytest.mark.parametrize(("command", "reason"), [("exit 3", "exit code 3"), ("sleep 30", "stopped after 0.2 s")])
async def test_a_command_that_fails_is_reported_once(
    command: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    item = OutboxItem(1, "command", "k", json.dumps(RECORD), 0.0, False)
    runner = EventCommand(command, timeout_s=0.2)
    assert [(await runner.send(item)).outcome for _ in range(2)] == ["delivered", "delivered"]
    assert caplog.text.count(reason) == 1
