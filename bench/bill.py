"""Bits charged over bits on the wire: edge in one network namespace, mosquitto and server in another.

    python -m bench.bill [--seconds 60] [--rates 16 64 256]

The link, the budget and the broker are those of a live run; the frames are random bytes of the size that the window
grants (1 kB or more), the server answers each with 66 bytes. Counted by the veth interface of the edge's namespace.
All rates run at the same time, each between two namespaces of its own. Needs root, `ip` and mosquitto.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from pipeline.budget import UplinkBudget
from pipeline.config import MqttConfig
from transport.link import Hello
from transport.mqtt.address import open_broker
from transport.mqtt.edge import MqttEdgeLink
from transport.mqtt.server import MqttServerLink
from transport.mqtt.topics import Topics

_EDGE, _SERVER = "10.77.0.1", "10.77.0.2"
_PORT = 1883
_LEAST, _MOST = 1000, 12_000  # bytes of a message
_WINDOW_S = 1.0


@dataclass(frozen=True)
class Result:
    rate_bps: int
    charged_bits: int
    wire_bits: int
    peak_window_bits: int

    @property
    def ratio(self) -> float:
        return self.charged_bits / self.wire_bits


def obstacle() -> str | None:
    """Why it cannot be measured here; None when it can."""
    for program in ("ip", "mosquitto"):
        if shutil.which(program) is None:
            return f"no {program}"
    if subprocess.run(["ip", "netns", "add", "sagelink-probe"], capture_output=True).returncode:  # noqa: S607
        return "network namespaces are not allowed"
    subprocess.run(["ip", "netns", "delete", "sagelink-probe"], check=True)  # noqa: S607
    return None


def measure(rates_bps: list[int], seconds: float) -> list[Result]:
    running = [_Pair(rate) for rate in rates_bps]
    try:
        for pair in running:
            pair.start(seconds)
        return [pair.result() for pair in running]
    finally:
        for pair in running:
            pair.remove()


class _Pair:
    """Two namespaces with a cable between them, and what runs in them."""

    def __init__(self, rate_bps: int) -> None:
        self._rate_bps = rate_bps
        self._edge, self._server = (f"sagelink-{os.getpid()}-{rate_bps}-{side}" for side in ("edge", "server"))
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, seconds: float) -> None:
        for name in (self._edge, self._server):
            _ip("netns", "add", name)
        ends = (f"sle{self._rate_bps // 1000}", f"sls{self._rate_bps // 1000}")
        _ip("-n", self._edge, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", self._server)
        for name, end, address in ((self._edge, ends[0], _EDGE), (self._server, ends[1], _SERVER)):
            # No router solicitations of IPv6 among the counted bits.
            self._run(name, "sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1").wait()
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        self._run(self._server, "mosquitto", "-c", "/dev/stdin", text=f"listener {_PORT}\nallow_anonymous true\n")
        time.sleep(0.5)
        self._run(self._server, sys.executable, "-m", "bench.bill", "--role", "server")
        role = ["--role", "edge", "--seconds", str(seconds), "--rates", str(self._rate_bps // 1000)]
        self._edge_process = self._run(self._edge, sys.executable, "-m", "bench.bill", *role)

    def result(self) -> Result:
        output, _ = self._edge_process.communicate()
        charged, wire, peak = map(int, output.split())
        return Result(self._rate_bps, charged, wire, peak)

    def remove(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for name in (self._edge, self._server):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # noqa: S607

    def _run(self, name: str, *command: str, text: str | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *command],  # noqa: S607
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


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607


def _counted_bits() -> int:
    """What the interfaces of this namespace have sent."""
    with open("/proc/net/dev", encoding="ascii") as table:
        lines = [line.partition(":") for line in table.readlines()[2:]]
    return 8 * sum(int(counts.split()[8]) for name, _, counts in lines if name.strip() != "lo")


async def _be_server() -> None:
    broker = open_broker(f"mqtt://{_SERVER}:{_PORT}", MqttConfig(), "server")
    async with MqttServerLink(broker, Topics("bench"), "servers") as link:
        async for message in link.messages():
            await link.reply(message, bytes(66))


async def _be_edge(rate_bps: int, seconds: float) -> None:
    """Prints charged bits, bits on the wire, and the fullest window."""
    budget, before = UplinkBudget(rate_bps, _WINDOW_S), _counted_bits()
    broker = open_broker(f"mqtt://{_SERVER}:{_PORT}", MqttConfig(keepalive="10s"), "server")
    began_s = time.monotonic()
    hello = Hello(14, 16, "0" * 16, 1.0)

    def toll(bits: int) -> bool:
        return budget.charge(time.monotonic(), bits)

    link = MqttEdgeLink(broker, Topics("bench"), "edge", ["camera"], hello, toll=toll, must_connect=True)
    async with link:
        answers = asyncio.create_task(_count(link))
        while time.monotonic() < began_s + seconds:
            await asyncio.sleep(0.02)
            now_s = time.monotonic()
            size = _largest(link, budget.allowance(now_s) or 0)
            if size is None or link.refusal() is not None:
                continue
            budget.charge(now_s, link.wire_bits("camera", size))
            assert await link.send("camera", os.urandom(size)) is None
        await asyncio.sleep(1.0)  # the last acknowledgements, and the last look at the counters
        print(budget.total_bits, _counted_bits() - before, budget.peak_window_bits)
        answers.cancel()


async def _count(link: MqttEdgeLink) -> None:
    async for _ in link.replies():
        pass


def _largest(link: MqttEdgeLink, allowance_bits: int) -> int | None:
    """The largest message that the allowance pays for."""
    for size in range(_MOST, _LEAST - 1, -200):
        if link.wire_bits("camera", size) <= allowance_bits:
            return size
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rates", type=int, nargs="+", default=[16, 64, 256], help="kbit/s")
    parser.add_argument("--role", choices=["edge", "server"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        asyncio.run(_be_server())
    elif arguments.role == "edge":
        asyncio.run(_be_edge(1000 * arguments.rates[0], arguments.seconds))
    elif (reason := obstacle()) is not None:
        sys.exit(f"bench.bill: {reason}")
    else:
        for result in measure([1000 * rate for rate in arguments.rates], arguments.seconds):
            print(
                f"{result.rate_bps // 1000:4d} kbit/s: charged {result.charged_bits}, wire {result.wire_bits}, "
                f"ratio {result.ratio:.4f}, fullest window {result.peak_window_bits} bits"
            )


if __name__ == "__main__":
    main()
