"""Cost of the console: `python -m bench.console --cameras 1000 --seconds 600`.

Starts mosquitto, `sagelink console` and a publisher that stands for the cameras and their server: each camera sends one
evidence message a second, and gets an answer. Prints processor share, memory and messages of the console, as a table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import psutil

from sagelink.pipeline.types import OperatingPoint, Reply
from sagelink.transport.codecs import Canvas, codec_by_name
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import PREFIX_BYTES, SESSION_BYTES, Topics, encode_state
from sagelink.transport.reply_message import encode_reply

_SIDE, _PATCH = 14, 8
_INFO = CameraInfo(_SIDE, _PATCH, "0123456789abcdef", 1.0)
_TOPICS = Topics("sagelink")
_NODES = 40


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def addresses(cameras: int) -> list[str]:
    return [f"box-{number % _NODES:02d}/camera-{number:04d}" for number in range(cameras)]


def payload() -> bytes:
    """The coded units of a noisy picture: about 1 kB."""
    picture = np.random.default_rng(0).integers(60, 200, (_SIDE * _PATCH, _SIDE * _PATCH, 3), np.uint8)
    units = np.arange(_SIDE**2)
    point = OperatingPoint("webp-frame", len(units), 64, 20)
    return codec_by_name("webp-frame").encode(picture, units, point, Canvas(_SIDE, _PATCH))


def publish(port: int, cameras: int, seconds: float) -> None:
    """The cameras and their server, in a process of their own."""
    session, units, evidence = secrets.token_bytes(SESSION_BYTES), np.arange(_SIDE**2), payload()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for node in {address.partition("/")[0] for address in addresses(cameras)}:
        client.publish(_TOPICS.state(node), encode_state(session, True), 1, retain=True)
    for address in addresses(cameras):
        client.publish(_TOPICS.state(address), encode_state(session, True, _INFO), 1, retain=True)
    began, seq = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        for place, address in enumerate(addresses(cameras)):
            wait_s = began + seq + place / cameras - time.monotonic()
            if wait_s > 0.002:
                time.sleep(wait_s)
            message = encode_evidence(EvidenceMessage(seq, _SIDE, _PATCH, 5, units, evidence))
            client.publish(_TOPICS.evidence(address), session[:PREFIX_BYTES] + message)
            reply = encode_reply(Reply(seq, None, (seq % 16, 99), (-0.1, -2.5), len(units), 12.0, 2.0, 0))
            client.publish(_TOPICS.verdict(address), session[:PREFIX_BYTES] + reply)
        seq += 1
    client.disconnect()


def observed(url: str) -> tuple[int, int]:
    """Cameras and messages that the console has observed."""
    with urllib.request.urlopen(f"{url}metrics") as answer:  # noqa: S310
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    return int(float(lines["sagelink_console_cameras"])), int(float(lines["sagelink_console_observed_messages"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--every", type=float, default=30, help="seconds between two lines")
    parser.add_argument("--store", action="store_true", help="with a store in a temporary folder")
    given = parser.parse_args()
    broker_port, port = free_port(), free_port()
    broker_url, url = f"mqtt://127.0.0.1:{broker_port}", f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder:
        broker = subprocess.Popen(["mosquitto", "-p", str(broker_port)], stderr=subprocess.DEVNULL)  # noqa: S607
        time.sleep(1)
        command = [sys.executable, "-m", "sagelink", "console", broker_url, "--http", f"127.0.0.1:{port}"]
        store = ["--store", str(Path(folder) / "store")] if given.store else []
        console = subprocess.Popen([*command, *store], stdout=subprocess.PIPE, text=True)
        try:
            assert console.stdout is not None
            console.stdout.readline()
            sender = multiprocessing.Process(
                target=publish, args=(broker_port, given.cameras, given.seconds + 10), daemon=True
            )
            sender.start()
            time.sleep(10)
            _print_lines(psutil.Process(console.pid), url, given.seconds, given.every)
        finally:
            console.terminate()
            broker.terminate()


def _print_lines(console: psutil.Process, url: str, seconds: float, every: float) -> None:
    print("| after | cameras | messages/s | processor | memory | /api/cameras |\n|---|---|---|---|---|---|")
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        times, (_, messages), then = console.cpu_times(), observed(url), time.monotonic()
        time.sleep(every)
        now, (cameras, later) = console.cpu_times(), observed(url)
        passed = time.monotonic() - then
        share = (now.user + now.system - times.user - times.system) / passed
        asked = time.monotonic()
        with urllib.request.urlopen(f"{url}api/cameras?count=100") as answer:  # noqa: S310
            json.load(answer)
        print(
            f"| {time.monotonic() - began:.0f} s | {cameras} | {(later - messages) / passed:.0f} | {share:.0%} | "
            f"{console.memory_info().rss / 1e6:.0f} MB | {(time.monotonic() - asked) * 1e3:.0f} ms |",
            flush=True,
        )


if __name__ == "__main__":
    main()
