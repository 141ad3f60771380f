"""Pictures of events at a console: complete, in parts, again, wrong, and too many."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sagelink.monitor.console.console_view import ConsoleView
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.picture_shelf import PictureShelf, ShelvedPicture
from sagelink.monitor.console.routes import console_app
from sagelink.net.access_guard import Tokens
from sagelink.transport.picture_parts import PicturePart
from tests.monitor.console.conftest import DOOR, LORRY

EVENT = str(LORRY["id"])


@pytest.fixture(scope="module")
def avif() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 40), "red").save(file, "AVIF")
    return file.getvalue()


def parts(data: bytes, event: str = EVENT, size: int = 150) -> list[PicturePart]:
    return [PicturePart(event, len(data), at, data[at : at + size]) for at in range(0, len(data), size)]


def send(fleet: Fleet, *sent: PicturePart) -> None:
    for part in sent:
        fleet.picture(DOOR, part, 2000, time.monotonic())


def test_a_picture_that_came_in_parts_is_shown(view: ConsoleView, fleet: Fleet, avif: bytes) -> None:
    client = TestClient(console_app(view, Tokens()), base_url="http://127.0.0.1:8700")
    path = f"/api/cameras/{DOOR}/events/{EVENT}/picture"
    first, *rest = parts(avif)
    send(fleet, first, first)
    assert (client.get(path).status_code, client.get(f"/api/cameras/{DOOR}").json()["timeline"][0]["has_picture"]) == (
        404,
        False,
    )
    send(fleet, *rest)
    answer = client.get(path)
    assert (answer.content, answer.headers["content-type"]) == (avif, "image/avif")
    assert client.get(f"/api/cameras/{DOOR}").json()["timeline"][0]["has_picture"] is True
    fleet.event(DOOR, LORRY | {"action": "close", "end_s": 4.0}, 900, time.monotonic())
    assert client.get("/api/events").json()["events"][0]["has_picture"] is True


def test_strays_are_counted_and_change_nothing(fleet: Fleet, metrics, avif: bytes) -> None:
    first, second, *_ = parts(avif)
    wrong = PicturePart(EVENT, 500, 0, b"GIF89a" + bytes(200))
    send(fleet, second, wrong, *parts(avif, "unknown"))
    fleet.picture("south/nobody", first, 2000, 0.0)
    assert fleet.pictures.get(DOOR, EVENT) is None
    counted = metrics.registry.get_sample_value("sagelink_console_ignored_messages_total", {"reason": "stray_picture"})
    assert counted == 2 + len(parts(avif))


def test_the_picture_of_a_withdrawn_event_goes(fleet: Fleet, avif: bytes) -> None:
    send(fleet, *parts(avif))
    assert fleet.pictures.get(DOOR, EVENT) == avif
    fleet.event(DOOR, LORRY | {"action": "withdraw"}, 900, 1.0)
    assert fleet.pictures.get(DOOR, EVENT) is None


def test_the_node_with_the_most_loses_its_oldest():
    shelf = PictureShelf(1000)
    shelf.put("a/1", "e", ShelvedPicture(100, bytes(100)))
    for number in range(20):
        shelf.put("b/1", f"e{number}", ShelvedPicture(100, bytes(100)))
    assert shelf.get("a/1", "e") == bytes(100)
    assert [shelf.get("b/1", f"e{number}") is None for number in (0, 10, 11, 19)] == [True, True, False, False]
