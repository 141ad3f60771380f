"""Measures a link's bits on the wire against its budget: edge in one network namespace, server and broker in another.

    python -m bench.wire_cost [--transports mqtt mqtts webrtc] [--rates 16 64 256] [--loss 0 5 10 20] [--seconds 60]
        [--window 1] [--outage 10-15 ...] [--restart 12 ...] [--cameras 1] [--key-bits 2048] [--jobs 2]

Link, budget and broker are those of a live run. Each message has as many random bytes as the allowance covers (4 to 12
kB; from a quarter of a small window on); the server replies with 66 bytes. Every packet that leaves the edge's
interface is captured with its time (`bench.capture`). The cable has 40 ms of delay and the given loss in either
direction, and at `--outage` nothing passes. At `--restart` the broker is killed and started again. Columns:

- fullest 1 s, 10 s: the bits of the fullest window, wherever it starts, over the limit of such a window; a window that
  is shorter than the budget's has the budget's limit;
- over: share of the packets at whose time a window is over its limit;
- charged/wire: all charged bits over all captured bits;
- evidence: bits of evidence that reached the server, over rate x time.

Needs root, `ip`, /dev/net/tun, mosquitto, and openssl for mqtts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench import lossy_link
from bench.capture import fullest_window, read_capture, window_bits
from bench.certificates import CertificateFiles, make_certificates
from bench.lossy_link import LossyLink
from bench.namespaces import BROKER, PORT, SERVER, Cable, unavailable
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import MqttConfig, WebRtcConfig
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import run_loop
from sagelink.pipeline.types import Reply
from sagelink.transport.bundle import PART_BYTES, encode_bundle
from sagelink.transport.envelope import claimed_seq
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo, EdgeLink, ServerLink
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.edge import MqttEdgeLink
from sagelink.transport.mqtt.server import MqttServerLink
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.reply_message import encode_reply
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink

_MIN_BYTES, _MAX_BYTES = 4000, 12_000  # of a message; the least is less where a window is small
_SERVER_CONNECTS_S = 1.0
_DELAY_S = 0.04
_LAST_PACKETS_S = 1.5
_TLS_BROKER = """user root
listener {port}
cafile {ca}
certfile {server}
keyfile {server_key}
require_certificate true
allow_anonymous true
set_tcp_nodelay true
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One measurement."""

    transport: str = "mqtt"  # mqtt, mqtts or webrtc
    rate_bps: int = 64_000
    window_s: float = 1.0
    seconds: float = 30.0
    loss: float | None = None  # None: a plain cable, without delay
    outages: tuple[tuple[float, float], ...] = ()  # start and end, s since the first packet
    restarts: tuple[float, ...] = ()  # of the broker, s since the start of the edge
    cameras: int = 1
    key_bits: int = 2048

    @property
    def lossy(self) -> LossyLink | None:
        if self.loss is None:
            return None
        return LossyLink(self.loss, _DELAY_S, max(4e6, 8.0 * self.rate_bps), self.outages)


@dataclass(frozen=True, slots=True)
class WireCostResult:
    """The bits of one measurement."""

    scenario: Scenario
    charged_bits: int
    wire_bits: int
    peak_window_bits: int  # of the ledger
    evidence_bits: int  # that reached the server
    fullest: dict[float, float]  # by window in s: bits over the limit of such a window
    over: float  # share of packets that end a window over its limit
    connected: int  # times
    error: str = ""

    @property
    def ratio(self) -> float:
        return self.charged_bits / max(1, self.wire_bits)

    @property
    def delivered(self) -> float:
        return self.evidence_bits / (self.scenario.rate_bps * self.scenario.seconds)


def measure(scenario: Scenario, number: int = 0) -> WireCostResult:
    """`number`: of the cable; different for measurements at the same time."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        cable = stack.enter_context(Cable(number, lossy=scenario.lossy))
        certificates = None
        if scenario.transport == "mqtts":
            certificates = make_certificates(folder, SERVER, scenario.key_bits, 3)
        broker = _start_broker(cable, scenario, certificates) if scenario.transport != "webrtc" else None
        received = folder / "received"
        server = _run_role(cable, "server", scenario, certificates, received)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        capture = cable.run("edge", sys.executable, "-m", "bench.capture", cable.edge_interface, str(folder / "out"))
        assert capture.stdout is not None
        assert capture.stdout.readline() == "ready\n"
        edge = _run_role(cable, "edge", scenario, certificates, folder / "log")
        began_s = time.monotonic()
        for restart_s in scenario.restarts:
            time.sleep(max(0.0, began_s + restart_s - time.monotonic()))
            if broker is None:
                break
            broker.kill()
            broker.wait()
            broker = _start_broker(cable, scenario, certificates)
        output = edge.communicate()[0]
        time.sleep(0.2)
        capture.send_signal(signal.SIGTERM)
        capture.wait()
        packets = read_capture(folder / "out")
        log = (folder / "log").read_text() if (folder / "log").exists() else ""
        if os.environ.get("BENCH_KEEP"):
            (Path(os.environ["BENCH_KEEP"]) / f"log{number}").write_text(log)
            (Path(os.environ["BENCH_KEEP"]) / f"out{number}").write_text((folder / "out").read_text())
        evidence = sum(map(int, received.read_text().split())) if received.exists() else 0
    limits = {window: _limit(scenario, window) for window in (1.0, 10.0)}
    over = [sum_ > limits[1.0] for sum_ in window_bits(packets, 1.0)]
    charged, peak, *error = output.split(maxsplit=2) if output.strip() else ("0", "0", "the edge failed")
    return WireCostResult(
        scenario,
        charged_bits=int(charged),
        wire_bits=sum(bits for _, bits in packets),
        peak_window_bits=int(peak),
        evidence_bits=8 * evidence,
        fullest={window: fullest_window(packets, window) / limit for window, limit in limits.items()},
        over=sum(over) / max(1, len(over)),
        connected=log.count("event=connected"),
        error=" ".join(error).strip(),
    )


def _limit(scenario: Scenario, window_s: float) -> float:
    """The most bits that the budget lets pass in a window of this length."""
    return scenario.rate_bps * scenario.window_s * -(-window_s // scenario.window_s)


def _start_broker(cable: Cable, scenario: Scenario, certificates: CertificateFiles | None) -> subprocess.Popen[str]:
    if certificates is None:
        return cable.start_broker(BROKER)
    names = {"ca": certificates.ca, "server": certificates.server, "server_key": certificates.server_key}
    plain = "listener 1884\nallow_anonymous true\n"  # for the server's end
    return cable.start_broker("per_listener_settings true\n" + _TLS_BROKER.format(port=PORT, **names) + plain)


def _run_role(
    cable: Cable, role: str, scenario: Scenario, certificates: CertificateFiles | None, file: Path
) -> subprocess.Popen[str]:
    arguments = ["--role", role, "--transports", scenario.transport, "--rates", str(scenario.rate_bps / 1000)]
    arguments += ["--window", str(scenario.window_s), "--seconds", str(scenario.seconds), "--file", str(file)]
    arguments += ["--cameras", str(scenario.cameras)]
    if certificates is not None:
        arguments += ["--certificates", *map(str, (certificates.ca, certificates.client, certificates.client_key))]
    side = "edge" if role == "edge" else "server"
    return cable.run(side, sys.executable, "-m", "bench.wire_cost", *arguments)


def _server_link(transport: str) -> ServerLink:
    if transport == "webrtc":
        return WebRtcServerLink(_signalling_endpoint())
    port = PORT if transport == "mqtt" else 1884
    return MqttServerLink(open_broker(f"mqtt://{SERVER}:{port}", MqttConfig(), "server"), Topics("bench"), "servers")


def _edge_link(transport: str, cameras: int, certificates: Sequence[Path], ledger: WireLedger) -> EdgeLink:
    camera_info, names = CameraInfo(14, 16, "0" * 16, 1.0), [f"camera{number}" for number in range(cameras)]
    if transport == "webrtc":
        return WebRtcEdgeLink(_signalling_endpoint(), "edge", names, camera_info, wire_ledger=ledger)
    config = MqttConfig(keepalive="10s")
    if certificates:
        ca, certificate, key = certificates
        config = config.model_copy(update={"ca": ca, "certificate": certificate, "key": key})
    broker = open_broker(f"{transport}://{SERVER}:{PORT}", config, "server")
    return MqttEdgeLink(broker, Topics("bench"), "edge", names, camera_info, wire_ledger=ledger)


def _signalling_endpoint() -> SignallingEndpoint:
    os.environ.setdefault(ENV_TOKEN, "token-of-the-bench")
    return open_signalling_endpoint(f"webrtc+http://{SERVER}:{PORT}", WebRtcConfig(), "server")


async def _run_server(transport: str, file: Path) -> None:
    """Replies to each message, and writes its size to `file`."""
    with file.open("w", buffering=1) as received:
        async with _server_link(transport) as link:
            await asyncio.sleep(_SERVER_CONNECTS_S)
            print("ready", flush=True)
            async for message in link.messages():
                received.write(f"{len(message.data)}\n")
                await link.reply(message, encode_reply(_reply(claimed_seq(message.data) or 0)))


def _reply(seq: int) -> Reply:
    """66 bytes."""
    return Reply(seq, None, tuple(range(5)), (-1.0,) * 5, 1, 0.0, 0.0)


async def _run_edge(scenario: Scenario, certificates: Sequence[Path]) -> None:
    """Prints the charged bits and the bits of the ledger's fullest window."""
    budget = UplinkBudget(scenario.rate_bps, scenario.window_s)
    ledger = WireLedger(budget, time.monotonic)
    error = ""

    try:
        async with _edge_link(scenario.transport, scenario.cameras, certificates, ledger) as link:
            reading = asyncio.create_task(_read_replies(link))
            await _send(link, budget, scenario)
            reading.cancel()
    except SagelinkError as caught:
        error = str(caught)
    print(budget.total_bits, budget.peak_window_bits, error)


async def _send(link: EdgeLink, budget: UplinkBudget, scenario: Scenario) -> None:
    """Sends for the scenario's time as much as the budget allows."""
    end_s, seq = time.monotonic() + scenario.seconds, 0
    while time.monotonic() < end_s:
        await asyncio.sleep(0.02)
        now_s = time.monotonic()
        size = _largest_message(link, budget)
        if size is None or link.refusal() is not None:
            continue
        assert budget.charge(now_s, link.wire_bits("camera0", size))
        seq += 1
        await link.send("camera0", _message(size, seq))
    await asyncio.sleep(_LAST_PACKETS_S)


def _message(size: int, seq: int) -> bytes:
    """Evidence with random pixels; where it is longer than a datagram, a bundle of parts, as the edge would send it."""

    def evidence(number: int, size: int) -> bytes:
        return encode_evidence(EvidenceMessage(seq, 14, 16, 3, [np.array([number])], os.urandom(size)))

    if size <= PART_BYTES:
        return evidence(0, size - (len(evidence(0, 0))))
    count = -(-size // (PART_BYTES - 40))
    return encode_bundle(seq, [evidence(number, (size - 9 - 4) // count - 2 - 30) for number in range(count)])


async def _read_replies(link: EdgeLink) -> None:
    async for _ in link.replies():
        pass


def _largest_message(link: EdgeLink, budget: UplinkBudget) -> int | None:
    """The bytes of the largest message that the allowance covers."""
    allowance_bits = budget.allowance(time.monotonic()) or 0
    assert budget.limit_bits is not None
    for size in range(_MAX_BYTES, min(_MIN_BYTES, budget.limit_bits // 32) - 1, -100):
        if link.wire_bits("camera0", size) <= allowance_bits:
            return size
    return None


def _scenarios(arguments: argparse.Namespace) -> Iterator[Scenario]:
    plain = Scenario(
        window_s=arguments.window,
        seconds=arguments.seconds,
        outages=tuple(_span(text) for text in arguments.outage),
        restarts=tuple(arguments.restart),
        cameras=arguments.cameras,
        key_bits=arguments.key_bits,
    )
    for transport in arguments.transports:
        for rate in arguments.rates:
            for loss in arguments.loss:
                yield replace(plain, transport=transport, rate_bps=round(1000 * rate), loss=loss / 100)


def _span(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    return float(start), float(end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transports", nargs="+", choices=["mqtt", "mqtts", "webrtc"], default=["mqtt", "webrtc"])
    parser.add_argument("--rates", type=float, nargs="+", default=[16, 64, 256], help="kbit/s")
    parser.add_argument("--loss", type=float, nargs="+", default=[0, 5, 10, 20], help="percent, in either direction")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--window", type=float, default=1.0, help="s")
    parser.add_argument("--outage", nargs="*", default=[], help="START-END in s since the first packet")
    parser.add_argument("--restart", type=float, nargs="*", default=[], help="s: the broker is killed and started")
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--key-bits", type=int, default=2048, help="of the RSA keys for mqtts")
    parser.add_argument("--jobs", type=int, default=2, help="measurements at the same time")
    parser.add_argument("--role", choices=["edge", "server"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--certificates", type=Path, nargs=3, default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    is_webrtc = arguments.transports == ["webrtc"]
    if arguments.role == "server":
        run_loop(_run_server(arguments.transports[0], arguments.file), is_webrtc)
    elif arguments.role == "edge":
        logging.basicConfig(filename=arguments.file, level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s")
        with contextlib.suppress(KeyboardInterrupt):
            run_loop(_run_edge(next(_scenarios(arguments)), arguments.certificates), is_webrtc)
    elif (reason := unavailable("mosquitto") or lossy_link.unavailable()) is not None:
        sys.exit(f"bench.wire_cost: {reason}")
    else:
        _print_table(list(_scenarios(arguments)), arguments.jobs)


def _print_table(scenarios: list[Scenario], jobs: int) -> None:
    print("| over | kbit/s | loss | fullest 1 s | fullest 10 s | over | charged/wire | evidence | connected |")
    print("|---|---|---|---|---|---|---|---|---|")
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(measure, scenarios, range(len(scenarios))):
            scenario = result.scenario
            cells = [scenario.transport, f"{scenario.rate_bps / 1000:g}", f"{scenario.loss or 0:.0%}"]
            cells += [f"{result.fullest[window]:.3f}" for window in (1.0, 10.0)]
            cells += [f"{result.over:.1%}", f"{result.ratio:.4f}", f"{result.delivered:.3f}", str(result.connected)]
            print(f"| {' | '.join(cells)} | {result.error}", flush=True)


if __name__ == "__main__":
    main()
