"""`sagelink console` beside a real broker, server and edge: what it shows, and what it changes at a camera."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from tests.app.runs import answered, live_run, read, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.processes import Sagelink

Command = Callable[..., tuple[int, str]]


class ConsoleProcess:
    """`sagelink console`, and its API."""

    def __init__(self, broker: str, *options: str | Path, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        address = ("--http", self.url.removeprefix("http://"), "--models", "demo")
        self.process = Sagelink("console", broker, *address, *options, **environment)

    def __enter__(self) -> ConsoleProcess:
        self.process.said("console of mqtt://")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__()

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", trust_env=False).json()

    def change(self, camera: str, **values: object) -> tuple[int, dict[str, Any]]:
        answer = httpx.post(f"{self.url}/api/cameras/{camera}/change", json=values, timeout=40, trust_env=False)
        return answer.status_code, answer.json()

    def camera_when(self, camera: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The camera, as soon as the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.get(f"/api/cameras/{camera}")
            if "error" not in found and condition(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.2)


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.mark.campaign
def test_it_shows_a_run_and_changes_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    auth = ("--set", f"mqtt.mac_key_file={key}")
    edge = (*auth, "--set", "mqtt.node=north", "--uplink", "64kbit/s", "--gate", "always")
    edge += ("--quota", "500MB/month", "--ledger", str(tmp_path / "ledger.sqlite"), "--pace", "as-needed")
    with (
        ConsoleProcess(mosquitto.url, *auth) as console,
        serve(mosquitto.url, *auth),
        live_run(mosquitto.url, tmp_path / "out", *edge) as run,
    ):
        wait_for_lines(tmp_path / "out", answered, 3)
        shown = console.camera_when("north/camera", lambda camera: camera["answered"] > 2)
        assert (shown["state"], 0 < shown["answered_share"] <= 1) == ("running", True)
        assert not shown["label"].startswith("class ")
        picture = httpx.get(f"{console.url}/api/cameras/north/camera/evidence", trust_env=False)
        assert picture.content.startswith(b"\x89PNG")
        status, held = console.change("north/camera", uplink="24kbit/s")
        assert (status, held["rate_bps"]) == (200, 24_000)
        status, refused = console.change("north/camera", gate="alwys")
        assert (status, "did you mean 'always'" in refused["error"]) == (400, True)
        assert console.change("north/camera", pace="adaptive")[1]["pace"] == "adaptive"
        assert "did you mean 'even'" in console.change("north/camera", pace="evn")[1]["error"]
        assert console.change("north/camera", pace="as-needed")[1]["pace"] == "as-needed"
        assert console.change("north/camera", paused=True)[1]["paused"] is True
        wait_for_lines(tmp_path / "out", lambda line: line["drop"] == "paused")
        sent = console.get("/api/cameras/north/camera")["picture"]
        assert console.change("north/camera", request=True)[0] == 200
        console.camera_when("north/camera", lambda camera: camera["picture"] > sent)
        assert console.change("north/other", paused=True)[0] == 404
        changes = console.get("/api/changes")["changes"]
        assert [change["outcome"] == "done" for change in changes] == [True, True, True, False, True, False, True]
        run.interrupt()
        assert run.ended() == 0
        lines, _ = read(tmp_path / "out")
        ended = console.camera_when("north/camera", lambda camera: camera["state"] == "offline")
        assert ended["reason"] in (
            "the run ended",
            "the connection was lost",
        )  # the window may have no room for a goodbye
        asked = [line for line in lines if line["drop"] not in ("superseded", "stopped")]  # these may never have asked
        assert {line["budget_bits"] for line in asked} == {64_000, 24_000}
        assert all(line["window_bits"] <= line["budget_bits"] for line in lines if line["sent_s"] is not None)
        console.process.interrupt()
        assert console.process.ended() == 0
    assert "Traceback" not in console.process.output + run.output


@pytest.mark.campaign
def test_a_webrtc_server_shows_its_cameras(tmp_path: Path) -> None:
    url, page = f"webrtc+http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with serve(url, "--console", page) as server:
        server.said(f"console on http://{page}/")
        with live_run(url, tmp_path / "out", "--set", "webrtc.node=north") as run:
            wait_for_lines(tmp_path / "out", answered, 3)
            shown = httpx.get(f"http://{page}/api/cameras", trust_env=False).json()["cameras"]
            assert [(camera["camera"], camera["state"]) for camera in shown] == [("north/camera", "running")]
            assert shown[0]["answered"] > 1
            changed = httpx.post(
                f"http://{page}/api/cameras/north/camera/change", json={"paused": True}, trust_env=False
            )
            assert (changed.status_code, "WebRTC take no changes" in changed.json()["error"]) == (400, True)
            run.interrupt()
            assert run.ended() == 0


def test_wrong_use(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIEW", "CONTROL"):
        monkeypatch.delenv(f"SAGELINK_CONSOLE_{name}_TOKEN", raising=False)
    nowhere = f"mqtt://127.0.0.1:{free_port()}"
    for arguments, code, words in (
        ((), 2, "no broker given"),
        (("http://broker",), 2, "accepted: mqtt://host"),
        ((nowhere, "--http", "0.0.0.0:0"), 2, "can be reached by others"),
        ((nowhere, "--http", "nonsense"), 2, "accepted: host:port"),
        ((nowhere, "--http", "127.0.0.1:0"), 1, "refused"),
    ):
        ended, printed = command("console", *arguments)
        assert (ended, words in printed) == (code, True), printed
        assert printed.count("\n") == 1
