"""What a transport adds to a frame's way: on a free link, and on one that is slower than what is offered.

    python -m bench.transport [--transports mqtt webrtc] [--seconds 20]

Free: 30 frames/s of 4 kB; the round trip's median, over that of one process. Narrow: a link of 400 kbit/s (`tc tbf`)
is offered 25 frames/s of 2.5 kB, which is 500 kbit/s before any framing; the edge has two messages unacknowledged at
most, and keeps the others, as `sagelink run` does. Edge and server are processes of their own in two network
namespaces; the server decodes, batches and replies, with a model that answers at once. Needs root, `ip`, `tc` and
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

import numpy as np

from bench.cable import PORT, SERVER, Cable, obstacle
from bench.stub import Noise, answer, hello
from pipeline.config import MqttConfig, ServeConfig, WebRtcConfig
from pipeline.tasks import run_loop
from transport.in_process import InProcessLink
from transport.link import EdgeLink, ServerLink
from transport.mqtt.address import open_broker
from transport.mqtt.edge import MqttEdgeLink
from transport.mqtt.server import MqttServerLink
from transport.mqtt.topics import Topics
from transport.webrtc.address import ENV_TOKEN, MeetingPoint, open_meeting_point
from transport.webrtc.edge import WebRtcEdgeLink
from transport.webrtc.server import WebRtcServerLink
from transport.wire import decode_reply

_IN_FLIGHT = 2
WEBRTC_PORT = 8620
_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Load:
    """What is offered."""

    frames_per_s: float
    size: int  # bytes of a message
    rate_kbit: int | None  # of the link from edge to server


FREE, NARROW = Load(30, 4032, None), Load(25, 2496, 400)
LOADS = {"free": FREE, "narrow": NARROW}


@dataclass(frozen=True)
class Ends:
    """The two ends of a transport between processes."""

    edge: Callable[[], EdgeLink]
    server: Callable[[], ServerLink]
    broker: bool  # whether mosquitto runs beside the server


def _mqtt_edge() -> EdgeLink:
    broker = open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(), "server")
    link = MqttEdgeLink(
        broker, Topics("bench"), "edge", ["camera"], hello(_DEADLINE_S), in_flight=_IN_FLIGHT, must_connect=True
    )
    return link


def _mqtt_server() -> ServerLink:
    broker = open_broker(f"mqtt://{SERVER}:{PORT}", MqttConfig(), "server")
    return MqttServerLink(broker, Topics("bench"), "servers")


def _meeting_point() -> MeetingPoint:
    os.environ.setdefault(ENV_TOKEN, "token-of-the-bench")
    return open_meeting_point(f"webrtc+http://{SERVER}:{WEBRTC_PORT}", WebRtcConfig(), "server")


def _webrtc_edge() -> EdgeLink:
    return WebRtcEdgeLink(_meeting_point(), "edge", ["camera"], hello(_DEADLINE_S), toll=lambda bits: True)


def _webrtc_server() -> ServerLink:
    return WebRtcServerLink(_meeting_point())


IN_PROCESS = "in-process"
TRANSPORTS = {
    "mqtt": Ends(_mqtt_edge, _mqtt_server, broker=True),
    "webrtc": Ends(_webrtc_edge, _webrtc_server, broker=False),
}


@dataclass(frozen=True)
class Figures:
    """Of one transport under one load."""

    round_trips_ms: list[float]
    kept: int  # frames that were not sent, because two were unacknowledged
    lost: int  # sent, and not answered

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.round_trips_ms, q))


async def drive(link: EdgeLink, load: Load, seconds: float) -> Figures:
    """Offers frames at a steady pace; a reply is an acknowledgement too."""
    noise, began_s, round_trips, kept = Noise(load.size), dict[int, float](), list[float](), 0

    async def listen() -> None:
        async for _, data in link.replies():
            reply = decode_reply(data)
            assert reply.refusal is None, reply.refusal
            if reply.seq in began_s:
                round_trips.append((time.monotonic() - began_s.pop(reply.seq)) * 1e3)

    listening = asyncio.create_task(listen())
    await link.ready()
    start_s = time.monotonic()
    for seq in range(round(load.frames_per_s * seconds)):
        await asyncio.sleep(max(0.0, start_s + seq / load.frames_per_s - time.monotonic()))
        now_s = time.monotonic()
        if len(began_s) >= _IN_FLIGHT or await link.send("camera", noise.message(seq)) is not None:
            kept += 1
        else:
            began_s[seq] = now_s
    await asyncio.sleep(1.0)
    listening.cancel()
    return Figures(round_trips, kept, len(began_s))


async def in_process(load: Load, seconds: float) -> Figures:
    async with InProcessLink() as link:
        serving = asyncio.create_task(answer(link, 0.0))
        figures = await drive(link, load, seconds)
        link.close_uplink()
        await serving
    return figures


def between_processes(name: str, load: str, seconds: float) -> Figures:
    with Cable(1, LOADS[load].rate_kbit) as cable:
        if TRANSPORTS[name].broker:
            cable.start_broker()
        role = [sys.executable, "-m", "bench.transport", "--transports", name, "--role"]
        server = cable.run("server", *role, "server")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        edge = cable.run("edge", *role, "edge", "--load", load, "--seconds", str(seconds))
        kept, lost, *round_trips = edge.communicate()[0].split()
        return Figures([float(each) for each in round_trips], int(kept), int(lost))


async def _be_server(ends: Ends) -> None:
    async with ends.server() as link:
        print("ready", flush=True)
        await answer(link, ServeConfig().max_wait)


async def _be_edge(ends: Ends, load: Load, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        figures = await drive(await stack.enter_async_context(ends.edge()), load, seconds)
    print(figures.kept, figures.lost, *figures.round_trips_ms)


def _row(name: str, free: Figures, baseline: Figures, narrow: Figures | None) -> str:
    added = free.percentile(50) - baseline.percentile(50)
    cells = [f"{free.percentile(50):.2f}", f"{added:.2f}", f"{free.percentile(95):.2f}", f"{free.kept + free.lost}"]
    if narrow is None:
        cells += [""] * 4
    else:
        sent = len(narrow.round_trips_ms) + narrow.lost
        cells += [f"{narrow.percentile(50):.0f}", f"{narrow.percentile(95):.0f}", f"{sent} of {sent + narrow.kept}"]
        cells.append(str(narrow.lost))
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transports", nargs="+", choices=list(TRANSPORTS), default=list(TRANSPORTS))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--role", choices=["edge", "server"], help=argparse.SUPPRESS)
    parser.add_argument("--load", choices=LOADS, default="free", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        run_loop(_be_server(TRANSPORTS[arguments.transports[0]]), arguments.transports[0] == "webrtc")
        return
    if arguments.role == "edge":
        edge = _be_edge(TRANSPORTS[arguments.transports[0]], LOADS[arguments.load], arguments.seconds)
        run_loop(edge, arguments.transports[0] == "webrtc")
        return
    if (reason := obstacle("tc", "mosquitto")) is not None:
        sys.exit(f"bench.transport: {reason}")
    print("| ms | free: p50 | added p50 | p95 | not answered | narrow: p50 | p95 | sent | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    baseline = asyncio.run(in_process(FREE, arguments.seconds))
    print(_row(IN_PROCESS, baseline, baseline, None), flush=True)
    for name in arguments.transports:
        free, narrow = (between_processes(name, load, arguments.seconds) for load in LOADS)
        print(_row(name, free, baseline, narrow), flush=True)


if __name__ == "__main__":
    main()
