"""Kills of brokers, servers and edges: every captured frame has one whole line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.app.runs import answered, dropped, finish, live_run, serve, wait_for_lines
from tests.brokers import Mosquitto

pytestmark = pytest.mark.campaign


def test_no_line_is_lost_when_broker_server_and_edge_are_killed(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, out) as run:
            wait_for_lines(out, answered)
            for _ in range(6):  # also while the edge connects again
                broker.kill()
                time.sleep(0.3)
                broker.start()
                time.sleep(0.7)
            wait_for_lines(out, answered)
            broker.kill()
            wait_for_lines(out, dropped("link"), 10)
            broker.start()
            wait_for_lines(out, answered)
            server.kill()
            # Frames that it had are late. The broker may report its end first: then there is no link.
            wait_for_lines(out, lambda line: line["drop"] in ("late", "link"))
            with serve(broker.url) as second:
                second.said("serving")
                wait_for_lines(out, answered)
                run.interrupt()
                finish(run, out)
                with live_run(broker.url, other) as killed:
                    wait_for_lines(other, answered, 5)
                    killed.kill()
            assert "Traceback" not in server.output + second.output
    *lines, last = (other / "results.jsonl").read_text().split("\n")
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))
    assert last == ""
