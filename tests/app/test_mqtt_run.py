"""Edge, broker and server as real processes: the same verdicts as in one process, and every fault that we know of."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from sagelink.app.serve import serve as serve_here
from sagelink.pipeline.config import MqttConfig
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Reply
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.topics import SESSION_BYTES, Topics
from sagelink.transport.wire import encode_reply
from tests.app.test_run import check_accounts, read
from tests.brokers import Mosquitto, free_port
from tests.conftest import skip_or_fail
from tests.processes import Sagelink


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def serve(url: str, *arguments: str, **environment: str) -> Sagelink:
    return Sagelink("serve", "--listen", url, "--models", "demo", *arguments, **environment)


def live_run(url: str, out: Path, *arguments: str, **environment: str) -> Sagelink:
    """Ten frames a second for longer than any test; each is offloaded when the link and the budget allow it."""
    return Sagelink(
        *("run", "synthetic:6000,fps=10", "--realtime", "--models", "demo", "--server", url),
        *("--gate", "always", "--units", "32", "--uplink", "512kbit/s", "--out", out, "--set", "mqtt.node=edge"),
        *arguments,
        **environment,
    )


def so_far(out: Path) -> list[dict[str, Any]]:
    results = out / "results.jsonl"
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for(out: Path, what: Callable[[dict[str, Any]], bool], count: int = 3) -> int:
    """Waits for that many more lines of that kind; how many lines there are then."""
    end_s, seen = time.monotonic() + 60, len(so_far(out))
    while sum(map(what, so_far(out)[seen:])) < count:
        assert time.monotonic() < end_s, f"no such line among {so_far(out)[seen:][-3:]}"
        time.sleep(0.05)
    return len(so_far(out))


def answered(line: dict[str, Any]) -> bool:
    return line["server"] is not None


def dropped(reason: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["drop"] == reason


def finish(run: Sagelink, out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines and summary of a run that must have ended well, whatever happened to it."""
    assert run.ended() == 0, run.output
    assert "Traceback" not in run.output
    lines, summary = read(out)
    check_accounts(lines, summary)
    return lines, summary


def test_a_replay_gives_the_verdicts_of_one_process(mosquitto: Mosquitto, tmp_path: Path) -> None:
    common = ["run", "synthetic:60", "--models", "demo", "--uplink", "unlimited"]
    port = free_port()
    with serve(mosquitto.url, "--http", f"127.0.0.1:{port}") as server:
        server.said("serving demo-server")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).text == "alive\n"
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).text == "ready\n"
        with Sagelink(*common, "--server", mosquitto.url, "--out", tmp_path / "mqtt") as over_mqtt:
            lines, summary = finish(over_mqtt, tmp_path / "mqtt")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert f'messages_total{{outcome="answered"}} {summary["offloaded"]:.1f}' in metrics
        server.interrupt()
        assert server.ended(10) == 0
    with Sagelink(*common, "--out", tmp_path / "one") as in_process:
        expected, _ = finish(in_process, tmp_path / "one")
    assert sum(map(answered, expected)) > 20
    for line, other in zip(lines, expected, strict=True):
        assert all(line[key] == other[key] for key in ("class_id", "origin", "drop", "units", "codec", "quality"))
        assert line["prob"] == pytest.approx(other["prob"], abs=1e-4)


def test_the_embedded_broker_lets_in_who_has_the_password(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    right = {"SAGELINK_MQTT_USERNAME": "site", "SAGELINK_MQTT_PASSWORD": "hunter2"}
    common = ("run", "synthetic:9", "--models", "demo", "--server", f"mqtt://{at}", "--gate", "always")
    with Sagelink("serve", "--embedded-broker", at, "--models", "demo", **right) as server:
        server.said("serving demo-server")
        with Sagelink(*common, **right | {"SAGELINK_MQTT_PASSWORD": "wrong"}) as run:
            assert run.ended() == 1
        assert "the broker refuses" in run.output
        with Sagelink(*common, "--out", tmp_path, "--uplink", "unlimited", **right) as run:
            lines, _ = finish(run, tmp_path)
        assert all(map(answered, lines))
        assert "hunter2" not in server.output + run.output


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "name one of serve.listen"),
        ({"serve.listen": "mqtt://a", "serve.embedded_broker": "127.0.0.1:1"}, "name one of serve.listen"),
        ({"serve.embedded_broker": "0.0.0.0:18999"}, "can be reached by others"),
        ({"serve.embedded_broker": "127.0.0.1:0"}, "cameras have to know the port"),
        ({"serve.listen": "127.0.0.1:1883"}, "accepted: mqtt://host"),
        ({"serve.listen": "mqtt://a", "serve.http": "8080"}, "serve.http '8080'; accepted: host:port"),
    ],
)
def test_wrong_use(settings: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        serve_here(load_config(None, {"models": "demo", **settings}), print)


def test_the_command_tells_wrong_use_in_one_line() -> None:
    with Sagelink("run", "synthetic:3", "--models", "demo", "--server", "mqtt://user:hunter2@broker") as process:
        assert process.ended() == 2
    assert "the URL must not contain credentials" in process.output
    assert process.output.count("\n") == 1
    assert "hunter2" not in process.output


async def test_a_server_that_fits_no_camera_says_so_and_ends(mosquitto: Mosquitto) -> None:
    broker = open_broker(mosquitto.url, MqttConfig(), "url")
    larger = CameraInfo(side=14, patch_size=16, classes="0123", deadline_s=1.0)
    async with MqttEdgeLink(broker, Topics("sagelink"), "edge", ["door"], larger, must_connect=True):
        with serve(mosquitto.url) as server:
            assert await asyncio.to_thread(server.ended) == 2
    assert "the server's model fits none of the 1 cameras that are there: edge/door" in server.output
    assert "units of 16 pixels on 14x14" in server.output
    assert "Traceback" not in server.output


# Faults


def test_broker_and_server_killed_and_restarted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as first, live_run(mosquitto.url, tmp_path) as run:
        wait_for(tmp_path, answered)
        mosquitto.kill()
        wait_for(tmp_path, dropped("link"), 10)
        mosquitto.start()
        wait_for(tmp_path, answered)
        first.kill()
        wait_for(tmp_path, dropped("late"))
        with serve(mosquitto.url) as second:
            wait_for(tmp_path, answered)
            run.interrupt()
            finish(run, tmp_path)
        assert "Traceback" not in first.output + second.output


def test_a_frozen_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for(tmp_path, answered)
        mosquitto.freeze()
        frozen = wait_for(tmp_path, dropped("link"), 30)
        time.sleep(7)
        charged = [line for line in so_far(tmp_path)[frozen:] if line["wire_bits"]]
        mosquitto.thaw()
        wait_for(tmp_path, answered)
        run.interrupt()
        finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert charged == []  # the window was full: nothing more was spent


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
        wait_for(tmp_path / "out", dropped("link"), 10)
        run.interrupt()
        lines, summary = finish(run, tmp_path / "out")
    assert server.output.endswith("the broker refuses: Not authorized\n")
    assert "Not authorized" in run.output
    assert summary["offloaded"] == summary["wire_bits"] == 0
    assert "guess" not in run.output + server.output
    assert not any(map(answered, lines))


def test_an_expired_certificate(tmp_path: Path) -> None:
    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=tmp_path)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9")
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=127.0.0.1")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -extfile names -out expired.pem")
    files = (f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/expired.pem", f"keyfile {tmp_path}/key.pem")
    with (
        Mosquitto("allow_anonymous true", *files, scheme="mqtts") as mosquitto,
        live_run(mosquitto.url, tmp_path / "out", "--set", f"mqtt.ca={tmp_path / 'ca.pem'}") as run,
    ):
        wait_for(tmp_path / "out", dropped("link"), 10)
        run.interrupt()
        finish(run, tmp_path / "out")
    assert "certificate has expired" in run.output


def test_two_servers_share_and_one_is_killed_and_an_edge_comes_back(mosquitto: Mosquitto, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]

    def taken(port: int) -> float:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        return float(text.split('messages_total{outcome="answered"} ')[1].split("\n")[0])

    with (
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[0]}") as one,
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[1]}") as other,
    ):
        one.said("serving")
        other.said("serving")
        with live_run(mosquitto.url, tmp_path / "first") as first:
            wait_for(tmp_path / "first", answered, 12)
            assert min(taken(port) for port in ports) > 2  # both have a part
            one.kill()
            killed = len(so_far(tmp_path / "first"))
            wait_for(tmp_path / "first", answered, 10)
            after = so_far(tmp_path / "first")[killed:]
            assert sum(map(dropped("late"), after)) <= 4  # its frames in flight, and hardly another
            first.kill()
        with live_run(mosquitto.url, tmp_path / "second") as second:  # under the same name
            wait_for(tmp_path / "second", answered)
            second.interrupt()
            finish(second, tmp_path / "second")
        assert "Traceback" not in other.output


def test_rubbish_and_replies_to_finished_and_unknown_frames(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A stranger who hears everything says it again, turned around, and answers frames that were never sent."""
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for(tmp_path, answered)

        async def disturb() -> None:
            async with asyncio.timeout(60), aiomqtt.Client(mosquitto.host, mosquitto.port) as stranger:
                await stranger.subscribe("sagelink/#")
                for _ in range(40):
                    message = await anext(stranger.messages)
                    topic, payload = message.topic.value, message.payload
                    await stranger.publish(topic, payload[::-1])
                    if topic.endswith("/verdict") and payload[:1] != b"{":
                        await stranger.publish(topic, payload)
                        unknown = encode_reply(Reply(1_000_000, None, (0,), (-0.1,), 32, 1.0))
                        await stranger.publish(topic, payload[:SESSION_BYTES] + unknown)
                for topic in ("budget/set", "state", "door/state", "camera/verdict", "camera/evidence"):
                    await stranger.publish(f"sagelink/edge/{topic}", b"\xff rubbish")

        asyncio.run(disturb())
        wait_for(tmp_path, answered, 10)
        run.interrupt()
        lines, _ = finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert lines[-1]["budget_bits"] == 512_000
    assert all(line["server"]["prob"] > 0 for line in lines if answered(line))


def test_a_server_whose_clock_is_off_by_an_hour(mosquitto: Mosquitto, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        skip_or_fail("faketime", "no libfaketime")
    # The wall clock only, as a wrong date does; monotonic clocks of two machines differ anyway.
    off = {"LD_PRELOAD": str(library), "FAKETIME": "-3600", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    told = subprocess.check_output([sys.executable, "-c", "import time; print(time.time())"], env=os.environ | off)
    assert float(told) == pytest.approx(time.time() - 3600, abs=600)
    with serve(mosquitto.url, **off) as server, live_run(mosquitto.url, tmp_path) as run:
        wait_for(tmp_path, answered, 10)
        run.interrupt()
        lines, _ = finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert all(0 <= line["latency_ms"]["ship"] < 60_000 for line in lines if answered(line))


def test_nothing_grows_however_often_the_broker_dies(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server, live_run(mosquitto.url, tmp_path) as run:
        held = []
        for _ in range(4):
            wait_for(tmp_path, answered)
            held.append([(each.memory_mb(), each.threads_and_files()) for each in (run, server)])
            mosquitto.kill()
            wait_for(tmp_path, dropped("link"))
            mosquitto.start()
        run.interrupt()
        finish(run, tmp_path)
    for (memory_mb, had), (later_mb, has) in zip(held[1], held[-1], strict=True):
        assert all(now <= then for now, then in zip(has, had, strict=True)), (had, has)  # threads, open files
        assert later_mb < memory_mb + 10


def test_ctrl_c_while_the_broker_is_silent(tmp_path: Path) -> None:
    """A listener that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with live_run(f"mqtt://127.0.0.1:{port}", tmp_path) as run:
            wait_for(tmp_path, dropped("link"), 5)
            run.interrupt()
            _, summary = finish(run, tmp_path)
    assert summary["interrupted"]
