"""Edge and server as real processes over WebRTC: the verdicts of one process, parts, a server that dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers import free_port
from tests.processes import Sagelink
from tests.test_mqtt_run import answered, dropped, finish, live_run, serve, wait_for

COMMON = ("run", "--models", "demo", "--gate", "always")


@pytest.fixture
def url() -> str:
    return f"webrtc+http://127.0.0.1:{free_port()}"


def test_a_replay_gives_the_verdicts_of_one_process(url: str, tmp_path: Path) -> None:
    """Messages of one datagram: longer ones go in parts, which are coded each by itself."""
    common = (*COMMON, "synthetic:40", "--uplink", "unlimited", "--set", "encode.max_message=1100B")
    with serve(url) as server:
        server.said("serving demo-server")
        with Sagelink(*common, "--server", url, "--out", tmp_path / "webrtc") as run:
            lines, summary = finish(run, tmp_path / "webrtc")
        server.interrupt()
        assert server.ended(10) == 0
        assert "Traceback" not in server.output
    with Sagelink(*common, "--out", tmp_path / "one") as run:
        expected, _ = finish(run, tmp_path / "one")
    assert summary["offloaded"] == 40
    for line, other in zip(lines, expected, strict=True):
        assert all(line[key] == other[key] for key in ("class_id", "origin", "drop", "units", "codec", "quality"))
        assert line["prob"] == pytest.approx(other["prob"], abs=1e-4)


def test_a_live_run_outlives_its_server(url: str, tmp_path: Path) -> None:
    with serve(url) as server:
        server.said("serving demo-server")
        with live_run(url, tmp_path) as run:
            wait_for(tmp_path, answered)
            server.kill()
            wait_for(tmp_path, dropped("link"))
            with serve(url) as another:
                another.said("serving demo-server")
                wait_for(tmp_path, answered)
                run.interrupt()
                finish(run, tmp_path)
