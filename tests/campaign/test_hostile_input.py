"""Files and messages from strangers against the real command: exit code 2 in seconds, with little memory."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import aiomqtt
import pytest

from sagelink.pipeline.types import Reply
from sagelink.transport.mqtt.topics import PREFIX_BYTES
from sagelink.transport.reply_message import encode_reply
from tests.app.runs import answered, finish, live_run, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.pipeline.files.test_documents import HOSTILE_JSON, HOSTILE_YAML

pytestmark = pytest.mark.campaign

MEMORY = 4 * 2**30  # bytes of address space


def sagelink(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sagelink.app.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    return done.returncode, done.stdout + done.stderr


def check(code: int, printed: str) -> None:
    assert (code, "Traceback" in printed, "internal" in printed.lower()) == (2, False, False), printed[-500:]
    assert len(printed) < 10_000


@pytest.mark.parametrize("which", range(0, len(HOSTILE_YAML), 3))
def test_a_hostile_configuration(tmp_path: Path, which: int) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(HOSTILE_YAML[which][0])
    check(*sagelink("config", "check", path))


def test_hostile_results(tmp_path: Path) -> None:
    """All in one process: a start costs seconds."""
    from sagelink.monitor.report.results_reader import Results
    from sagelink.pipeline.errors import UsageError

    for text, _ in HOSTILE_JSON:
        data = text if isinstance(text, bytes) else text.encode()
        for name in ("results.jsonl", "summary.json"):
            (tmp_path / "results.jsonl").write_bytes(b"{}\n")
            (tmp_path / name).write_bytes(data + b"\n")
            with pytest.raises(UsageError):
                Results.read(tmp_path)


async def answer_and_garble(host: str, port: int) -> None:
    """Publishes received messages again, reversed, and answers frames that are over or were never sent."""
    async with asyncio.timeout(PATIENCE_S), aiomqtt.Client(host, port) as stranger:
        await stranger.subscribe("sagelink/#")
        for _ in range(40):
            message = await anext(stranger.messages)
            topic, payload = message.topic.value, message.payload
            await stranger.publish(topic, payload[::-1])
            if topic.endswith("/verdict") and payload[:1] != b"{":
                await stranger.publish(topic, payload)
                unknown = encode_reply(Reply(1_000_000, None, (0,), (-0.1,), 32, 1.0))
                await stranger.publish(topic, payload[:PREFIX_BYTES] + unknown)
        for topic in ("budget/set", "state", "door/state", "camera/verdict", "camera/evidence"):
            await stranger.publish(f"sagelink/edge/{topic}", b"\xff rubbish")


def test_forged_replies_and_noise_on_every_topic(tmp_path: Path) -> None:
    """An open broker: a stranger may send noise, but ends no run, and costs no line."""
    import paho.mqtt.client as mqtt

    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, tmp_path) as run:
            wait_for_lines(tmp_path, answered)
            asyncio.run(answer_and_garble(broker.host, broker.port))
            wait_for_lines(tmp_path, answered, 5)
            stranger = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
            topics: set[str] = set()
            stranger.on_message = lambda _client, _data, message: topics.add(message.topic)
            stranger.connect("127.0.0.1", broker.port)
            stranger.subscribe("#")
            stranger.loop_start()
            time.sleep(2)
            noise = [b"", b"\0" * 5000, b"\xff" * 40, b"[" * 5000, json.dumps({"online": True}).encode(), b"9" * 5000]
            for _ in range(20):
                for topic in sorted(topics):
                    for payload in noise:
                        stranger.publish(topic, payload)
                time.sleep(0.05)
            stranger.loop_stop()
            stranger.disconnect()
            run.interrupt()
            lines, _ = finish(run, tmp_path)
            assert len(run.output) < 100_000
        assert "Traceback" not in server.output
    assert lines[-1]["budget_bits"] == 512_000
    assert all(line["server"]["prob"] > 0 for line in lines if answered(line))
