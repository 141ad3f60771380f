"""The labels of the dashboard over HTTP: labels, undo, skip, pictures, the zip, teaching, and who may use them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sagelink.monitor.dashboard.routes import dashboard_app, label_app
from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.folder import FrameKey, LabelFolder
from sagelink.monitor.labelling.recent_frames import RecentFrames
from sagelink.pipeline.errors import UsageError
from tests.monitor.dashboard.test_routes import HOST, TOKEN
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of


class FakeTeacher:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.busy = False

    def state(self) -> dict[str, Any]:
        return {
            "reason": None,
            "progress": {"work": "edge features", "done": 1, "total": 2, "left_s": None} if self.busy else None,
            "outcome": None,
            "can_use": False,
            "can_take_back": False,
            "head": None,
            "missing": [],
        }

    def begin(self, without_missing: bool = False) -> None:
        self.calls.append(f"begin {without_missing}")

    def stop(self) -> None:
        self.calls.append("stop")

    def use(self) -> None:
        raise UsageError("no head waits to be used")

    def take_back(self) -> None:
        self.calls.append("back")

    def close(self) -> None:
        self.calls.append("close")


def desk_of(folder: Path) -> LabelDesk:
    recent = RecentFrames(lambda _: LABELS)
    for seq in range(3):
        recent.keep(verdict_of(seq))
        recent.sample([verdict_of(seq)])
    return LabelDesk(recent.view(), LabelFolder(folder, "now"), lambda: ("open", "shut"), FakeTeacher())


@pytest.fixture
def desk(tmp_path) -> Iterator[LabelDesk]:
    desk = desk_of(tmp_path / "labels")
    yield desk
    desk.close()


@pytest.fixture
def client(watched, coder, desk) -> TestClient:
    return TestClient(dashboard_app(replace(watched, labels=LabelDesks(desk)), coder, None), base_url=HOST)


def frame(seq: int, name: object) -> dict[str, object]:
    return {"camera": "camera", "seq": seq, "label": name}


def test_a_label_a_second_one_and_undo(client, desk):
    state = client.post("/api/labels", json=frame(1, "open")).json()
    assert state["classes"] == [{"name": "open", "pictures": 1}, {"name": "shut", "pictures": 0}]
    assert state["labels"] == [["camera", 1, "open"]]
    assert client.post("/api/labels", json=frame(1, " side gate ")).json()["labels"] == [["camera", 1, "side gate"]]
    assert client.post("/api/labels/undo").json()["labels"] == [["camera", 1, "open"]]
    assert client.post("/api/labels/undo").json()["labels"] == []
    assert client.post("/api/labels/undo").status_code == 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the camera's name"),
        (frame(1, None), "the name of a class"),
        (frame(1, "a/b"), "contains '/'"),
        (frame(1, "OPEN"), "too alike"),
        (frame(1, "x\x1b[2J"), "contains"),
        (frame(77, "open"), "no longer stored"),
        ({"camera": "camera", "seq": -1, "label": "open"}, "whole number"),
        ({"camera": "camera", "seq": True, "label": "open"}, "whole number"),
        ({"camera": ["x"], "seq": 1, "label": "open"}, "the camera's name"),
        ({"camera": "x" * 5000, "seq": 1, "label": "open"}, "up to 4096 bytes"),
        (frame(1, "open") | {"group": "x"}, "unknown key 'group'; accepted: camera, seq, label"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_a_reason(client, desk, values, message):
    answer = client.post("/api/labels", json=values)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert desk.folder.labelled() == {}


@pytest.mark.parametrize("path", ["labels", "labels/class", "labels/undo", "labels/skip", "labels/hold", "teach/begin"])
def test_a_body_that_is_no_json_object_is_refused_with_the_fault(client, desk, path):
    client.post("/api/labels", json=frame(1, "open"))
    for body, fault in (("{'camera': 1}", "not JSON"), ("[1]", "got a list"), (b'{"a": "\xff"}', "not UTF-8 text")):
        answer = client.post(f"/api/{path}", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("accepted: a JSON object; ")
        assert fault in answer.json()["error"]
    assert len(desk.folder.labelled()) == 1
    assert desk.teacher.calls == []


def test_a_query_that_a_path_does_not_take_is_refused(client):
    for path in ("labels?heads=x", "labels/pictures.zip?class=open", "labels/picture/camera/1?size=small"):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 400
        assert "unknown key" in answer.json()["error"]


def test_a_frame_leaves_the_list_when_it_is_labelled_or_skipped(client):
    queue = client.get("/api/labels").json()["queue"]
    first = {"camera": queue[0]["camera"], "seq": queue[0]["seq"]}
    assert client.post("/api/labels/skip", json=first).json()["queue"] == []
    assert client.post("/api/labels/hold", json=first).status_code == 200


def test_pictures_and_the_zip(client):
    assert client.get("/api/labels/picture/camera/1").content.startswith(b"\xff\xd8")
    assert client.get("/api/labels/picture/camera/1?small").content.startswith(b"\xff\xd8")
    assert client.get("/api/labels/picture/camera/99").status_code == 404
    assert client.get("/api/labels/picture/camera/x").status_code == 400
    client.post("/api/labels", json=frame(1, "open"))
    client.post("/api/labels", json=frame(2, "shut"))
    with zipfile.ZipFile(io.BytesIO(client.get("/api/labels/pictures.zip").content)) as archive:
        assert archive.testzip() is None
        assert [name.split("/")[1] for name in archive.namelist() if name.startswith("pictures/")] == ["open", "shut"]
        assert b"sagelink teach pictures" in archive.read("README.txt")


def test_teaching_is_passed_on(client, desk):
    assert client.post("/api/teach/begin").status_code == 200
    client.post("/api/teach/begin", json={"without_missing": True})
    client.post("/api/teach/stop")
    client.post("/api/teach/back")
    assert desk.teacher.calls == ["begin False", "begin True", "stop", "back"]
    refused = client.post("/api/teach/use")
    assert (refused.status_code, refused.json()["error"]) == (400, "no head waits to be used")
    assert client.post("/api/teach/explode").status_code == 400
    refused = client.post("/api/teach/begin", json={"without_missing": "yes"})
    assert refused.json()["error"] == "without_missing: accepted: true or false"


def test_without_a_folder_the_page_gets_the_reason(watched, coder):
    desk = LabelDesk(RecentFrames(lambda _: LABELS).view(), None, lambda: (), None, closed="no folder")
    client = TestClient(dashboard_app(replace(watched, labels=LabelDesks(desk)), coder, None), base_url=HOST)
    assert client.get("/api/labels").json()["closed"] == "no folder"
    for path in ("labels", "labels/undo", "labels/class", "labels/skip"):
        assert client.post(f"/api/{path}", json=frame(1, "open") | {"name": "x"}).status_code == 400
    assert client.get("/api/labels/pictures.zip").json() == {"error": "no folder"}
    assert client.get("/label").status_code == 200


def test_labels_have_the_guards_of_every_other_change(watched, coder, desk):
    app = dashboard_app(replace(watched, labels=LabelDesks(desk)), coder, TOKEN, wrong_token_s=0)
    guarded = TestClient(app, base_url="http://camera.example:8600", follow_redirects=False)
    for path in ("labels", "labels/undo", "labels/skip", "teach/begin"):
        assert guarded.post(f"/api/{path}", json=frame(1, "open")).status_code == 401
    assert guarded.get("/api/labels/pictures.zip").status_code == 401
    assert guarded.get("/api/labels/picture/camera/1").status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    foreign = guarded.post("/api/labels", json=frame(1, "open"), headers=headers | {"Origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert guarded.post("/api/labels", json=frame(1, "open"), headers=headers).status_code == 200
    assert desk.folder.label_of(FrameKey("camera", 1)) == "open"


def test_the_labelling_page_alone(coder, desk):
    client = TestClient(label_app(LabelDesks(desk), coder, None), base_url=HOST)
    page = client.get("/").text
    assert 'src="/static/label.js"' in page
    assert "https://" not in page
    assert client.get("/static/label.js").status_code == 200
    assert client.post("/api/labels", json=frame(1, "open")).status_code == 200
    assert client.post("/api/budget", json={"uplink": "1kbit/s"}).status_code == 404


def test_the_documented_keys_are_the_real_ones(client):
    page = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text()
    table = page.split("| key of `/api/labels` | meaning |")[1].split("\n\n")[0]
    documented = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert documented == client.get("/api/labels").json().keys()


def test_a_further_head_has_labels_and_teaching_of_its_own(watched, coder, tmp_path, desk):
    light = desk_of(tmp_path / "labels-light")
    client = TestClient(dashboard_app(replace(watched, labels=LabelDesks(desk, {"light": light})), coder, None), HOST)
    assert client.post("/api/labels?head=light", json=frame(1, "day")).json()["head"] == "light"
    assert client.post("/api/labels", json=frame(1, "open")).json()["labels"] == [["camera", 1, "open"]]
    assert client.get("/api/labels?head=light").json()["labels"] == [["camera", 1, "day"]]
    assert [each["name"] for each in client.get("/api/labels").json()["heads"]] == ["", "light"]
    packed = zipfile.ZipFile(io.BytesIO(client.get("/api/labels/pictures.zip?head=light").content))
    assert any(name.startswith("pictures/day/") for name in packed.namelist())
    refused = client.get("/api/labels?head=<b>")
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "this page has no head '<b>'; accepted: '', 'light'",
    )
    light.teacher.busy = True
    refused = client.post("/api/teach/begin", json={})
    assert (refused.status_code, "head 'light' is being taught" in refused.json()["error"]) == (400, True)
    assert client.post("/api/teach/begin?head=light", json={}).status_code == 200
    light.close()
