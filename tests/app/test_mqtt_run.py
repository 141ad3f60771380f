"""Edge, broker and server as real processes: the verdicts of a run in one process, and every known fault."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import httpx
import numpy as np
import pytest

from bench.ports import free_port
from sagelink.app.server.serve import serve as serve_here
from sagelink.models.labels import labels_fingerprint
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import UsageError
from sagelink.stages.recording_reader import RecordingReader
from sagelink.transport.evidence_message import EvidenceMessage, decode_evidence, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.topics import Topics
from tests.app.runs import answered, dropped, finish, lines_so_far, live_run, run_here, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.conftest import skip_or_fail
from tests.patience import PATIENCE_S
from tests.processes import Sagelink

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def answered_by(port: int) -> float:
    """Messages that a server has answered, by its metrics."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    samples = [line.split() for line in text.splitlines() if "messages_total{" in line and 'outcome="answered"' in line]
    return sum(float(value) for _, value in samples)


@pytest.mark.campaign
def test_a_replay_gives_the_verdicts_of_one_process(mosquitto: Mosquitto, tmp_path: Path, pair: Pair) -> None:
    port = free_port()
    with serve(mosquitto.url, "--http", f"127.0.0.1:{port}") as server:
        server.said("serving demo-server")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).text == "alive\n"
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).text == "ready\n"
        command = ("run", "synthetic:60", "--models", "demo", "--uplink", "unlimited", "--server", mosquitto.url)
        with Sagelink(*command, "--out", tmp_path / "mqtt") as run:
            lines, summary = finish(run, tmp_path / "mqtt")
        assert answered_by(port) == summary["offloaded"]
        server.interrupt()
        assert server.ended() == 0
    expected, _ = run_here(pair, "synthetic:60", tmp_path / "one", budget__uplink="unlimited")
    assert sum(map(answered, expected)) > 20
    for line, other in zip(lines, expected, strict=True):
        assert all(line[key] == other[key] for key in ("class_id", "origin", "drop", "units", "codec", "quality"))
        assert line["prob"] == pytest.approx(other["prob"], abs=1e-4)


@pytest.mark.campaign
def test_the_embedded_broker_wants_the_password(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    credentials = {"SAGELINK_MQTT_USERNAME": "site", "SAGELINK_MQTT_PASSWORD": "hunter2"}
    common = ("run", "synthetic:9", "--models", "demo", "--server", f"mqtt://{at}", "--gate", "always")
    with Sagelink("serve", "--embedded-broker", at, "--models", "demo", **credentials) as server:
        server.said("serving demo-server")
        with Sagelink(*common, **credentials | {"SAGELINK_MQTT_PASSWORD": "wrong"}) as run:
            assert run.ended() == 1
        assert "the broker refuses" in run.output
        with Sagelink(*common, "--out", tmp_path, "--uplink", "unlimited", **credentials) as run:
            lines, _ = finish(run, tmp_path)
        assert all(map(answered, lines))
        assert "hunter2" not in server.output + run.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name one of serve.listen"),
        ({"serve.listen": "mqtt://a", "serve.embedded_broker": "127.0.0.1:1"}, "name one of serve.listen"),
        ({"serve.embedded_broker": "0.0.0.0:18999"}, "can be reached by others"),
        ({"serve.embedded_broker": "127.0.0.1:0"}, "cameras must know the port"),
        ({"serve.listen": "127.0.0.1:1883"}, "accepted: mqtt://host"),
        ({"serve.listen": "mqtt://a", "serve.http": "8080"}, "serve.http '8080'; accepted: host:port"),
    ],
)
def test_wrong_use_of_serve(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        serve_here(load_config(None, {"models": "demo", **settings}), print)


def test_wrong_use_is_reported_in_one_line(command: Command) -> None:
    code, printed = command("run", "synthetic:3", "--models", "demo", "--server", "mqtt://user:hunter2@broker")
    assert code == 2
    assert "the URL must not contain credentials" in printed
    assert printed.count("\n") == 1
    assert "hunter2" not in printed


async def test_a_server_whose_model_fits_no_camera_ends_with_an_error(mosquitto: Mosquitto) -> None:
    broker = open_broker(mosquitto.url, MqttConfig(), "url")
    larger = CameraInfo(side=14, patch_size=16, classes="0123", deadline_s=1.0)
    async with MqttEdgeLink(broker, Topics("sagelink"), "edge", ["door"], larger, must_connect=True):
        config = load_config(None, {"models": "demo", "serve.listen": mosquitto.url})
        with pytest.raises(UsageError, match="fits none of the 1 connected cameras: edge/door.*16 pixels on 14x14"):
            await asyncio.to_thread(serve_here, config, print)


# Faults


@pytest.mark.campaign
def test_a_frozen_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for_lines(tmp_path, answered)
        mosquitto.freeze()
        full = wait_for_lines(tmp_path, dropped("link"), 15)  # attempts to reconnect have filled the budget's window
        wait_for_lines(tmp_path, dropped("link"), 35)
        charged = [line for line in lines_so_far(tmp_path)[full:] if line["wire_bits"]]
        mosquitto.thaw()
        wait_for_lines(tmp_path, answered)
        run.interrupt()
        finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert charged == []


def test_a_wrong_password(tmp_path: Path) -> None:
    password_file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", password_file, "site", "hunter2"], check=True)
    wrong = {"SAGELINK_MQTT_USERNAME": "site", "SAGELINK_MQTT_PASSWORD": "guess"}
    with (
        Mosquitto("allow_anonymous false", f"password_file {password_file}") as mosquitto,
        serve(mosquitto.url, **wrong) as server,
        live_run(mosquitto.url, tmp_path / "out", **wrong) as run,
    ):
        assert server.ended() == 1
        wait_for_lines(tmp_path / "out", dropped("link"), 10)
        run.interrupt()
        lines, summary = finish(run, tmp_path / "out")
    assert server.output.endswith("the broker refuses: Not authorized\n")
    assert "Not authorized" in run.output
    assert summary["offloaded"] == summary["wire_bits"] == 0
    assert "guess" not in run.output + server.output
    assert not any(map(answered, lines))


@pytest.mark.campaign
def test_an_expired_certificate(tmp_path: Path) -> None:
    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=tmp_path)

    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9 -addext keyUsage=keyCertSign"
    )
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=127.0.0.1")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -extfile names -out expired.pem")
    files = (f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/expired.pem", f"keyfile {tmp_path}/key.pem")
    with (
        Mosquitto("allow_anonymous true", *files, scheme="mqtts") as mosquitto,
        live_run(mosquitto.url, tmp_path / "out", "--set", f"mqtt.ca={tmp_path / 'ca.pem'}") as run,
    ):
        wait_for_lines(tmp_path / "out", dropped("link"), 10)
        run.interrupt()
        finish(run, tmp_path / "out")
    assert "certificate has expired" in run.output


@pytest.mark.campaign
def test_two_servers_share_frames_one_is_killed_and_an_edge_returns(mosquitto: Mosquitto, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]

    with (
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[0]}") as one,
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[1]}") as other,
    ):
        one.said("serving")
        other.said("serving")
        with live_run(mosquitto.url, tmp_path / "first") as first:
            wait_for_lines(tmp_path / "first", answered, 12)
            assert min(answered_by(port) for port in ports) > 2  # both servers take frames
            one.kill()
            killed = len(lines_so_far(tmp_path / "first"))
            wait_for_lines(tmp_path / "first", answered, 10)
            after = lines_so_far(tmp_path / "first")[killed:]
            assert sum(map(dropped("late"), after)) <= 4  # its frames in flight, and at most a few others
            first.kill()
        with live_run(mosquitto.url, tmp_path / "second") as second:  # under the same node name
            wait_for_lines(tmp_path / "second", answered)
            second.interrupt()
            finish(second, tmp_path / "second")
        assert "Traceback" not in other.output


@pytest.mark.campaign
def test_a_box_that_floods_takes_neither_memory_nor_the_turns_of_another(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Messages of 3.9 MB from 80 cameras of one node, announced and not announced."""
    grid = Pair.load(load_config(None, {"models": "demo"})).server.grid
    units = np.arange(grid.units)
    message = encode_evidence(EvidenceMessage(1, grid.side, grid.patch_size, 6, units, bytes(3_900_000)))
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for_lines(tmp_path, answered)
        before_mb = server.memory_mb()

        async def flood() -> float:
            broker = open_broker(mosquitto.url, MqttConfig(), "url")
            largest_mb, cameras = 0.0, [f"invented{number}" for number in range(80)]
            info = CameraInfo(grid.side, grid.patch_size, server_classes(), 600.0)
            async with MqttEdgeLink(broker, Topics("sagelink"), "box", cameras[:40], info, must_connect=True) as box:
                for camera in cameras:
                    await box.ready()
                    assert await box.send(camera, message) is None
                    largest_mb = max(largest_mb, server.memory_mb())
            return largest_mb

        largest_mb = asyncio.run(flood())
        wait_for_lines(tmp_path, answered, 5)
        run.interrupt()
        finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert largest_mb < before_mb + 150


def server_classes() -> str:
    return labels_fingerprint(Pair.load(load_config(None, {"models": "demo"})).server.labels)


@pytest.mark.campaign
def test_a_run_with_a_mac_is_answered_and_recorded_without_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    key = tmp_path / "mac.key"
    key.write_bytes(b"k" * 32)
    secured = ("--set", f"mqtt.mac_key_file={key}")
    with serve(mosquitto.url, *secured) as server, live_run(mosquitto.url, tmp_path / "plain") as without:
        wait_for_lines(tmp_path / "plain", dropped("refused"))
        without.interrupt()
        finish(without, tmp_path / "plain")
        assert "no MAC; accepted: messages with a MAC of the key in mqtt.mac_key_file" in without.output
        with live_run(mosquitto.url, tmp_path / "mac", *secured, "--record", str(tmp_path / "rec")) as run:
            wait_for_lines(tmp_path / "mac", answered, 5)
            run.interrupt()
            finish(run, tmp_path / "mac")
        assert "Traceback" not in server.output
    recording = RecordingReader(tmp_path / "rec")
    messages = [message for place in recording.rows if (message := recording.message(place))]
    assert all(len(decode_evidence(message).units) for message in messages)
    key.unlink()  # a replay needs no key
    with Sagelink("replay", tmp_path / "rec", "--uplink", "64kbit/s") as replay:
        assert replay.ended() == 0, replay.output


@pytest.mark.campaign
def test_a_server_whose_clock_is_off_by_an_hour(mosquitto: Mosquitto, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        skip_or_fail("faketime", "no libfaketime")
    # The wall clock only, as a wrong date does; monotonic clocks of two machines differ anyway.
    off = {"LD_PRELOAD": str(library), "FAKETIME": "-3600", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    fake_time = subprocess.check_output([sys.executable, "-c", "import time; print(time.time())"], env=os.environ | off)
    assert float(fake_time) == pytest.approx(time.time() - 3600, abs=600)
    with serve(mosquitto.url, **off) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for_lines(tmp_path, answered, 10)
        run.interrupt()
        lines, _ = finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert all(0 <= line["latency_ms"]["ship"] < 60_000 for line in lines if answered(line))


@pytest.mark.campaign
def test_memory_threads_and_files_do_not_grow_when_the_broker_restarts(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        usage = []
        for _ in range(4):
            wait_for_lines(tmp_path, answered)
            usage.append([(process.memory_mb(), process.threads_and_files()) for process in (run, server)])
            mosquitto.kill()
            wait_for_lines(tmp_path, dropped("link"))
            mosquitto.start()
        run.interrupt()
        finish(run, tmp_path)
    for (early_mb, early), (late_mb, late) in zip(usage[1], usage[-1], strict=True):
        assert all(now <= before for now, before in zip(late, early, strict=True)), (early, late)  # threads, files
        assert late_mb < early_mb + 10


def test_a_second_ctrl_c_cuts_off_a_frame_that_waits_for_its_reply(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Without a server no reply comes, so the first Ctrl-C leaves the frame inside the graph."""

    async def evidence_is_published() -> None:
        async with asyncio.timeout(PATIENCE_S), aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
            await client.subscribe("sagelink/+/+/evidence")
            await anext(client.messages)

    with live_run(mosquitto.url, tmp_path, "--set", "ship.deadline=60s", SAGELINK_LOG="info") as run:
        asyncio.run(evidence_is_published())
        run.interrupt()
        run.said("event=stopping")
        run.interrupt()
        lines, summary = finish(run, tmp_path)
    assert summary["interrupted"]
    stopped = [line for line in lines if dropped("stopped")(line)]
    assert any(line["wire_bits"] for line in stopped)  # the frame was sent, and its bits were charged


def test_ctrl_c_while_the_broker_is_silent(tmp_path: Path) -> None:
    """The listener accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with live_run(f"mqtt://127.0.0.1:{port}", tmp_path) as run:
            wait_for_lines(tmp_path, dropped("link"), 5)
            run.interrupt()
            _, summary = finish(run, tmp_path)
    assert summary["interrupted"]
