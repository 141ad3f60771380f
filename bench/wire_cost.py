"""Bits charged over bits on the wire: edge in one network namespace, server (and mosquitto) in another.

    python -m bench.wire_cost [--transport mqtt] [--seconds 60] [--rates 16 64 256]

The link, the budget and the broker are those of a live run; the frames are random bytes of the size that the window
grants (1 kB or more), the server answers each with 66 bytes. Counted by the veth interface of the edge's namespace.
All rates run at the same time, each between two namespaces of its own. Needs root, `ip` and mosquitto.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from bench.namespaces import PORT, SERVER, Cable, obstacle
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.config import MqttConfig, WebRtcConfig
from sagelink.pipeline.tasks import run_loop
from sagelink.transport.link import CameraInfo, EdgeLink, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink

_LEAST, _MOST = 1000, 12_000  # bytes of a message
_WINDOW_S = 1.0
_SERVER_STARTS_S = 5.0


@dataclass(frozen=True)
class Result:
    rate_bps: int
    charged_bits: int
    wire_bits: int
    peak_window_bits: int

    @property
    def ratio(self) -> float:
        return self.charged_bits / self.wire_bits


def measure(rates_bps: list[int], seconds: float, transport: str = "mqtt") -> list[Result]:
    with ExitStack() as stack:
        running = [
            (rate, _start(stack.enter_context(Cable(rate // 1000)), transport, rate, seconds)) for rate in rates_bps
        ]
        return [Result(rate, *map(int, edge.communicate()[0].split())) for rate, edge in running]


def _start(cable: Cable, transport: str, rate_bps: int, seconds: float) -> subprocess.Popen[str]:
    """Broker, server and edge; the edge's process."""
    if transport == "mqtt":
        cable.start_broker()
    role = ["--transport", transport, "--role", "server"]
    cable.run("server", sys.executable, "-m", "bench.wire_cost", *role)
    if transport == "webrtc":
        time.sleep(_SERVER_STARTS_S)  # mosquitto takes an edge before there is a server
    role = ["--transport", transport, "--role", "edge", "--seconds", str(seconds), "--rates", str(rate_bps // 1000)]
    return cable.run("edge", sys.executable, "-m", "bench.wire_cost", *role)


def _counted_bits() -> int:
    """What the interfaces of this namespace have sent."""
    with open("/proc/net/dev", encoding="ascii") as table:
        lines = [line.partition(":") for line in table.readlines()[2:]]
    return 8 * sum(int(counts.split()[8]) for name, _, counts in lines if name.strip() != "lo")


ChargeOverhead = Callable[[int], bool]


def _server_link(transport: str) -> ServerLink:
    if transport == "webrtc":
        return WebRtcServerLink(_signalling_endpoint())
    return MqttServerLink(open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(), "server"), Topics("bench"), "servers")


def _edge_link(transport: str, charge_overhead: ChargeOverhead) -> EdgeLink:
    camera_info = CameraInfo(14, 16, "0" * 16, 1.0)
    if transport == "webrtc":
        return WebRtcEdgeLink(_signalling_endpoint(), "edge", ["camera"], camera_info, charge_overhead=charge_overhead)
    broker = open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(keepalive="10s"), "server")
    return MqttEdgeLink(
        broker, Topics("bench"), "edge", ["camera"], camera_info, charge_overhead=charge_overhead, must_connect=True
    )


def _signalling_endpoint() -> SignallingEndpoint:
    os.environ.setdefault(ENV_TOKEN, "token-of-the-bench")
    return open_signalling_endpoint(f"webrtc+http://{SERVER}:{PORT}", WebRtcConfig(), "server")


async def _be_server(transport: str) -> None:
    async with _server_link(transport) as link:
        async for message in link.messages():
            await link.reply(message, bytes(66))


async def _be_edge(transport: str, rate_bps: int, seconds: float) -> None:
    """Prints charged bits, bits on the wire, and the fullest window."""
    budget, before = UplinkBudget(rate_bps, _WINDOW_S), _counted_bits()
    began_s = time.monotonic()

    def charge_overhead(bits: int) -> bool:
        return budget.charge(time.monotonic(), bits)

    async with _edge_link(transport, charge_overhead) as link:
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


async def _count(link: EdgeLink) -> None:
    async for _ in link.replies():
        pass


def _largest(link: EdgeLink, allowance_bits: int) -> int | None:
    """The largest message that the allowance pays for."""
    for size in range(_MOST, _LEAST - 1, -200):
        if link.wire_bits("camera", size) <= allowance_bits:
            return size
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transport", choices=["mqtt", "webrtc"], default="mqtt")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rates", type=int, nargs="+", default=[16, 64, 256], help="kbit/s")
    parser.add_argument("--role", choices=["edge", "server"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        run_loop(_be_server(arguments.transport), arguments.transport == "webrtc")
    elif arguments.role == "edge":
        run_loop(
            _be_edge(arguments.transport, 1000 * arguments.rates[0], arguments.seconds), arguments.transport == "webrtc"
        )
    elif (reason := obstacle("mosquitto")) is not None:
        sys.exit(f"bench.wire_cost: {reason}")
    else:
        for result in measure([1000 * rate for rate in arguments.rates], arguments.seconds, arguments.transport):
            print(
                f"{result.rate_bps // 1000:4d} kbit/s: charged {result.charged_bits}, wire {result.wire_bits}, "
                f"ratio {result.ratio:.4f}, fullest window {result.peak_window_bits} bits"
            )


if __name__ == "__main__":
    main()
