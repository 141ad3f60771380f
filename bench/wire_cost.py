"""Measures charged bits against bits on the wire: edge in one network namespace, server (and mosquitto) in another.

    python -m bench.wire_cost [--transport mqtt] [--seconds 60] [--rates 16 64 256]

Link, budget and broker are those of a live run. Each message has as many random bytes as the window allows (at least
1 kB); the server replies with 66 bytes. The veth interface of the edge's namespace counts the bits on the wire. All
rates run at the same time, each between two namespaces of its own. Needs root, `ip` and mosquitto.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench.namespaces import PORT, SERVER, Cable, unavailable
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
from sagelink.transport.wire_cost import ChargeOverhead

_MIN_BYTES, _MAX_BYTES = 1000, 12_000  # of a message
_WINDOW_S = 1.0
_SERVER_STARTS_S = 5.0


@dataclass(frozen=True)
class WireCostResult:
    """The bits of one run at one rate."""

    rate_bps: int
    charged_bits: int
    wire_bits: int
    peak_window_bits: int

    @property
    def ratio(self) -> float:
        return self.charged_bits / self.wire_bits


def measure(rates_bps: list[int], seconds: float, transport: str = "mqtt") -> list[WireCostResult]:
    """Runs all rates at the same time."""
    with ExitStack() as stack:
        running = [
            (rate, _start(stack.enter_context(Cable(rate // 1000)), transport, rate, seconds)) for rate in rates_bps
        ]
        return [WireCostResult(rate, *map(int, edge.communicate()[0].split())) for rate, edge in running]


def _start(cable: Cable, transport: str, rate_bps: int, seconds: float) -> subprocess.Popen[str]:
    """Starts broker, server and edge. Returns the edge's process."""
    if transport == "mqtt":
        cable.start_broker()
    role = ["--transport", transport, "--role", "server"]
    cable.run("server", sys.executable, "-m", "bench.wire_cost", *role)
    if transport == "webrtc":
        time.sleep(_SERVER_STARTS_S)  # over MQTT the edge may connect before the server
    role = ["--transport", transport, "--role", "edge", "--seconds", str(seconds), "--rates", str(rate_bps // 1000)]
    return cable.run("edge", sys.executable, "-m", "bench.wire_cost", *role)


def _counted_bits() -> int:
    """Bits that the interfaces of this namespace have sent."""
    with open("/proc/net/dev", encoding="ascii") as table:
        lines = [line.partition(":") for line in table.readlines()[2:]]
    return 8 * sum(int(counts.split()[8]) for name, _, counts in lines if name.strip() != "lo")


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


async def _run_server(transport: str) -> None:
    async with _server_link(transport) as link:
        async for message in link.messages():
            await link.reply(message, bytes(66))


async def _run_edge(transport: str, rate_bps: int, seconds: float) -> None:
    """Prints the charged bits, the bits on the wire, and the bits of the fullest window."""
    budget, before = UplinkBudget(rate_bps, _WINDOW_S), _counted_bits()
    began_s = time.monotonic()

    def charge_overhead(bits: int) -> bool:
        return budget.charge(time.monotonic(), bits)

    async with _edge_link(transport, charge_overhead) as link:
        reading = asyncio.create_task(_read_replies(link))
        while time.monotonic() < began_s + seconds:
            await asyncio.sleep(0.02)
            now_s = time.monotonic()
            size = _largest_message(link, budget.allowance(now_s) or 0)
            if size is None or link.refusal() is not None:
                continue
            budget.charge(now_s, link.wire_bits("camera", size))
            assert await link.send("camera", os.urandom(size)) is None
        await asyncio.sleep(1.0)  # for the last acknowledgements, and the last reading of the counters
        print(budget.total_bits, _counted_bits() - before, budget.peak_window_bits)
        reading.cancel()


async def _read_replies(link: EdgeLink) -> None:
    async for _ in link.replies():
        pass


def _largest_message(link: EdgeLink, allowance_bits: int) -> int | None:
    """The bytes of the largest message that the allowance covers."""
    for size in range(_MAX_BYTES, _MIN_BYTES - 1, -200):
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
        run_loop(_run_server(arguments.transport), arguments.transport == "webrtc")
    elif arguments.role == "edge":
        run_loop(
            _run_edge(arguments.transport, 1000 * arguments.rates[0], arguments.seconds),
            arguments.transport == "webrtc",
        )
    elif (reason := unavailable("mosquitto")) is not None:
        sys.exit(f"bench.wire_cost: {reason}")
    else:
        for result in measure([1000 * rate for rate in arguments.rates], arguments.seconds, arguments.transport):
            print(
                f"{result.rate_bps // 1000:4d} kbit/s: charged {result.charged_bits}, wire {result.wire_bits}, "
                f"ratio {result.ratio:.4f}, fullest window {result.peak_window_bits} bits"
            )


if __name__ == "__main__":
    main()
