"""Measures latency, loss and processor time of a transport: on a free link, an overloaded link, and a lossy link.

    python -m bench.transport [--transports mqtt webrtc] [--loads free narrow lossy] [--seconds 20]

Free: 30 frames/s of 4 kB; reports the median round trip beside that of one process, and each side's share of a core.
Narrow: a link of 400 kbit/s (`tc tbf`) with 25 frames/s of 2.5 kB, which is 500 kbit/s before any framing.
Lossy: a link of 256 kbit/s, 25 ms and 5 % packet loss in each direction (`bench.lossy_link`) with 8 frames/s of 2.5 kB,
or with 15 frames/s of 800 B, which fit one datagram.

As in `sagelink run`, the edge has at most two messages without a reply, waits at most a second for each, and does not
send the other frames. Edge and server are separate processes in two network namespaces; the server decodes, batches and
replies, with a model that answers at once. Needs root, `ip`, `tc`, /dev/net/tun and mosquitto.
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

from bench import lossy_link, namespaces
from bench.lossy_link import LossyLink
from bench.namespaces import PORT, SERVER, Cable
from bench.stub_server import Noise, answer, camera_info
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import MqttConfig, ServeConfig, WebRtcConfig
from sagelink.pipeline.tasks import run_loop
from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import EdgeLink, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.reply_message import decode_reply
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink

_IN_FLIGHT = 2
WEBRTC_PORT = 8620
_DEADLINE_S = 1.0


@dataclass(frozen=True)
class OfferedLoad:
    """The frames that the edge offers, and the link that carries them."""

    frames_per_s: float
    size: int  # bytes of a message
    rate_kbit: int | None = None  # of the link from edge to server
    lossy: LossyLink | None = None


LOSSY = LossyLink(loss=0.05, delay_s=0.025, rate_bps=256_000)
LOADS = {
    "free": OfferedLoad(30, 4032),
    "narrow": OfferedLoad(25, 2496, rate_kbit=400),
    "lossy": OfferedLoad(8, 2496, lossy=LOSSY),
    "lossy-small": OfferedLoad(15, 800, lossy=LOSSY),
}


@dataclass(frozen=True)
class TransportEnds:
    """How to make the two ends of a transport between processes."""

    edge: Callable[[], EdgeLink]
    server: Callable[[], ServerLink]
    broker: bool  # whether mosquitto runs beside the server
    uses_datagrams: bool  # whether evidence travels in parts


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
        _signalling_endpoint(),
        "edge",
        ["camera"],
        camera_info(_DEADLINE_S),
        wire_ledger=WireLedger(UplinkBudget(None, 1.0), time.monotonic),
    )


def _webrtc_server() -> ServerLink:
    return WebRtcServerLink(_signalling_endpoint())


TRANSPORTS = {
    "mqtt": TransportEnds(_mqtt_edge, _mqtt_server, broker=True, uses_datagrams=False),
    "webrtc": TransportEnds(_webrtc_edge, _webrtc_server, broker=False, uses_datagrams=True),
}


@dataclass(frozen=True)
class TransportFigures:
    """The measurements of one transport under one load."""

    round_trips_ms: list[float]
    unsent: int  # frames not sent, because two messages had no reply yet or the link refused
    lost: int  # frames sent and not answered in time
    units: float  # share of the units that arrived, in the answered frames
    edge: float  # share of a core that the edge uses
    server: float = 0.0  # share of a core that the server uses

    @property
    def sent(self) -> int:
        return len(self.round_trips_ms) + self.lost

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.round_trips_ms, q))


async def drive(link: EdgeLink, load: OfferedLoad, seconds: float, uses_datagrams: bool = False) -> TransportFigures:
    """Offers frames at a steady rate and collects the replies."""
    noise, sent_at_s, round_trips, unsent = Noise(load.size, uses_datagrams), dict[int, float](), list[float](), 0
    lost = units = 0

    async def read_replies() -> None:
        nonlocal units
        async for _, data in link.replies():
            reply = decode_reply(data)
            assert reply.refusal is None, reply.refusal
            if reply.seq in sent_at_s:
                round_trips.append((time.monotonic() - sent_at_s.pop(reply.seq)) * 1e3)
                units += reply.units

    reading = asyncio.create_task(read_replies())
    await link.ready()
    start_s, used_s = time.monotonic(), time.process_time()
    for seq in range(round(load.frames_per_s * seconds)):
        await asyncio.sleep(max(0.0, start_s + seq / load.frames_per_s - time.monotonic()))
        now_s = time.monotonic()
        for late in [number for number, sent_s in sent_at_s.items() if now_s - sent_s > _DEADLINE_S]:
            del sent_at_s[late]
            lost += 1
        if len(sent_at_s) >= _IN_FLIGHT or await link.send("camera", noise.message(seq)) is not None:
            unsent += 1
        else:
            sent_at_s[seq] = now_s
    used = (time.process_time() - used_s) / (time.monotonic() - start_s)
    await asyncio.sleep(_DEADLINE_S)
    reading.cancel()
    return TransportFigures(
        round_trips, unsent, lost + len(sent_at_s), units / noise.units / max(1, len(round_trips)), used
    )


async def in_process(load: OfferedLoad, seconds: float) -> TransportFigures:
    async with InProcessLink() as link:
        serving = asyncio.create_task(answer(link, 0.0))
        figures = await drive(link, load, seconds)
        link.close()
        await serving
    return figures


def between_processes(name: str, load: str, seconds: float) -> TransportFigures:
    with Cable(1, LOADS[load].rate_kbit, LOADS[load].lossy) as cable:
        if TRANSPORTS[name].broker:
            cable.start_broker()
        role = [sys.executable, "-m", "bench.transport", "--transports", name, "--role"]
        server = cable.run("server", *role, "server")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        before_s = _used_s(server.pid)
        edge = cable.run("edge", *role, "edge", "--loads", load, "--seconds", str(seconds))
        unsent, lost, units, used, *round_trips = edge.communicate()[0].split()
        served = (_used_s(server.pid) - before_s) / seconds
    return TransportFigures(
        [float(round_trip) for round_trip in round_trips], int(unsent), int(lost), float(units), float(used), served
    )


def _used_s(process: int) -> float:
    """Processor time of a process in s."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _run_server(ends: TransportEnds) -> None:
    async with ends.server() as link:
        print("ready", flush=True)
        await answer(link, ServeConfig().max_wait)


async def _run_edge(ends: TransportEnds, load: OfferedLoad, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        figures = await drive(await stack.enter_async_context(ends.edge()), load, seconds, ends.uses_datagrams)
    print(figures.unsent, figures.lost, figures.units, figures.edge, *figures.round_trips_ms)


def _row(name: str, load: str, figures: TransportFigures, baseline: TransportFigures | None) -> str:
    p50, p95 = figures.percentile(50), figures.percentile(95)
    cells = [f"{p50:.2f}", "" if baseline is None else f"{p50 - baseline.percentile(50):.2f}", f"{p95:.2f}"]
    cells += [f"{figures.sent} of {figures.sent + figures.unsent}", f"{1 - figures.lost / figures.sent:.1%}"]
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
        run_loop(_run_server(ends), fast)
        return
    if arguments.role == "edge":
        run_loop(_run_edge(ends, LOADS[arguments.loads[0]], arguments.seconds), fast)
        return
    if (reason := namespaces.unavailable("tc", "mosquitto")) or (reason := lossy_link.unavailable()):
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
