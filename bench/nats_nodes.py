"""Nodes of a NATS cluster as processes, each with an MQTT gateway, and with JetStream or without, on loopback."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Collection
from pathlib import Path

from bench.ports import free_port

NATS_SERVER = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
_START_S = 60.0
_SETTINGS = """
server_name: {name}
host: 127.0.0.1
port: {client}
http: "127.0.0.1:{monitor}"
mqtt {{ host: 127.0.0.1, port: {mqtt}, stream_replicas: {count} }}
"""
_STORE = """
jetstream {{ store_dir: "{folder}", max_memory_store: 64MB, max_file_store: 256MB }}
"""
_CLUSTER = """
ping_interval: "1s"
ping_max: 2
cluster {{ name: test, host: 127.0.0.1, port: {route}, no_advertise: true, routes: [{routes}] }}
"""


class NatsNode:
    """One node as a process."""

    def __init__(self, index: int, folder: Path, count: int = 1) -> None:
        self.index = index
        self.name = f"node{index}"
        self._count = count  # of nodes that store each retained or QoS 1 message: the first ones; the others store none
        self.client, self.mqtt, self.monitor, self.route = (free_port() for _ in range(4))
        self.folder = folder / self.name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mqtt_url(self) -> str:
        return f"mqtt://127.0.0.1:{self.mqtt}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the node does not run")
        return self._process.pid

    def start(self, routes: Collection[int]) -> None:
        """`routes`: ports through which other nodes are reached; none: the node has no cluster."""
        if NATS_SERVER is None:
            raise RuntimeError("no nats-server")
        self.folder.mkdir(exist_ok=True)
        ports = {"client": self.client, "mqtt": self.mqtt, "monitor": self.monitor, "route": self.route}
        text = _SETTINGS.format(name=self.name, count=self._count, **ports)
        if self.index < self._count:
            text += _STORE.format(folder=self.folder / "js")
        if routes:
            listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            text += _CLUSTER.format(routes=listed, **ports)
        config = self.folder / "nats.conf"
        config.write_text(text)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([NATS_SERVER, "-c", str(config)], stdout=log, stderr=log)

    def is_ready(self) -> bool:
        """Its JetStream takes part in the cluster, and MQTT clients can connect."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/healthz", timeout=2).close()
            socket.create_connection(("127.0.0.1", self.mqtt), 1).close()
            return True
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"nats-server has ended: {self._log()}")
        return False

    def wait_ready(self) -> None:
        end_s = time.monotonic() + _START_S
        while not self.is_ready():
            if time.monotonic() > end_s:
                raise RuntimeError(f"nats-server is not ready: {self._log()}")
            time.sleep(0.05)

    def _log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
