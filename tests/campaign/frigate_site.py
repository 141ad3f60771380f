"""A site with Frigate, for `test_frigate_figures`: a local broker, the stub, `sagelink run` over a thin uplink.

    python -m tests.campaign.frigate_site SERVER_BROKER_URL EVENTS OUT

Publishes one event a second and prints the times from event to sub-label as JSON. It runs in the network namespace of
the edge; the server is behind the cable.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.brokers import Mosquitto
from tests.frigate import FrigateStub, object_picture
from tests.patience import PATIENCE_S
from tests.processes import Sagelink


def main() -> None:
    server, count, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with Mosquitto() as broker, FrigateStub(broker) as frigate:
        command = (
            *("run", f"frigate:{broker.url}", "--models", "demo", "--gate", "always", "--server", server),
            *("--uplink", "64kbit/s", "--out", out, "--set", f"frigate.url={frigate.url}"),
            *("--set", f"frigate.queue={out.parent / 'queue.sqlite'}", "--set", "encode.max_message=1kB"),
            *("--set", "frigate.threshold=0", "--set", "ship.deadline=5s", "--set", "mqtt.node=site"),
        )
        with Sagelink(*command, SAGELINK_LOG="info") as run:
            run.said("event=connected broker=" + broker.url)
            time.sleep(3)  # the link to the server connects
            for number in range(count):
                frigate.publish("new", f"e{number}", object_picture(number % 16, number))
                frigate.publish("end", f"e{number}")
                time.sleep(1)
            end_s = time.monotonic() + PATIENCE_S
            while len({event for event, *_ in frigate.sub_labels}) < count and time.monotonic() < end_s:
                time.sleep(0.1)
            run.interrupt()
            code = run.ended()
        first = {}
        for event, _, _, at_s in frigate.sub_labels:
            first.setdefault(event, at_s - frigate.published_s[event])
        found = {"code": code, "posts": len(frigate.sub_labels), "delays_s": sorted(first.values())}
        print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
