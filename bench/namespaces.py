"""Two network namespaces joined by a virtual cable: one for the edge, one for the server. Needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Literal

from bench.lossy_link import LossyLink

EDGE, SERVER = "10.77.0.1", "10.77.0.2"
PORT = 1883
BROKER = f"listener {PORT}\nallow_anonymous true\nset_tcp_nodelay true\n"
Side = Literal["edge", "server"]


def unavailable(*programs: str) -> str | None:
    """The reason why this machine cannot make namespaces, or which of `programs` is missing; None if all is there."""
    for program in ("ip", *programs):
        if shutil.which(program) is None:
            return f"no {program}"
    probe = f"sagelink-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:  # noqa: S607
        return "network namespaces are not allowed"
    subprocess.run(["ip", "netns", "delete", probe], check=True)  # noqa: S607
    return None


class Cable:
    """Exists from construction until the context manager exits, which also kills all processes at its ends."""

    def __init__(self, number: int, rate_kbit: int | None = None, lossy: LossyLink | None = None) -> None:
        """`number` distinguishes the cables of one process; `rate_kbit` limits the rate from edge to server; `lossy`
        gives the cable loss, delay and a rate in both directions."""
        self._names = {side: f"sagelink-{os.getpid()}-{number}-{side}" for side in ("edge", "server")}
        self._processes: list[subprocess.Popen[str]] = []
        # Of all processes: devices are born in the namespace that they share. Linux allows 15 characters.
        edge_end, server_end = f"sle{os.getpid()}-{number}", f"sls{os.getpid()}-{number}"
        self.edge_interface = edge_end
        try:
            self._connect(rate_kbit, lossy, edge_end, server_end)
        except BaseException:
            self.__exit__()
            raise

    def _connect(self, rate_kbit: int | None, lossy: LossyLink | None, edge_end: str, server_end: str) -> None:
        edge, server = self._names.values()
        for name in (edge, server):
            _ip("netns", "add", name)
        if lossy is None:
            _ip("-n", edge, "link", "add", edge_end, "type", "veth", "peer", "name", server_end, "netns", server)
        else:
            self._make_lossy(lossy, edge_end, server_end)
        ends: tuple[tuple[Side, str, str], ...] = (("edge", edge_end, EDGE), ("server", server_end, SERVER))
        for side, end, address in ends:
            # Keeps IPv6 router solicitations out of the counted bits.
            self.run(side, "sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1").wait()
            _ip("-n", self._names[side], "address", "add", f"{address}/24", "dev", end)
            _ip("-n", self._names[side], "link", "set", end, "up")
            _ip("-n", self._names[side], "link", "set", "lo", "up")
        if rate_kbit is not None:
            bucket = ["tbf", "rate", f"{rate_kbit}kbit", "burst", "1600", "latency", "1s"]
            self.run("edge", "tc", "qdisc", "add", "dev", edge_end, "root", *bucket).wait()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # noqa: S607

    def _make_lossy(self, lossy: LossyLink, edge_end: str, server_end: str) -> None:
        """Starts the process that forwards the packets, and moves the two devices into their namespaces."""
        command = [sys.executable, "-m", "bench.lossy_link", edge_end, server_end, *lossy.encode()]
        forwarder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(forwarder)
        assert forwarder.stdout is not None
        assert forwarder.stdout.readline() == "ready\n"
        for end, name in zip((edge_end, server_end), self._names.values(), strict=True):
            _ip("link", "set", end, "netns", name)

    def run(self, side: Side, *command: str, text: str | None = None) -> subprocess.Popen[str]:
        """Starts a command in the namespace of one side, with `text` as its standard input."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._names[side], *command],  # noqa: S607
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes.append(process)
        if text and process.stdin:
            process.stdin.write(text)
            process.stdin.close()
        return process

    def allow_udp_to(self, port: int) -> None:
        """Adds a firewall at the edge that passes UDP to this port only."""
        rule = ("-n", self._names["edge"], "rule", "add", "ipproto", "udp")
        _ip(*rule, "dport", str(port), "priority", "10", "lookup", "main")
        _ip(*rule, "priority", "20", "blackhole")

    def start_broker(self, config: str = BROKER) -> subprocess.Popen[str]:
        """Starts mosquitto in the server's namespace."""
        broker = self.run("server", "mosquitto", "-c", "/dev/stdin", text=config)
        time.sleep(0.5)
        return broker


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607
