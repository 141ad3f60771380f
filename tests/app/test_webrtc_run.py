"""Edge and server as real processes over WebRTC: the verdicts of a run in one process, packets, a killed server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.ports import free_port
from sagelink.models.pair import Pair
from sagelink.transport.bundle import is_bundle
from tests.app.runs import answered, dropped, finish, lines_so_far, live_run, run_here, serve, wait_for_lines
from tests.certificates import self_signed
from tests.processes import Sagelink

COMMON = ("run", "--models", "demo", "--gate", "always")


@pytest.fixture
def url() -> str:
    return f"webrtc+http://127.0.0.1:{free_port()}"


@pytest.mark.campaign
def test_a_replay_gives_the_verdicts_of_one_process(url: str, tmp_path: Path, pair: Pair) -> None:
    """Messages of one datagram: a longer message is split into packets, each coded on its own."""
    common = (*COMMON, "synthetic:40", "--uplink", "unlimited", "--set", "encode.max_message=1100B")
    with serve(url) as server:
        server.said("serving demo-server")
        with Sagelink(*common, "--server", url, "--out", tmp_path / "webrtc") as run:
            lines, summary = finish(run, tmp_path / "webrtc")
        server.interrupt()
        assert server.ended() == 0
        assert "Traceback" not in server.output
    options = {"gate__policy": "always", "budget__uplink": "unlimited", "encode__max_message": "1100B"}
    expected, _ = run_here(pair, "synthetic:40", tmp_path / "one", **options)
    assert summary["offloaded"] == 40
    for line, other in zip(lines, expected, strict=True):
        assert all(line[key] == other[key] for key in ("class_id", "origin", "drop", "units", "codec", "quality"))
        assert line["prob"] == pytest.approx(other["prob"], abs=1e-4)


@pytest.mark.campaign
def test_a_live_run_survives_a_server_restart_and_its_recording_replays_exactly(url: str, tmp_path: Path) -> None:
    """The ledger holds the overhead of both connections; the messages are bundles of packets."""
    rec, out = tmp_path / "rec", tmp_path / "out"
    with serve(url) as server:
        server.said("serving demo-server")
        with live_run(url, out, "--units", "196", "--record", rec) as run:
            wait_for_lines(out, answered, 10)
            server.kill()
            wait_for_lines(out, dropped("link"))
            with serve(url) as another:
                another.said("serving demo-server")
                wait_for_lines(out, answered)
                run.interrupt()
                finish(run, out)
    rows = [json.loads(line) for line in (rec / "frames.jsonl").read_text().splitlines()]
    assert sum(len(row["ledger"]) for row in rows) > 1
    messages = (rec / "messages.bin").read_bytes()
    sent = [messages[at : at + length] for at, length in filter(None, (row["message"] for row in rows))]
    assert any(is_bundle(message) for message in sent)
    with Sagelink("replay", rec) as replay:
        assert replay.ended() == 0, replay.output
    assert f"{len(lines_so_far(out))} of {len(rows)} frames: verdicts, ledger and {len(sent)} messages as recorded" in (
        replay.output
    )


@pytest.mark.campaign
def test_over_tls(url: str, tmp_path: Path) -> None:
    """With a self-signed certificate: an edge that trusts it gets answers, any other edge gets an error."""
    certificate, key = self_signed(tmp_path)
    url = url.replace("http", "https")
    files = ("--set", f"webrtc.certificate={certificate}", "--set", f"webrtc.key={key}")
    common = (*COMMON, "synthetic:10", "--uplink", "unlimited")
    with serve(url, *files) as server:
        server.said(f"serving demo-server on {url}")
        with Sagelink(*common, "--server", url, "--set", f"webrtc.ca={certificate}", "--out", tmp_path / "out") as run:
            lines, _ = finish(run, tmp_path / "out")
        assert [line["drop"] for line in lines] == [None] * 10
        for address, message in (
            (
                url,
                "TLS: self-signed certificate; accepted: a certificate for '127.0.0.1' that an authority in webrtc.ca",
            ),
            (url.replace("https", "http"), "; a server with a certificate is webrtc+https://"),
        ):
            with Sagelink(*common, "--server", address) as run:
                assert run.ended() == 1
            assert message in run.output
            assert "Traceback" not in run.output


def test_a_certificate_that_cannot_be_served_is_wrong_use(
    url: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    (certificate, _), (_, key) = self_signed(tmp_path / "one"), self_signed(tmp_path / "other")
    listen = ("--set", f"webrtc.certificate={certificate}", "--set", f"webrtc.key={key}")
    code, printed = command("serve", "--listen", url.replace("http", "https"), "--models", "demo", *listen)
    assert code == 2
    assert "accepted: a PEM certificate and its own key" in printed
    assert printed.count("\n") == 1
