"""Edge, broker and server as real processes: the same verdicts as in one process, and every fault that we know of."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers import Mosquitto, free_port
from tests.processes import Sagelink
from tests.test_run import check_accounts, read

DEADLINE_S = 1.0


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def serve(url: str, *arguments: str, **environment: str) -> Sagelink:
    return Sagelink("serve", "--listen", url, "--models", "demo", *arguments, **environment)


def live_run(url: str, out: Path, seconds: int, *arguments: str, **environment: str) -> Sagelink:
    """Ten frames a second, each of them offloaded when the link and the budget allow it."""
    return Sagelink(
        *("run", f"synthetic:{seconds * 10},fps=10", "--realtime", "--models", "demo", "--server", url),
        *("--gate", "always", "--units", "32", "--uplink", "512kbit/s", "--out", out, "--set", "mqtt.node=edge"),
        *arguments,
        **environment,
    )


def wait_for_lines(out: Path, count: int) -> None:
    end_s = time.monotonic() + 90
    results = out / "results.jsonl"
    while not results.exists() or results.read_text().count("\n") < count:
        assert time.monotonic() < end_s, "no results"
        time.sleep(0.05)


def finish(run: Sagelink, out: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines and summary of a run that must have ended well, whatever happened to it."""
    assert run.ended() == 0, run.output
    assert "Traceback" not in run.output
    lines, summary = read(out)
    check_accounts(lines, summary)
    return lines, summary


def answered(lines: list[dict[str, Any]]) -> list[int]:
    return [line["seq"] for line in lines if line["server"] is not None]


def test_a_replay_gives_the_verdicts_of_one_process(mosquitto: Mosquitto, tmp_path: Path) -> None:
    common = ["run", "synthetic:60", "--models", "demo", "--uplink", "unlimited", "--units", "64"]
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
    assert len(answered(expected)) > 20
    for line, other in zip(lines, expected, strict=True):
        assert (line["class_id"], line["origin"], line["units"]) == (other["class_id"], other["origin"], other["units"])
        assert line["prob"] == pytest.approx(other["prob"], abs=1e-4)


def test_the_embedded_broker(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    with Sagelink("serve", "--embedded-broker", at, "--models", "demo") as server:
        server.said("serving demo-server")
        with Sagelink(
            *("run", "synthetic:20", "--models", "demo", "--server", f"mqtt://{at}", "--uplink", "unlimited"),
            *("--out", tmp_path),
        ) as run:
            lines, _ = finish(run, tmp_path)
        assert answered(lines)


def test_the_embedded_broker_with_a_password(tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    right = {"SAGELINK_MQTT_USERNAME": "site", "SAGELINK_MQTT_PASSWORD": "hunter2"}
    common = ("run", "synthetic:5", "--models", "demo", "--server", f"mqtt://{at}", "--gate", "always")
    with Sagelink("serve", "--embedded-broker", at, "--models", "demo", **right) as server:
        server.said("serving demo-server")
        with Sagelink(*common, **right | {"SAGELINK_MQTT_PASSWORD": "wrong"}) as run:
            assert run.ended() == 1
        assert "the broker refuses" in run.output
        with Sagelink(*common, "--out", tmp_path, **right) as run:
            finish(run, tmp_path)
        assert "hunter2" not in server.output + run.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve"], "name one of serve.listen"),
        (["serve", "--embedded-broker", "0.0.0.0:18999"], "can be reached by others"),
        (["serve", "--listen", "127.0.0.1:1883"], "accepted: mqtt://host"),
        (["serve", "--listen", "mqtt://127.0.0.1", "--http", "8080"], "serve.http '8080'; accepted: host:port"),
        (["run", "synthetic:3", "--server", "mqtt://user:hunter2@broker"], "a URL carries no credentials"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], says: str) -> None:
    with Sagelink(*arguments, "--models", "demo") as process:
        assert process.ended() == 2
    assert says in process.output
    assert process.output.count("\n") == 1
    assert "hunter2" not in process.output


# Faults


def test_broker_killed_and_restarted_and_server_killed_and_restarted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as first:
        first.said("serving")
        with live_run(mosquitto.url, tmp_path, 25) as run:
            wait_for_lines(tmp_path, 20)
            mosquitto.kill()
            time.sleep(2)
            mosquitto.start()
            wait_for_lines(tmp_path, 100)
            first.kill()
            wait_for_lines(tmp_path, 130)
            with serve(mosquitto.url) as second:
                lines, summary = finish(run, tmp_path)
                assert "Traceback" not in first.output + second.output
    seqs = answered(lines)
    assert [seq for seq in seqs if seq < 20]  # before
    assert [seq for seq in seqs if 70 < seq < 100]  # after the broker's return
    assert [seq for seq in seqs if seq > 230]  # after the server's
    assert summary["drops"].get("link")  # while the broker was away
    assert summary["drops"].get("late")  # while the server was


def test_a_frozen_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server:
        server.said("serving")
        with live_run(mosquitto.url, tmp_path, 20) as run:
            wait_for_lines(tmp_path, 20)
            mosquitto.freeze()
            time.sleep(10)
            mosquitto.thaw()
            thawed_at = (tmp_path / "results.jsonl").read_text().count("\n")
            lines, summary = finish(run, tmp_path)
        assert "Traceback" not in server.output
    assert [seq for seq in answered(lines) if thawed_at + 40 < seq]
    assert not [seq for seq in answered(lines) if 40 < seq < thawed_at - 30]
    assert summary["drops"]["late"] <= 6  # then the window was full, and nothing more was spent
    assert summary["drops"]["link"] > 40


def test_a_wrong_password(tmp_path: Path) -> None:
    password_file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", password_file, "site", "hunter2"], check=True)
    password_file.chmod(0o644)
    wrong = {"SAGELINK_MQTT_USERNAME": "site", "SAGELINK_MQTT_PASSWORD": "guess"}
    with Mosquitto("allow_anonymous false", f"password_file {password_file}") as mosquitto:
        with serve(mosquitto.url, **wrong) as server:
            assert server.ended() == 1
        assert server.output.endswith("the broker refuses: Not authorized\n")
        with live_run(mosquitto.url, tmp_path / "out", 3, **wrong) as run:
            lines, summary = finish(run, tmp_path / "out")
        assert summary["drops"] == {"link": len(lines)}
        assert summary["wire_bits"] == 0
        assert "guess" not in run.output + server.output
        assert "Not authorized" in run.output


def test_an_expired_certificate(tmp_path: Path) -> None:
    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=tmp_path)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9")
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=127.0.0.1")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, days in (("good", 9), ("expired", -1)):
        openssl(
            f"x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile names "
            f"-out {name}.pem"
        )
    (tmp_path / "key.pem").chmod(0o644)
    trust = ("--set", f"mqtt.ca={tmp_path / 'ca.pem'}")

    def broker(certificate: str) -> Mosquitto:
        files = (f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/{certificate}.pem", f"keyfile {tmp_path}/key.pem")
        return Mosquitto("allow_anonymous true", *files, scheme="mqtts")

    with broker("good") as mosquitto, serve(mosquitto.url, *trust) as server:
        server.said("serving")
        with live_run(mosquitto.url, tmp_path / "good", 4, *trust) as run:
            lines, _ = finish(run, tmp_path / "good")
        assert answered(lines)
    with broker("expired") as mosquitto:
        with live_run(mosquitto.url, tmp_path / "expired", 3, *trust) as run:
            lines, summary = finish(run, tmp_path / "expired")
        assert summary["drops"] == {"link": len(lines)}
        assert "certificate has expired" in run.output


def test_an_edge_that_is_restarted_with_the_same_name(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with serve(mosquitto.url) as server:
        server.said("serving")
        with live_run(mosquitto.url, tmp_path / "first", 60) as first:
            wait_for_lines(tmp_path / "first", 20)
            first.kill()
        with live_run(mosquitto.url, tmp_path / "second", 5) as second:
            lines, _ = finish(second, tmp_path / "second")
        assert len(answered(lines)) > 10
        assert "Traceback" not in server.output


def test_one_of_two_servers_is_killed(mosquitto: Mosquitto, tmp_path: Path) -> None:
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
        with live_run(mosquitto.url, tmp_path, 15) as run:
            wait_for_lines(tmp_path, 60)
            shares = [taken(port) for port in ports]
            one.kill()
            lines, summary = finish(run, tmp_path)
        assert "Traceback" not in other.output
    assert min(shares) > 5  # both had a part
    assert answered(lines)[-1] > 130
    assert summary["drops"].get("late", 0) <= 4  # its frames in flight, and no others
    assert summary["origins"]["edge"] <= sum(summary["drops"].values()) + 5


def test_ctrl_c_while_the_broker_is_silent(tmp_path: Path) -> None:
    """A listener that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with live_run(f"mqtt://127.0.0.1:{port}", tmp_path, 60) as run:
            wait_for_lines(tmp_path, 10)
            run.interrupt()
            lines, summary = finish(run, tmp_path)
    assert summary["interrupted"]
    assert len(lines) < 300  # it did not play the film to its end
