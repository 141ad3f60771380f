"""Fixtures: a console with two cameras, without a broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.change_desk import ChangeDesk
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.console_view import ConsoleView, Picture
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.metrics import ConsoleMetrics
from sagelink.server.evidence_view import decode_view
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.operator_commands import CommandOutcome
from sagelink.transport.reply_message import encode_reply
from tests.fakes import PATCH, SIDE, make_evidence, make_reply

INFO = CameraInfo(SIDE, PATCH, "0123", 1.0)
DOOR = "north/door"
LORRY = {
    "id": "a1", "rule": "lorry", "action": "open", "camera": "door", "label": "lorry", "prob": 0.9, "start_s": 1.0,
    "end_s": None, "wall_s": 5.0, "best_seq": 3, "cause": "edge", "wire_bits": 800,
}  # fmt: skip


class NumberedNames:
    """Names classes by their numbers."""

    def label(self, classes: str, head: bytes, class_id: int | None) -> str:
        return "unknown" if class_id is None else f"class {class_id}"

    def knows_head(self, fingerprint: bytes) -> bool:
        return False

    def add_file(self, content: bytes) -> None:
        pass


@pytest.fixture
def metrics() -> ConsoleMetrics:
    return ConsoleMetrics(CollectorRegistry())


@pytest.fixture
def fleet(metrics: ConsoleMetrics) -> Fleet:
    fleet = Fleet(NumberedNames(), metrics.count_ignored)
    metrics.follow(lambda: len(fleet.records), lambda: fleet.messages)
    now_s = time.monotonic()
    fleet.online(DOOR, INFO, now_s)
    fleet.online("south/<b>yard</b>", INFO, now_s)
    fleet.offline("south/<b>yard</b>", "the connection was lost", now_s)
    fleet.evidence(Message(DOOR, make_evidence(7).message, now_s), 9000)
    fleet.reply(DOOR, encode_reply(make_reply(7)), now_s + 0.05)
    fleet.event(DOOR, LORRY, 900, now_s)
    return fleet


async def decode(record: CameraRecord) -> Picture:
    if record.message is None:
        raise ValueError("no evidence yet")
    return decode_view(record.message.data, SIDE, PATCH, None)


class Camera:
    """Answers changes as an edge does."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refusal: str | None = None

    async def send(self, camera: str, values: bytes) -> CommandOutcome:
        self.asked.append((camera, json.loads(values)))
        if self.refusal is not None:
            return CommandOutcome(1, False, self.refusal)
        settings = {"uplink": "8 kbit/s", "rate_bps": 8000.0, "window_s": 1.0, "gate": "always", "threshold": 0.0}
        self._fleet.settings(camera, settings | {"paused": False} | json.loads(values))
        return CommandOutcome(1, True, "")


@pytest.fixture
def camera(fleet: Fleet) -> Camera:
    return Camera(fleet)


@pytest.fixture
def changes(camera: Camera) -> ChangeDesk:
    return ChangeDesk(camera.send, lambda name: None, ["always", "never", "min_entropy"])


@pytest.fixture
def view(fleet: Fleet, metrics: ConsoleMetrics, changes: ChangeDesk) -> ConsoleView:
    return ConsoleView("mqtt://broker:1883", fleet, metrics.registry, lambda: None, changes, None, decode)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConsoleStore]:
    store = ConsoleStore(tmp_path / "store")
    yield store
    store.close()
