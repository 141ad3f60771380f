"""Runs both sides against every MQTT broker that is installed, and prints the table of docs/mqtt.md.

    python -m bench.mqtt_brokers [NAME ...]

Brokers come from Debian (mosquitto, nats-server, rabbitmq-server, ejabberd), from PyPI (amqtt, iotcore: rumqttd), and
from npm (aedes, in the folder that SAGELINK_NODE_MODULES names). All listen on loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiomqtt

from bench.ports import free_port
from sagelink.pipeline.config.link import MqttConfig
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.address import Broker, open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics

FRAMES = 60
_START_S = 90  # a loaded machine needs long for Erlang
_PATIENCE_S = 20
_CONNECT, _CONNACK = b"\x10\x10\0\4MQTT\4\2\0\5\0\4wait", b"\x20"  # MQTT 3.1.1
_PATH = "/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # not the scripts that change user
_INFO = CameraInfo(14, 16, "0123", 5.0)
_AEDES = """
const { Aedes } = require('aedes'); const net = require('net');
(async () => { const broker = Aedes.createBroker ? await Aedes.createBroker() : new Aedes();
net.createServer(broker.handle).listen(Number(process.argv[1]), '127.0.0.1') })()
"""
_EJABBERD = """
hosts: [localhost]
listen: [{port: %d, ip: "127.0.0.1", module: mod_mqtt, backlog: 100}]
auth_method: [anonymous]
anonymous_protocol: login_anon
allow_multiple_connections: true
modules: {mod_mqtt: {}}
"""
_RABBITMQ = """
listeners.tcp = none
mqtt.listeners.tcp.default = 127.0.0.1:%d
mqtt.allow_anonymous = true
mqtt.default_user = guest
mqtt.default_pass = guest
"""
_NATS = """
host: 127.0.0.1
port: %d
server_name: one
jetstream { store_dir: "%s" }
mqtt { host: 127.0.0.1, port: %d }
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A broker as a process."""

    command: list[str]
    files: Mapping[str, str] = field(default_factory=dict)  # by name, to be written into the folder it runs in
    environment: Mapping[str, str] = field(default_factory=dict)


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _mosquitto(port: int, folder: Path) -> Program | None:
    found = _program("mosquitto")
    lines = f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
    return None if found is None else Program([found, "-c", str(folder / "m.conf")], {"m.conf": lines})


def _amqtt(port: int, folder: Path) -> Program | None:
    code = (
        "import asyncio; from sagelink.transport.mqtt.embedded import embedded_broker\n"
        f"async def main():\n  async with embedded_broker('127.0.0.1', {port}, None, None):\n"
        "    await asyncio.sleep(1e6)\n"
        "asyncio.run(main())"
    )
    return Program([sys.executable, "-c", code])


def _rumqttd(port: int, folder: Path) -> Program | None:
    if importlib.util.find_spec("iotcore") is None:
        return None
    code = f"import iotcore, time\nwith iotcore.Broker(port={port}, listen='127.0.0.1'):\n  time.sleep(1e6)"
    return Program([sys.executable, "-c", code])


def _aedes(port: int, folder: Path) -> Program | None:
    node, modules = shutil.which("node"), os.environ.get("SAGELINK_NODE_MODULES", "")
    if node is None or not (Path(modules) / "aedes").is_dir() or not modules:
        return None
    return Program([node, "-e", _AEDES, str(port)], environment={"NODE_PATH": modules})


def _nats(port: int, folder: Path) -> Program | None:
    found = _program("nats-server")
    lines = _NATS % (free_port(), folder / "js", port)
    return None if found is None else Program([found, "-c", str(folder / "n.conf")], {"n.conf": lines})


def _rabbitmq(port: int, folder: Path) -> Program | None:
    found = _program("rabbitmq-server")
    if found is None:
        return None
    names = {
        "HOME": folder,
        "RABBITMQ_NODENAME": f"sagelink{port}@localhost",
        "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins",
        "RABBITMQ_MNESIA_BASE": folder,
        "RABBITMQ_LOG_BASE": folder,
        "RABBITMQ_DIST_PORT": free_port(),
        "ERL_EPMD_PORT": free_port(),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    files = {"rabbitmq.conf": _RABBITMQ % port, "plugins": "[rabbitmq_mqtt]."}
    return Program([found], files, {key: str(value) for key, value in names.items()})


def _ejabberd(port: int, folder: Path) -> Program | None:
    if _program("ejabberdctl") is None:
        return None
    names = {
        "HOME": str(folder),
        "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_LIBS": "/usr/lib/x86_64-linux-gnu",
    }
    options = ["-noinput", "-sname", f"sagelink{port}@localhost", "-mnesia", "dir", f'"{folder / "db"}"']
    options += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-s", "ejabberd"]
    return Program(["erl", *options], {"ejabberd.yml": _EJABBERD % port}, names)


BROKERS: dict[str, Callable[[int, Path], Program | None]] = {
    "mosquitto": _mosquitto,
    "rumqttd": _rumqttd,
    "ejabberd": _ejabberd,
    "NATS": _nats,
    "RabbitMQ": _rabbitmq,
    "aedes": _aedes,
    "amqtt": _amqtt,
}


CREDENTIALS = {"ejabberd": ("sagelink@localhost", "any")}  # user and password; other brokers here need none


@contextlib.contextmanager
def running(name: str) -> Iterator[str | None]:
    """Runs a broker on a free port. Gives its URL; None if it is not installed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        port = free_port()
        program = BROKERS[name](port, Path(folder))
        if program is None:
            yield None
            return
        for file, content in program.files.items():
            (Path(folder) / file).write_text(content)
        with (Path(folder) / "output").open("wb") as output:
            process = subprocess.Popen(
                program.command,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=os.environ | program.environment,
                start_new_session=True,
            )
        try:
            _wait_for(port, process, Path(folder) / "output")
            yield f"mqtt://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if "ERL_EPMD_PORT" in program.environment:
                _end_name_server(program.environment)


def _end_name_server(environment: Mapping[str, str]) -> None:
    """Erlang starts a daemon, which ends only when the broker has left it."""
    for _ in range(50):
        command = [_program("epmd") or "epmd", "-kill"]
        if subprocess.run(command, env=os.environ | environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)


def _wait_for(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(_CONNECT)  # some brokers listen before they are ready
            if connection.recv(1) == _CONNACK:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the broker does not answer: {output.read_text(errors='replace')[-2000:]}")


async def check_links(name: str, url: str) -> dict[str, str]:
    """What works between one edge and one server over a broker, by column of the table."""
    username, password = CREDENTIALS.get(name, (None, None))
    broker = replace(open_broker(url, MqttConfig(), "url"), username=username, password=password)
    topics = Topics(f"check{secrets.token_hex(4)}")
    budgets: list[bytes] = []
    found: dict[str, str] = {}

    def take(payload: bytes, _retained: bool) -> None:
        budgets.append(payload)

    def edge(node: str) -> MqttEdgeLink:
        return MqttEdgeLink(broker, topics, node, ["door"], _INFO, must_connect=False, on_budget=take)

    async with edge("first") as first, MqttServerLink(broker, topics, "servers") as server:
        found["protocol"] = "5" if server._connection.v5 else "3.1.1"
        found["shared"] = "yes" if server._membership.shared else "no: one server serves"
        found["state"] = await _yes(lambda: "first/door" in server.cameras)
        async with edge("second") as second:
            found["live"] = await _yes(lambda: "second/door" in server.cameras)
            await second.connected()
            assert second._session.client is not None
            second._connection._backoff.next_s = lambda _: 1e6  # type: ignore[method-assign] # it stays away
            second._session.client.tcp_socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            found["will"] = await _yes(lambda: "second/door" not in server.cameras)
        await _publish(broker, topics.budget("first"), b"64kbit/s")
        found["budget"] = await _yes(lambda: budgets == [b"64kbit/s"])
        messages = server.messages()
        assert await first.send("door", b"evidence") is None
        await server.reply(await anext(messages), b"answer")
        async with asyncio.timeout(_PATIENCE_S):
            assert await anext(first.replies()) == ("door", b"answer")
        async with MqttServerLink(broker, topics, "servers") as standby:
            found["second server"] = "stands by" if standby.trouble else "shares"
    return found


async def _yes(condition: Callable[[], bool]) -> str:
    end_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            return "no"
        await asyncio.sleep(0.05)
    return "yes"


async def _publish(broker: Broker, topic: str, payload: bytes) -> None:
    async with aiomqtt.Client(*broker.addresses[0], username=broker.username, password=broker.password) as client:
        await client.publish(topic, payload, qos=1)


def parity(name: str, url: str) -> int:
    """Runs a server and a replay of `FRAMES` frames over the broker, and the same replay in one process. Returns the
    number of equal verdicts."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("SAGELINK_MQTT_USERNAME", "SAGELINK_MQTT_PASSWORD")
        environment = os.environ | dict(zip(names, CREDENTIALS.get(name, ()), strict=False))
        common = [sys.executable, "-m", "sagelink"]
        run = [*common, "run", f"synthetic:{FRAMES}", "--models", "demo", "--uplink", "unlimited"]
        server = subprocess.Popen(
            [*common, "serve", "--listen", url, "--models", "demo"], stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "serving" in line:
                    break
            subprocess.run(
                [*run, "--server", url, "--out", f"{folder}/mqtt"], check=True, capture_output=True, env=environment
            )
        finally:
            server.terminate()
            server.wait()
        subprocess.run([*run, "--out", f"{folder}/one"], check=True, capture_output=True)
        ours, theirs = ([*map(_verdict, (Path(folder) / name / "results.jsonl").open())] for name in ("mqtt", "one"))
        return sum(one == other for one, other in zip(ours, theirs, strict=True))


def _verdict(line: str) -> tuple[object, ...]:
    fields = json.loads(line)
    return (*(fields[key] for key in ("class_id", "origin", "drop", "units", "codec")), round(fields["prob"], 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"brokers: {', '.join(BROKERS)}; default: all")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in BROKERS]:
        parser.error(f"unknown: {', '.join(unknown)}; accepted: {', '.join(BROKERS)}")
    columns = ("protocol", "parity", "live", "state", "will", "budget", "shared", "second server")
    print(f"| broker | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for name in names or BROKERS:
        with running(name) as url:
            if url is None:
                print(f"| {name} | not installed {'| ' * len(columns)}|", flush=True)
                continue
            found = asyncio.run(check_links(name, url)) | {"parity": f"{parity(name, url)} of {FRAMES}"}
            print(f"| {name} | {' | '.join(found[column] for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
