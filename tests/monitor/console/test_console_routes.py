"""The console's routes, who may use them, and what an open page receives."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sagelink.app.server.console import console_tokens
from sagelink.monitor.console.routes import console_app
from sagelink.net.access_guard import Tokens
from sagelink.pipeline.errors import UsageError
from tests.monitor.console.conftest import DOOR

HOST = "http://127.0.0.1:8700"
VIEW, CONTROL = "a-token-to-view-with", "a-token-to-control-with"
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def client(view) -> TestClient:
    return TestClient(console_app(view, Tokens()), base_url=HOST, follow_redirects=False)


@pytest.fixture
def guarded(view) -> TestClient:
    app = console_app(view, Tokens(CONTROL, VIEW, "console"), wrong_token_s=0)
    return TestClient(app, base_url="http://hq.example:8700", follow_redirects=False)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_cameras_events_and_evidence(client):
    answer = client.get("/api/cameras").json()
    assert [row["camera"] for row in answer["cameras"]] == ["south/<b>yard</b>", DOOR]
    assert answer["totals"]["events"] == 1
    assert [row["camera"] for row in client.get("/api/cameras?text=door&count=1").json()["cameras"]] == [DOOR]
    assert client.get("/api/cameras?first=999999&count=1").json()["first"] == 1
    assert client.get("/api/cameras?state=&text=&count=").json()["matching"] == 2
    assert client.get("/api/events").json()["events"][0]["camera"] == DOOR
    assert client.get("/api/events?state=closed").json()["events"] == []
    assert client.get(f"/api/cameras/{DOOR}").json()["answers"][0]["label"] == "class 2"
    picture = client.get(f"/api/cameras/{DOOR}/evidence")
    assert (picture.content[:4], picture.headers["x-sagelink-seq"]) == (b"\x89PNG", "7")
    assert client.get("/api/cameras/north/none").status_code == 404
    assert client.get("/api/cameras/south/%3Cb%3Eyard%3C%2Fb%3E/evidence").status_code == 404


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (
            "cameras?stat=offline",
            "unknown key 'stat' in the query (did you mean 'state'?); accepted: sort, text, state, ",
        ),
        ("cameras?state=down", "state 'down'; accepted: running, stalled, offline, events"),
        ("cameras?sort=names", "sort 'names' (did you mean 'name'?); accepted: trouble, name"),
        ("cameras?count=-3", "count '-3'; accepted: a whole number, 1 to 1000"),
        ("cameras?count=1001", "count '1001'; accepted: a whole number, 1 to 1000"),
        ("cameras?first=1.5", "first '1.5'; accepted: a whole number, 0 to 999999999"),
        (f"cameras?text={'x' * 81}", "text has 81 characters; accepted: up to 80"),
        ("cameras?state=offline&state=running", "state is given 2 times in the query; accepted: once"),
        ("events?state=ended", "state 'ended'; accepted: open, closed, withdrawn"),
        ("events?camera=north/door", "unknown key 'camera' in the query; accepted: state, count"),
        ("events?count=many", "count 'many'; accepted: a whole number, 1 to 1000"),
        ("changes?node=north", "unknown key 'node' in the query; accepted: camera"),
        (f"cameras/{DOOR}?units=3", "unknown key 'units' in the query; accepted: none"),
        (f"cameras/{DOOR}/evidence?seq=3", "unknown key 'seq' in the query; accepted: none"),
    ],
)
def test_a_query_that_a_path_does_not_take_is_refused(client, query, error):
    answer = client.get(f"/api/{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


def test_the_documented_keys_are_the_real_ones(client):
    page = (DOCS / "console.md").read_text()
    for path, heading in (("/api/cameras", "key of a camera"), (f"/api/cameras/{DOOR}", "key of one camera")):
        table = page.split(f"| {heading} |")[1].split("\n\n")[0]
        documented = {key for line in table.splitlines() for key in re.findall(r"`(\w+)`", line.split(" | ")[0])}
        values = client.get(path).json()
        row = values["cameras"][0] if "cameras" in values else values
        assert documented == (row.keys() if "cameras" in values else row.keys() - client_row(client).keys())


def client_row(client: TestClient) -> dict[str, Any]:
    return client.get("/api/cameras").json()["cameras"][0]


def test_health_metrics_and_security_headers(view, client):
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").text == "ready\n"
    down = TestClient(console_app(replace(view, trouble=lambda: "mqtt://b: gone\x1b[1m"), Tokens()), base_url=HOST)
    assert (down.get("/readyz").status_code, down.get("/readyz").text) == (503, "mqtt://b: gone\\x1b[1m\n")
    metrics = client.get("/metrics").text
    assert "sagelink_console_cameras 2.0" in metrics
    assert "sagelink_console_observed_messages 3.0" in metrics
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_a_page_receives_what_it_asks_for(client):
    with client.websocket_connect(f"ws{HOST[4:]}/ws") as socket:
        first = json.loads(socket.receive_text())
        assert (first["type"], first["title"], first["role"]) == ("console", "mqtt://broker:1883", "control")
        assert first["policies"][0] == "always"
        fleet = json.loads(socket.receive_text())
        assert (fleet["type"], fleet["matching"], fleet["totals"]["offline"]) == ("fleet", 2, 1)
        socket.send_text(json.dumps({"sort": "name", "text": "door", "first": 0, "count": 5}))
        while (message := json.loads(socket.receive_text()))["matching"] != 1:
            pass
        assert message["rows"][0]["events"] == [{"rule": "lorry", "label": "lorry"}]
        socket.send_text(json.dumps({"camera": DOOR}))
        while (message := json.loads(socket.receive_text()))["type"] != "camera":
            pass
        assert message["timeline"][0]["state"] == "open"
        while "bytes" not in (received := socket.receive()):
            pass
        length = int.from_bytes(received["bytes"][:4])
        header = json.loads(received["bytes"][4 : 4 + length])
        assert (header["seq"], header["units"], received["bytes"][4 + length :][:4]) == (7, [1, 5, 6], b"\x89PNG")


@pytest.mark.parametrize(
    "message", ["[]", "3", '"x"', '{"camera": [1]}', '{"first": "a", "count": null}', '{"sort": {}}']
)
def test_strange_messages_of_a_page_do_no_harm(client, message):
    with client.websocket_connect(f"ws{HOST[4:]}/ws") as socket:
        socket.receive_text()
        socket.send_text(message)
        socket.send_text(json.dumps({"text": "door"}))
        while json.loads(socket.receive_text()).get("matching") != 1:
            pass


def test_roles(guarded):
    assert guarded.get("/").headers["location"] == "/login"
    for path in ("/api/cameras", "/api/events", "/metrics", f"/api/cameras/{DOOR}/evidence", "/static/console.js"):
        assert guarded.get(path).status_code == 401
        assert guarded.get(path, headers=bearer(VIEW)).status_code == 200
        assert guarded.get(path, headers=bearer(CONTROL)).status_code == 200
        assert guarded.get(path, headers=bearer(VIEW + "x")).status_code == 401
    for path in ("/healthz", "/readyz", "/login", "/static/style.css"):
        assert guarded.get(path).status_code == 200
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("ws://hq.example:8700/ws"):
        pass
    for token, role in ((VIEW, "view"), (CONTROL, "control")):
        assert guarded.post("/login", content=f"token={token}\r\n").headers["location"] == "/"
        assert token not in guarded.cookies["console"]
        with guarded.websocket_connect("ws://hq.example:8700/ws") as socket:
            assert json.loads(socket.receive_text())["role"] == role


def test_a_change_is_sent_and_answered_with_what_holds(client, camera):
    url = f"/api/cameras/{DOOR}/change"
    answer = client.post(url, json={"uplink": "8kbit/s"})
    assert (answer.status_code, answer.json()["rate_bps"]) == (200, 8000)
    assert camera.asked == [(DOOR, {"uplink": "8kbit/s"})]
    assert client.get("/api/cameras?text=door").json()["cameras"][0]["budget_bps"] == 8000
    for body, error in (
        ("[]", "accepted: a JSON object; got a list"),
        (
            "{",
            "accepted: a JSON object; not JSON: Expecting property name enclosed in double quotes at line 1 column 2",
        ),
        ("{}", "accepted: a JSON object with one of uplink, gate, threshold, pace, paused, request"),
        ('{"uplnk": 3}', "unknown key 'uplnk' (did you mean 'uplink'?); accepted: uplink, gate, threshold, pace, "),
        ('{"uplink": "8kbit/s", "x": 1}', "unknown key 'x'; accepted: uplink, gate, threshold, pace, "),
        (json.dumps({"uplink": "x" * 500}), "accepted: a JSON object with one of uplink"),
        ("x" * 5000, "the body of the request is too large; accepted: up to 4096 bytes"),
    ):
        refused = client.post(url, content=body)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith(error)
    assert len(camera.asked) == 1
    camera.refusal = "budget: a rate is written like 64kbit/s\x1b"
    refused = client.post(url, json={"uplink": "fast"})
    assert (refused.status_code, refused.json()["error"]) == (400, "budget: a rate is written like 64kbit/s\\x1b")
    kept = client.get(f"/api/changes?camera={DOOR}").json()["changes"]
    assert [(one["change"], one["outcome"]) for one in kept] == [
        ('{"uplink":"fast"}', "budget: a rate is written like 64kbit/s\\x1b"),
        ('{"uplink":"8kbit/s"}', "done"),
    ]
    assert client.get("/api/changes?camera=other").json()["changes"] == []


def test_only_the_control_token_changes_cameras(guarded, camera):
    url, body = f"/api/cameras/{DOOR}/change", {"paused": True}
    for token, code in ((None, 401), (VIEW, 403), (VIEW + "x", 401), (CONTROL, 200)):
        assert guarded.post(url, json=body, headers=bearer(token) if token else {}).status_code == code
    foreign = bearer(CONTROL) | {"origin": "http://evil.example"}
    assert guarded.post(url, json=body, headers=foreign).status_code == 403
    assert len(camera.asked) == 1


def test_another_host_name_is_refused_on_loopback(client):
    assert client.get("/api/cameras", headers={"host": "evil.example"}).status_code == 421


def test_tokens_of_the_environment(monkeypatch):
    assert not console_tokens("127.0.0.1", 8700)
    with pytest.raises(UsageError, match="can be reached by others.*SAGELINK_CONSOLE_CONTROL_TOKEN"):
        console_tokens("0.0.0.0", 8700)  # noqa: S104
    monkeypatch.setenv("SAGELINK_CONSOLE_VIEW_TOKEN", "short")
    with pytest.raises(UsageError, match="12 or more"):
        console_tokens("127.0.0.1", 8700)
    monkeypatch.setenv("SAGELINK_CONSOLE_VIEW_TOKEN", VIEW)
    assert console_tokens("0.0.0.0", 8700).role(VIEW) == "view"  # noqa: S104
    monkeypatch.setenv("SAGELINK_CONSOLE_CONTROL_TOKEN", VIEW)
    with pytest.raises(UsageError, match="two different tokens"):
        console_tokens("127.0.0.1", 8700)
