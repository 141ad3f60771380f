"""Runs that keep a ledger, as real processes: killed and restarted, two on one ledger, and a subscriber that counts."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from bench.ports import free_port
from sagelink.app.edge.budgets import open_budgets
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.ledger.report import read_ledger
from tests.app import ledger_sender
from tests.app.runs import answered, live_run, run_here, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.processes import forked

log = logging.getLogger(__name__)

_LATE_S = 0.6  # messages arrive later than they leave, by times that differ: on a busy machine by half a second
_HEADERS_BITS = 8 * (40 + 4)  # at least, of each message


class Counter:
    """Subscribes to all evidence, and counts its bits."""

    def __init__(self, broker: Mosquitto) -> None:
        self.received: list[tuple[float, int]] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._count
        self._client.connect(broker.host, broker.port)
        self._client.subscribe("sagelink/+/+/evidence")

    def _count(self, client: Client, data: object, message: MQTTMessage) -> None:
        bits = 8 * (len(message.payload) + len(message.topic)) + _HEADERS_BITS
        self.received.append((time.monotonic(), bits))

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.loop_stop()

    def wait(self, messages: int) -> None:
        """Waits until so many further messages have come."""
        wanted, end_s = len(self.received) + messages, time.monotonic() + PATIENCE_S
        while len(self.received) < wanted:
            assert time.monotonic() < end_s, f"{len(self.received)} messages"
            time.sleep(0.02)

    def fullest(self, window_s: float) -> int:
        return max(sum(bits for at, bits in self.received if s <= at < s + window_s) for s, _ in self.received)


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


def sender(broker: Mosquitto, node: str, window_s: int, ledger: Path) -> BaseProcess:
    return forked(ledger_sender.main, broker.url, node, "64kbit/s", f"{window_s}s", ledger)


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


@pytest.mark.campaign
def test_ten_kills_within_a_window_keep_the_sum_within_the_limit(mosquitto: Mosquitto, tmp_path: Path) -> None:
    window_s, limit_bits = 60, 64_000 * 60
    with Counter(mosquitto) as counter:
        starts, began_s = 0, None  # the first one creates the ledger, which opens after ten seconds
        while starts <= 10 and (began_s is None or time.monotonic() < began_s + window_s):  # fewer on a busy machine
            process = sender(mosquitto, "edge", window_s, tmp_path / "ledger")
            counter.wait(8)
            kill(process)
            starts, began_s = starts + 1, began_s or counter.received[0][0]
        assert began_s is not None
        killed_s = time.monotonic() - began_s
        process = sender(mosquitto, "edge", window_s, tmp_path / "ledger")
        time.sleep(max(0.0, began_s + 2 * window_s - time.monotonic()))
        kill(process)
    fullest = counter.fullest(window_s)
    log.warning(
        "%s", f"{starts - 1} restarts in {killed_s:.0f} s; fullest window {fullest / limit_bits:.1%} of the limit"
    )
    assert starts > 3
    assert 0.8 * limit_bits < fullest <= limit_bits


@pytest.mark.campaign
def test_two_senders_share_one_ledger(mosquitto: Mosquitto, tmp_path: Path) -> None:
    ledger, limit_bits = tmp_path / "ledger", 64_000 * 2
    with Counter(mosquitto) as counter:
        one = sender(mosquitto, "one", 2, ledger)
        counter.wait(20)
        two = sender(mosquitto, "two", 2, ledger)
        time.sleep(10)
        kill(one)  # the other takes its share
        time.sleep(10)
        kill(two)
    fullest, began_s = counter.fullest(2 - _LATE_S), counter.received[0][0]
    used = sum(bits for _, bits in counter.received) / (64_000 * (counter.received[-1][0] - began_s))
    log.warning("%s", f"fullest window {fullest / limit_bits:.1%} of the limit; used {used:.1%} of the rate")
    assert 0.5 * limit_bits < fullest <= limit_bits


@pytest.mark.campaign
def test_two_edges_share_one_ledger(mosquitto: Mosquitto, tmp_path: Path) -> None:
    options = ("--uplink", "64kbit/s", "--window", "2s", "--ledger", tmp_path / "ledger")
    with serve(mosquitto.url) as server, Counter(mosquitto) as counter:
        server.said("serving demo-server")
        with live_run(mosquitto.url, tmp_path / "one", *options) as one:
            counter.wait(10)
            other = ("--set", "mqtt.node=other")
            with live_run(mosquitto.url, tmp_path / "two", *options, *other) as two:
                counter.wait(100)
                two.interrupt()
                assert two.ended() == 0
            one.interrupt()
            assert one.ended() == 0
    with closing(sqlite3.connect(tmp_path / "ledger")) as base:
        total = base.execute("SELECT total(bits) FROM days").fetchone()[0]
    assert total >= sum(bits for _, bits in counter.received)
    log.warning("%s", f"fullest window {counter.fullest(2 - _LATE_S)} bits; {total:.0f} charged")
    assert 0.5 * 128_000 < counter.fullest(2 - _LATE_S) <= 128_000


@pytest.mark.campaign
@pytest.mark.parametrize("transport", ["mqtt", "webrtc"])
def test_replies_count_against_the_quotas(mosquitto: Mosquitto, tmp_path: Path, transport: str) -> None:
    url = mosquitto.url if transport == "mqtt" else f"webrtc+http://127.0.0.1:{free_port()}"
    token = {"SAGELINK_WEBRTC_TOKEN": "token-of-the-test"}
    quota = ("--quota", "50MB/day", "--ledger", tmp_path / "ledger", "--set", "budget.counts=both")
    with serve(url, **token) as server:
        server.said("serving demo-server")
        with live_run(url, tmp_path / "run", *quota, **token) as run:
            wait_for_lines(tmp_path / "run", answered, count=20)
            run.interrupt()
            assert run.ended() == 0
    kinds = read_ledger(tmp_path / "ledger")["by_kind"]
    log.warning("%s", kinds)
    assert kinds["reply"] > 20 * 8 * 100
    assert kinds["message"] > kinds["reply"]


def test_a_quota_needs_a_ledger() -> None:
    config = load_config(None, {"capture.source": "synthetic:1", "budget.quotas": ["500MB/month"]})
    with pytest.raises(UsageError, match=r"budget.quotas need a file .*--ledger PATH"):
        open_budgets(config, live=True)
    assert open_budgets(config, live=False).ledger is None


def test_a_long_window_takes_the_ledger_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = load_config(None, {"capture.source": "synthetic:1", "budget.window": "1min"})
    budgets = open_budgets(config, live=True)
    assert budgets.ledger is not None
    assert budgets.ledger.path == tmp_path / "sagelink" / "ledger.sqlite"
    assert str(budgets.ledger.path) in caplog.text
    short = load_config(None, {"capture.source": "synthetic:1", "budget.window": "10s"})
    assert open_budgets(short, live=True).ledger is None


def test_without_a_ledger_a_live_run_waits_one_window() -> None:
    config = load_config(None, {"capture.source": "synthetic:1", "budget.uplink": "64kbit/s"})
    site = open_budgets(config, live=True).site
    assert [site.allowance(at_s) for at_s in (0.0, 1.0, 1.002)] == [0, 0, 64_000]
    assert open_budgets(config, live=False).site.allowance(0.0) == 64_000


def test_a_run_obeys_and_settles_its_quota(pair: Pair, tmp_path: Path) -> None:
    options = {"budget__quotas": ["3kB/day"], "budget__ledger": tmp_path / "ledger", "budget__window": "500ms"}
    _, first = run_here(pair, "synthetic:30,fps=10", tmp_path / "1", capture__realtime=True, **options)
    _, second = run_here(pair, "synthetic:20,fps=10", tmp_path / "2", capture__realtime=True, **options)
    assert 0 < first["wire_bits"] <= 24_000
    assert first["wire_bits"] + second["wire_bits"] <= 24_000
    with closing(sqlite3.connect(tmp_path / "ledger")) as base:
        assert base.execute("SELECT total(bits) FROM days").fetchone() == (first["wire_bits"] + second["wire_bits"],)
        assert base.execute("SELECT hold_bits FROM stakes").fetchall() == [(0,)]
