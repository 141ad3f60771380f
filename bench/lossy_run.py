"""`sagelink serve` and `sagelink run` over a cable that loses packets, as a user runs them; over WebRTC and over MQTT.

    python -m bench.lossy_run [--transports mqtt webrtc] [--seconds 40] [--fps 8] [--max-message 2500B]

256 kbit/s, 25 ms and 5 % loss of packets either way (`bench.lossy_link`), the demo pair on frames of its world, a
budget equal to the rate of the cable. Columns: share of the sent frames that the server answered; time from the charge
to the reply, and from the picture to the verdict; share of sent units that are missing in the answers. Needs root,
`ip`, /dev/net/tun and mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import lossy_link
from bench.namespaces import PORT, SERVER, Cable, unavailable
from bench.transport import LOSSY, WEBRTC_PORT
from sagelink.transport.webrtc.address import ENV_TOKEN

ADDRESSES = {"mqtt": f"mqtt://{SERVER}:{PORT}", "webrtc": f"webrtc+http://{SERVER}:{WEBRTC_PORT}"}
_STARTS_S = 5.0  # the first frames, while the edge connects, are not counted


def measure(transport: str, seconds: float, fps: float, max_message: str) -> list[dict[str, Any]]:
    """The lines of results.jsonl."""
    os.environ.setdefault(ENV_TOKEN, "token-of-the-bench")
    sagelink, address = (sys.executable, "-m", "sagelink.app.cli"), ADDRESSES[transport]
    frames = round((seconds + _STARTS_S) * fps)
    with Cable(3, lossy=LOSSY) as cable, TemporaryDirectory() as folder:
        if transport == "mqtt":
            cable.start_broker()
        server = cable.run("server", *sagelink, "serve", "--listen", address, "--models", "demo")
        assert server.stdout is not None
        assert server.stdout.readline().startswith("serving")
        source = (f"synthetic:{frames},fps={fps:g}", "--realtime", "--models", "demo", "--gate", "always")
        spend = ("--uplink", "256kbit/s", "--set", f"encode.max_message={max_message}")
        cable.run("edge", *sagelink, "run", *source, "--server", address, *spend, "--out", folder).communicate()
        lines = (Path(folder) / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for text in lines if (line := json.loads(text))["stream_s"] >= _STARTS_S]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transports", nargs="+", choices=list(ADDRESSES), default=list(ADDRESSES))
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--fps", type=float, default=8)
    parser.add_argument("--max-message", default="2500B", help="whole: 78 ms of the cable")
    arguments = parser.parse_args()
    if (reason := unavailable("mosquitto") or lossy_link.unavailable()) is not None:
        sys.exit(f"bench.lossy_run: {reason}")
    print("| over | sent | of these answered | reply p50, ms | p95 | verdict p50, ms | p95 | B a frame | units lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    for transport in arguments.transports:
        lines = measure(transport, arguments.seconds, arguments.fps, arguments.max_message)
        sent = [line for line in lines if line["sent_s"] is not None]
        answered = [line for line in sent if line["server"] is not None]
        replies = [line["latency_ms"]["ship"] + line["latency_ms"]["server"] for line in answered]
        verdicts = [line["latency_ms"]["total"] for line in sent]
        times = [f"{value:.0f}" for each in (replies, verdicts) for value in np.percentile(each, [50, 95])]
        size, lost = (sum(line[key] for line in sent) for key in ("wire_bits", "lost_units"))
        units = sum(line["units"] for line in sent)
        cells = [transport, f"{len(sent)} of {len(lines)}", f"{len(answered) / len(sent):.1%}", *times]
        print(f"| {' | '.join([*cells, f'{size / 8 / len(sent):.0f}', f'{lost / units:.1%}'])} |", flush=True)


if __name__ == "__main__":
    main()
