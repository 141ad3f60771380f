"""Requests to Frigate, by a service that answers as a test says."""

from __future__ import annotations

import json
from typing import cast

import pytest

from sagelink.net.http_client import HttpAnswer, HttpService, HttpTooLarge, HttpUnreachable
from sagelink.stages.nvr.contract import PictureMissing
from sagelink.stages.nvr.frigate_api import Delivery, FrigateApi


class Service:
    url = "http://frigate:5000"

    def __init__(self, *answers: int | Exception, body: bytes = b"") -> None:
        self._answers = [*answers]
        self._body = body
        self.requests: list[tuple[str, str, bytes]] = []

    async def request(self, method: str, path: str, body: bytes = b"", **_: object) -> HttpAnswer:
        self.requests.append((method, path, body))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return HttpAnswer(answer, self._body if answer == 200 else b"")


def api(service: Service) -> FrigateApi:
    return FrigateApi(cast(HttpService, service))


@pytest.mark.parametrize(
    ("answer", "outage", "text"),
    [
        (404, False, "not found"),
        (500, False, "answers 500"),
        (200, False, "an empty answer"),
        (HttpTooLarge("an answer of more than 9 bytes"), False, "more than 9 bytes"),
        (401, True, "SAGELINK_FRIGATE_TOKEN"),
        (302, True, "name the final address in frigate.url"),
        (502, True, "answers 502"),
        (HttpUnreachable("Connection refused"), True, "Connection refused"),
    ],
)
async def test_a_missing_picture_says_whether_frigate_is_away(answer, outage, text):
    with pytest.raises(PictureMissing, match=text) as error:
        await api(Service(answer)).picture("a", False, True)
    assert error.value.outage == outage


async def test_after_its_end_an_event_has_its_stored_pictures():
    service = Service(404, 404, 200, body=b"jpeg")
    assert await api(service).picture("a", True, True) == b"jpeg"
    paths = [path.removeprefix("/api/events/a/").partition("?")[0] for _, path, _ in service.requests]
    assert paths == ["snapshot-clean.webp", "snapshot-clean.png", "snapshot.jpg"]


@pytest.mark.parametrize(
    ("answer", "delivery"),
    [
        (200, Delivery.WRITTEN),
        (404, Delivery.NO_EVENT),
        (422, Delivery.REFUSED),
        (302, Delivery.LATER),
        (401, Delivery.LATER),
        (503, Delivery.LATER),
        (HttpUnreachable("Connection refused"), Delivery.LATER),
    ],
)
async def test_a_sub_label_names_its_camera(answer, delivery):
    service = Service(answer)
    result = await api(service).set_sub_label("a", "rex", 0.9, "yard")
    assert result.delivery is delivery
    ((method, path, body),) = service.requests
    assert (method, path) == ("POST", "/api/events/a/sub_label")
    assert json.loads(body) == {"subLabel": "rex", "subLabelScore": 0.9, "camera": "yard"}
