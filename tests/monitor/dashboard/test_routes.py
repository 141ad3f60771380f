"""The dashboard's routes and who may use them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sagelink.monitor.dashboard.dashboard import check_dashboard
from sagelink.monitor.dashboard.routes import dashboard_app
from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.live_stats import LiveStats
from sagelink.net.access_guard import COOKIE, session_cookie
from sagelink.net.http import is_loopback
from sagelink.pipeline.config.output import DashboardConfig
from sagelink.pipeline.errors import UsageError
from tests.fakes import SIDE
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of
from tests.monitor.events.test_feed import act

TOKEN = "a-token-of-some-length"  # noqa: S105
HOST = "http://127.0.0.1:8600"


@pytest.fixture
def client(watched, coder) -> TestClient:
    return TestClient(dashboard_app(watched, coder, None), base_url=HOST, follow_redirects=False)


@pytest.fixture
def guarded(watched, coder) -> TestClient:
    app = dashboard_app(watched, coder, TOKEN, wrong_token_s=0)
    return TestClient(app, base_url="http://camera.example:8600", follow_redirects=False)


def test_the_page_and_its_parts_are_served_with_security_headers(client):
    for path in ("/", "/static/main.js", "/static/vendor/uPlot.iife.min.js", "/api/stats", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == (404 if path == "/nothing" else 200)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page


def test_stats_metrics_and_health(client):
    stats = client.get("/api/stats").json()
    assert (stats["frames"], stats["offloaded"], stats["control"]["uplink"]) == (3, 2, "64 kbit/s")
    assert stats["cameras"]["gate"]["health"]["state"] == "backoff"
    assert 'sagelink_frames_total{camera="camera",origin="edge"} 3.0' in client.get("/metrics").text
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_the_documented_keys_of_the_stats_are_the_real_ones(client):
    page = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text()
    table = page.split("| key of `/api/stats` | meaning |")[1].split("\n\n")[0]
    documented = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert documented == client.get("/api/stats").json().keys()


def test_a_run_without_a_verdict_is_not_ready(watched, coder):
    empty = replace(watched, now=lambda: watched.now() | LiveStats().snapshot(LABELS, {"camera": None}))
    answer = TestClient(dashboard_app(empty, coder, None), base_url=HOST).get("/readyz")
    assert (answer.status_code, answer.text) == (503, "no frame has a verdict yet\n")


def test_readiness_names_what_is_missing_without_names(watched, coder):
    def now(**changes: object) -> dict[str, object]:
        return watched.now() | changes

    def ready(**changes: object) -> tuple[int, str]:
        view = replace(watched, now=lambda: now(**changes))
        answer = TestClient(dashboard_app(view, coder, None), base_url=HOST).get("/readyz")
        return answer.status_code, answer.text

    assert ready() == (200, "ok\n1 of 2 cameras give no picture\n")
    silent = ready(link_state="silent", unanswered_s=40.0)
    assert silent == (200, "ok\n1 of 2 cameras give no picture\nthe server has not replied for 40 s\n")
    down = ready(link_state="down", link="mqtt://broker", link_s=200.0, frame_age_s=31.0)
    assert down == (
        503,
        "the last verdict is 31 s old\n1 of 2 cameras give no picture\nthe link has been down for 3 min\n",
    )


def test_a_frame_is_shown_as_each_side_received_it(client):
    info = client.get("/api/frames/1/info").json()
    assert (info["units"], info["side"], info["event"]["n"]) == ([1, 5, 6], SIDE, 1)
    assert client.get("/api/frames/1/picture").headers["content-type"] == "image/jpeg"
    assert client.get("/api/frames/1/evidence").content.startswith(b"\x89PNG")
    assert client.get("/api/frames/0/evidence").status_code == 404
    assert client.get("/api/frames/99/info").status_code == 404


def test_an_event_says_whether_its_picture_is_stored(watched, coder, tmp_path):
    feed = EventFeed()
    for number in range(2):
        act(feed, number)
    newest, oldest = (event["id"] for event in feed.events())
    (tmp_path / f"{oldest}.jpg").write_bytes(b"JPEG")
    view = replace(watched, events=feed, event_pictures=tmp_path)
    client = TestClient(dashboard_app(view, coder, None), base_url=HOST)
    listed = {event["id"]: event["has_picture"] for event in client.get("/api/events").json()["events"]}
    assert listed == {newest: False, oldest: True}
    assert client.get(f"/api/events/{oldest}/picture").content == b"JPEG"
    assert client.get(f"/api/events/{newest}/picture").status_code == 404


def test_a_change_is_applied_and_an_invalid_one_explained(client, watched):
    assert client.post("/api/budget", json={"uplink": "9kbit/s"}).json()["rate_bps"] == 9000
    assert client.post("/api/gate", json={"policy": "always"}).json()["gate"] == "always"
    for path, body, message in [
        ("budget", '{"uplink": "much"}', "a rate is written like"),
        ("budget", "{", "a JSON object"),
        ("budget", "[]", "a JSON object"),
        ("gate", '{"policy": "alwys"}', "did you mean 'always'"),
        ("gate", "{}", "gate.policy"),
        ("trust", '{"forget": "door"}', "none: no camera's scenes"),
    ]:
        answer = client.post(f"/api/{path}", content=body)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
    assert watched.control.state()["rate_bps"] == 9000


def test_the_stream_sends_run_frames_state_and_a_picture(client):
    with client.websocket_connect("ws://127.0.0.1:8600/ws") as socket:
        run, frames, state = (json.loads(socket.receive_text()) for _ in range(3))
        assert (run["type"], run["title"], run["policies"]) == ("run", "clip.mp4", ["min_entropy", "always"])
        assert [frame["n"] for frame in frames["frames"]] == [0, 1, 2]
        assert state["type"] == "state"
        assert b'"n":2' in socket.receive_bytes()


def test_a_hidden_page_receives_nothing_until_it_is_visible(client, watched):
    with client.websocket_connect("ws://127.0.0.1:8600/ws") as socket:
        for _ in range(3):
            socket.receive_text()
        socket.receive_bytes()
        socket.send_json({"visible": False})
        client.get("/healthz")  # by now the message before has been read
        watched.feed.write(verdict_of(3))
        socket.send_json({"visible": True})
        while (message := json.loads(socket.receive_text()))["type"] != "frames":
            pass
        assert [frame["n"] for frame in message["frames"]] == [3]


def test_the_number_of_viewers_is_limited(watched, coder):
    client = TestClient(dashboard_app(watched, coder, None, max_viewers=1), base_url=HOST)
    with (
        client.websocket_connect("ws://127.0.0.1:8600/ws") as first,
        client.websocket_connect("ws://127.0.0.1:8600/ws") as second,
    ):
        assert json.loads(first.receive_text())["type"] == "run"
        with pytest.raises(WebSocketDisconnect) as closed:
            second.receive_text()
        assert closed.value.code == 1013


def test_on_loopback_another_host_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example:8600"}).status_code == 421
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("ws://127.0.0.1:8600/ws", headers={"host": "evil.example"}),
    ):
        pass


def test_a_page_of_another_site_can_neither_change_nor_read(client, watched):
    foreign = {"origin": "http://evil.example"}
    assert client.post("/api/budget", json={"uplink": "1kbit/s"}, headers=foreign).status_code == 403
    assert client.post("/api/budget", json={"uplink": "2kbit/s"}, headers={"origin": "null"}).status_code == 403
    assert watched.control.rate_bps == 64_000
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1:8600/ws", headers=foreign):
        pass
    own = {"origin": HOST}
    assert client.post("/api/budget", json={"uplink": "3kbit/s"}, headers=own).status_code == 200


def test_without_the_token_nothing_is_readable(guarded):
    for path in ("/api/stats", "/metrics", "/static/main.js", "/api/frames/1/picture"):
        assert guarded.get(path).status_code == 401
    assert guarded.post("/api/budget", json={"uplink": "1kbit/s"}).status_code == 401
    assert guarded.get("/").headers["location"] == "/login"
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("ws://camera.example:8600/ws"):
        pass
    for path in ("/healthz", "/readyz", "/login", "/static/style.css", "/static/theme.js"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/static/../app.py").status_code in (401, 404)


def test_the_token_is_accepted_by_header_and_by_login(guarded):
    assert guarded.get("/api/stats", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/api/stats", headers={"authorization": f"Bearer {TOKEN}x"}).status_code == 401
    assert guarded.get("/api/stats", headers={"authorization": TOKEN}).status_code == 401
    wrong = guarded.post("/login", content="token=nonsense\r\n")
    assert (wrong.headers["location"], COOKIE in wrong.cookies) == ("/login?wrong", False)
    assert "This token is wrong." in guarded.get("/login?wrong").text
    assert "This token is wrong." not in guarded.get("/login").text
    right = guarded.post("/login", content=f"token={TOKEN}\r\n")
    assert right.headers["location"] == "/"
    assert TOKEN not in right.headers["set-cookie"]
    assert all(word in right.headers["set-cookie"].lower() for word in ("httponly", "samesite=strict"))
    assert guarded.cookies[COOKIE] == session_cookie(TOKEN)
    assert guarded.get("/").status_code == 200
    with guarded.websocket_connect(
        "ws://camera.example:8600/ws", headers={"origin": "http://camera.example:8600"}
    ) as socket:
        assert json.loads(socket.receive_text())["type"] == "run"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("a.b", False),
    ],
)
def test_loopback_hosts(host, loopback):
    assert is_loopback(host) is loopback


def test_a_public_address_needs_a_token(monkeypatch):
    monkeypatch.delenv("SAGELINK_DASHBOARD_TOKEN", raising=False)
    with pytest.raises(UsageError, match="can be reached by others; accepted without a token: 127.0.0.1"):
        check_dashboard(DashboardConfig(address="0.0.0.0:0"))
    with pytest.raises(UsageError, match="token has 5 characters; accepted: 12 or more"):
        check_dashboard(DashboardConfig(address="0.0.0.0:0", token=SecretStr("short")))
    with pytest.raises(UsageError, match=r"dashboard.address 'nowhere'; accepted: host:port"):
        check_dashboard(DashboardConfig(address="nowhere"))
    monkeypatch.setenv("SAGELINK_DASHBOARD_TOKEN", TOKEN)
    check_dashboard(DashboardConfig(address="0.0.0.0:0"))
    check_dashboard(DashboardConfig())


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("budget", "{uplink: 1}", "accepted: a JSON object; not JSON: Expecting property name"),
        ("budget", '{"rate": "8kbit/s"}', "unknown key 'rate'; accepted: uplink"),
        ("gate", '{"policy": "margin", "treshold": 0.3}', "unknown key 'treshold' (did you mean 'threshold'?)"),
        ("pace", '"even"', "accepted: a JSON object; got text"),
        ("trust", '{"camera": "gate"}', "unknown key 'camera'; accepted: forget"),
        ("trust", "", "forget: accepted: the name of a camera, or null for all cameras"),
        ("budget", " " * 5000, "the body of the request is too large; accepted: up to 4096 bytes"),
    ],
)
def test_a_wrong_change_is_refused_with_what_is_accepted(client, path, body, error):
    before = client.get("/api/stats").json()["control"]
    answer = client.post(f"/api/{path}", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert client.get("/api/stats").json()["control"] == before


@pytest.mark.parametrize("path", ["stats", "events", "frames/0/info", "events/x/picture"])
def test_a_query_that_a_path_does_not_take_is_refused(client, path):
    answer = client.get(f"/api/{path}?camera=gate")
    assert answer.status_code == 400
    assert answer.json()["error"] == "unknown key 'camera' in the query; accepted: none"


def test_numbers_that_are_not_finite_are_null(watched, coder):
    odd = replace(watched, now=lambda: {"fps": float("nan"), "cameras": {"a": [float("inf"), 1.5]}})
    answer = TestClient(dashboard_app(odd, coder, None), base_url=HOST).get("/api/stats")
    assert answer.status_code == 200
    assert json.loads(answer.text, parse_constant=pytest.fail)["cameras"] == {"a": [None, 1.5]}


@pytest.mark.parametrize("threshold", ["NaN", "Infinity", "-Infinity"])
def test_a_threshold_that_is_not_finite_is_refused(client, threshold):
    answer = client.post("/api/gate", content=f'{{"policy": "min_entropy", "threshold": {threshold}}}')
    assert answer.status_code == 400
    assert "accepted: a JSON object" in answer.json()["error"]
