"""Edge and server as real processes over WebRTC: the verdicts of one process, parts, a server that dies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.brokers import free_port
from tests.processes import Sagelink
from tests.test_mqtt_run import answered, dropped, finish, live_run, serve, so_far, wait_for
from transport.wire import is_bundle

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


def test_a_live_run_in_parts_is_recorded_and_the_same_again(url: str, tmp_path: Path) -> None:
    """Its ledger holds what the connection took, also of one that came anew; its messages are bundles of parts."""
    rec, out = tmp_path / "rec", tmp_path / "out"
    with serve(url) as server:
        server.said("serving demo-server")
        with live_run(url, out, "--units", "196", "--record", rec) as run:
            wait_for(out, answered, 10)
            server.kill()
            wait_for(out, dropped("link"))
            with serve(url) as another:
                another.said("serving demo-server")
                wait_for(out, answered)
                run.interrupt()
                finish(run, out)
    rows = [json.loads(line) for line in (rec / "frames.jsonl").read_text().splitlines()]
    assert sum(len(row["tolls"]) for row in rows) > 1
    messages = (rec / "messages.bin").read_bytes()
    sent = [messages[at : at + length] for at, length in filter(None, (row["message"] for row in rows))]
    assert any(is_bundle(message) for message in sent)
    with Sagelink("replay", rec) as replay:
        assert replay.ended() == 0, replay.output
    assert f"{len(so_far(out))} of {len(rows)} frames: verdicts, ledger and {len(sent)} messages as recorded" in (
        replay.output
    )
    with Sagelink("replay", rec, "--uplink", "64kbit/s") as replay:  # the server's model runs in its process
        assert replay.ended() == 0, replay.output
    assert f"{len(rows)} recorded frames" in replay.output
