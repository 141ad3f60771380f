"""What a transport adds to a frame's way: on a free link, on one that is slower than what is offered, and on one that
loses packets.

    python -m bench.transport [--transports mqtt webrtc] [--loads free narrow lossy] [--seconds 20]

Free: 30 frames/s of 4 kB; the round trip's median, over that of one process, and the share of a core that each side
takes. Narrow: a link of 400 kbit/s (`tc tbf`) is offered 25 frames/s of 2.5 kB, which is 500 kbit/s before any framing.
Lossy: 256 kbit/s, 25 ms and 5 % loss of packets either way (`bench.lossy_link`), are offered 8 frames/s of 2.5 kB, or
15 frames/s of 800 B, which one datagram holds. The edge has two messages unacknowledged at most, for a second at most,
and keeps the others, as `sagelink run` does. Edge and server are processes of their own in two network namespaces; the
server decodes, batches and replies, with a model that answers at once. Needs root, `ip`, `tc`, /dev/net/tun and
mosquitto.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.lossy_link import LossyLink
from bench.lossy_link import obstacle as rough_obstacle
from bench.namespaces import PORT, SERVER, Cable, obstacle
from bench.stub_server import Noise, answer, camera_info
from sagelink.pipeline.config import MqttConfig, ServeConfig, WebRtcConfig
from sagelink.pipeline.tasks import run_loop
from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import EdgeLink, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink
from sagelink.transport.wire import decode_reply

_IN_FLIGHT = 2
WEBRTC_PORT = 8620
_DEADLINE_S = 1.0


@dataclass(frozen=True)
class Load:
    """What is offered."""

    frames_per_s: float
    size: int  # bytes of a message
    rate_kbit: int | None = None  # of the link from edge to server
    rough: LossyLink | None = None


ROUGH = LossyLink(loss=0.05, delay_s=0.025, rate_bps=256_000)
LOADS = {
    "free": Load(30, 4032),
    "narrow": Load(25, 2496, rate_kbit=400),
    "lossy": Load(8, 2496, rough=ROUGH),
    "lossy-small": Load(15, 800, rough=ROUGH),
}


@dataclass(frozen=True)
class Ends:
    """The two ends of a transport between processes."""

    edge: Callable[[], EdgeLink]
    server: Callable[[], ServerLink]
    broker: bool  # whether mosquitto runs beside the server
    in_parts: bool  # whether evidence travels as datagrams


def _mqtt_edge() -> EdgeLink:
    broker = open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(), "server")
    link = MqttEdgeLink(
        broker, Topics("bench"), "edge", ["camera"], camera_info(_DEADLINE_S), in_flight=_IN_FLIGHT, must_connect=True
    )
    return link


def _mqtt_server() -> ServerLink:
    broker = open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(), "server")
    return MqttServerLink(broker, Topics("bench"), "servers")


def _signalling_endpoint() -> SignallingEndpoint:
    os.environ.setdefault(ENV_TOKEN, "token-of-the-bench")
    return open_signalling_endpoint(f"webrtc+http://{SERVER}:{WEBRTC_PORT}", WebRtcConfig(), "server")


def _webrtc_edge() -> EdgeLink:
    return WebRtcEdgeLink(
        _signalling_endpoint(), "edge", ["camera"], camera_info(_DEADLINE_S), charge_overhead=lambda bits: True
    )


def _webrtc_server() -> ServerLink:
    return WebRtcServerLink(_signalling_endpoint())


TRANSPORTS = {
    "mqtt": Ends(_mqtt_edge, _mqtt_server, broker=True, in_parts=False),
    "webrtc": Ends(_webrtc_edge, _webrtc_server, broker=False, in_parts=True),
}


@dataclass(frozen=True)
class Figures:
    """Of one transport under one load."""

    round_trips_ms: list[float]
    kept: int  # frames that were not sent, because two were unacknowledged or the link took none
    lost: int  # sent, and not answered in time
    units: float  # share of the units that the answers are about
    edge: float  # share of a core
    server: float = 0.0

    @property
    def sent(self) -> int:
        return len(self.round_trips_ms) + self.lost

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.round_trips_ms, q))


async def drive(link: EdgeLink, load: Load, seconds: float, in_parts: bool = False) -> Figures:
    """Offers frames at a steady pace; a reply is an acknowledgement too."""
    noise, began_s, round_trips, kept = Noise(load.size, in_parts), dict[int, float](), list[float](), 0
    lost = units = 0

    async def listen() -> None:
        nonlocal units
        async for _, data in link.replies():
            reply = decode_reply(data)
            assert reply.refusal is None, reply.refusal
            if reply.seq in began_s:
                round_trips.append((time.monotonic() - began_s.pop(reply.seq)) * 1e3)
                units += reply.units

    listening = asyncio.create_task(listen())
    await link.ready()
    start_s, used_s = time.monotonic(), time.process_time()
    for seq in range(round(load.frames_per_s * seconds)):
        await asyncio.sleep(max(0.0, start_s + seq / load.frames_per_s - time.monotonic()))
        now_s = time.monotonic()
        for late in [number for number, sent_s in began_s.items() if now_s - sent_s > _DEADLINE_S]:
            del began_s[late]
            lost += 1
        if len(began_s) >= _IN_FLIGHT or await link.send("camera", noise.message(seq)) is not None:
            kept += 1
        else:
            began_s[seq] = now_s
    used = (time.process_time() - used_s) / (time.monotonic() - start_s)
    await asyncio.sleep(_DEADLINE_S)
    listening.cancel()
    return Figures(round_trips, kept, lost + len(began_s), units / noise.units / max(1, len(round_trips)), used)


async def in_process(load: Load, seconds: float) -> Figures:
    async with InProcessLink() as link:
        serving = asyncio.create_task(answer(link, 0.0))
        figures = await drive(link, load, seconds)
        link.close()
        await serving
    return figures


def between_processes(name: str, load: str, seconds: float) -> Figures:
    with Cable(1, LOADS[load].rate_kbit, LOADS[load].rough) as cable:
        if TRANSPORTS[name].broker:
            cable.start_broker()
        role = [sys.executable, "-m", "bench.transport", "--transports", name, "--role"]
        server = cable.run("server", *role, "server")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        before_s = _used_s(server.pid)
        edge = cable.run("edge", *role, "edge", "--loads", load, "--seconds", str(seconds))
        kept, lost, units, used, *round_trips = edge.communicate()[0].split()
        served = (_used_s(server.pid) - before_s) / seconds
    return Figures([float(each) for each in round_trips], int(kept), int(lost), float(units), float(used), served)


def _used_s(process: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _be_server(ends: Ends) -> None:
    async with ends.server() as link:
        print("ready", flush=True)
        await answer(link, ServeConfig().max_wait)


async def _be_edge(ends: Ends, load: Load, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        figures = await drive(await stack.enter_async_context(ends.edge()), load, seconds, ends.in_parts)
    print(figures.kept, figures.lost, figures.units, figures.edge, *figures.round_trips_ms)


def _row(name: str, load: str, figures: Figures, baseline: Figures | None) -> str:
    p50, p95 = figures.percentile(50), figures.percentile(95)
    cells = [f"{p50:.2f}", "" if baseline is None else f"{p50 - baseline.percentile(50):.2f}", f"{p95:.2f}"]
    cells += [f"{figures.sent} of {figures.sent + figures.kept}", f"{1 - figures.lost / figures.sent:.1%}"]
    cells += [f"{figures.units:.1%}", f"{figures.edge:.1%}", f"{figures.server:.1%}"]
    return f"| {load} | {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transports", nargs="+", choices=list(TRANSPORTS), default=list(TRANSPORTS))
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), default=list(LOADS))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--role", choices=["edge", "server"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ends, fast = TRANSPORTS[arguments.transports[0]], arguments.transports[0] == "webrtc"
    if arguments.role == "server":
        run_loop(_be_server(ends), fast)
        return
    if arguments.role == "edge":
        run_loop(_be_edge(ends, LOADS[arguments.loads[0]], arguments.seconds), fast)
        return
    if (reason := obstacle("tc", "mosquitto")) or (reason := rough_obstacle()):
        sys.exit(f"bench.transport: {reason}")
    print("| link | over | p50, ms | added p50 | p95 | sent | of these answered | units in answers | edge | server |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for load in arguments.loads:
        baseline = asyncio.run(in_process(LOADS[load], arguments.seconds)) if load == "free" else None
        if baseline is not None:
            print(_row("in-process", load, baseline, baseline), flush=True)
        for name in arguments.transports:
            print(_row(name, load, between_processes(name, load, arguments.seconds), baseline), flush=True)


if __name__ == "__main__":
    main()
