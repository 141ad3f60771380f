"""Kills of brokers, servers and edges: every captured frame has one whole line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.app.runs import answered, finish, live_run, serve, wait_for_lines
from tests.brokers import Mosquitto

pytestmark = pytest.mark.campaign


def test_no_line_is_lost_when_the_broker_is_killed_again_and_again(tmp_path: Path) -> None:
    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, tmp_path) as run:
            wait_for_lines(tmp_path, answered)
            for _ in range(6):
                broker.kill()
                time.sleep(0.3)
                broker.start()
                time.sleep(0.7)
            wait_for_lines(tmp_path, answered)
            run.interrupt()
            finish(run, tmp_path)


def test_a_killed_edge_leaves_whole_lines(tmp_path: Path) -> None:
    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, tmp_path) as run:
            wait_for_lines(tmp_path, answered, 5)
            run.kill()
        *lines, last = (tmp_path / "results.jsonl").read_text().split("\n")
        assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))
        assert last == ""


def test_a_killed_server_costs_answers_and_no_frames(tmp_path: Path) -> None:
    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, tmp_path) as run:
            wait_for_lines(tmp_path, answered)
            server.kill()
            wait_for_lines(tmp_path, lambda line: line["server"] is None)
            with serve(broker.url) as another:
                another.said("serving")
                wait_for_lines(tmp_path, answered)
                run.interrupt()
                finish(run, tmp_path)
