"""Events of whole runs reach their receivers: webhook, command, MQTT; also after a restart and a kill."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from bench.ports import free_port
from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from tests.app.runs import live_run
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.webhook_receiver import WebhookReceiver

EACH_LABEL = {"name": "seen", "after": 1, "until": 1, "min_prob": 0}


def run_events(pair: Pair, out: Path, **events: object) -> None:
    settings = {"models": "demo", "capture.source": "synthetic:16", "output.out": str(out)}
    given = {f"events.{key.replace('__', '.')}": value for key, value in events.items()}
    prepare(load_config(None, {**settings, "events.rules": [EACH_LABEL], **given}), pair).run()


def written(out: Path) -> list[dict[str, Any]]:
    """The actions of all runs in a folder, the oldest first."""
    files = [*sorted(out.glob("runs/*/events.jsonl")), out / "events.jsonl"]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def test_a_receiver_that_is_away_gets_all_events_from_a_later_run(pair: Pair, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    with WebhookReceiver() as receiver:
        receiver.stop()
        run_events(pair, tmp_path, webhook__url=receiver.url)
        first = written(tmp_path)
        receiver.start()
        run_events(pair, tmp_path, webhook__url=receiver.url, command=f"cat >> {commands}")
    events = written(tmp_path)
    assert len({event["id"] for event in first}) > 4
    assert len(receiver.events) >= len(first)
    assert receiver.events == events[: len(receiver.events)]
    assert len(set(receiver.ids)) == len(receiver.ids)
    given = [json.loads(line) for line in commands.read_text().splitlines()]
    assert given == events[len(first) :][: len(given)] != []


def test_a_webhook_needs_a_place_for_the_events_that_wait(pair: Pair) -> None:
    config = load_config(None, {"models": "demo", "capture.source": "synthetic:9", "events.webhook.url": "http://h/"})
    with pytest.raises(UsageError, match=r"output\.out or events\.queue"):
        prepare(config, pair)


class Subscriber:
    """Gets every event of a node, once connected, also those from the time of a lost connection."""

    def __init__(self, port: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "test-subscriber", clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe("sagelink/edge/+/event", 1)
        self._client.on_message = self._take
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, client: object, userdata: object, message: paho.MQTTMessage) -> None:
        self.events.append(json.loads(message.payload) | {"camera": message.topic.split("/")[2]})

    def wait_for(self, count: int) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while len(self.events) < count:
            assert time.monotonic() < end_s, f"{len(self.events)} of {count} events"
            time.sleep(0.05)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.campaign
def test_events_reach_a_broker_once_also_those_that_it_missed(tmp_path: Path) -> None:
    keeping = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/", "autosave_interval 1")
    with Mosquitto(*keeping, "autosave_on_changes true", port=free_port()) as broker:
        subscriber = Subscriber(broker.port)
        rules = ("--set", f"events.rules=[{json.dumps(EACH_LABEL)}]")
        with live_run(broker.url, tmp_path / "out", *rules) as run:
            subscriber.wait_for(3)
            broker.kill()
            before = len(written(tmp_path / "out"))
            while len(written(tmp_path / "out")) < before + 3:
                time.sleep(0.1)
            broker.start()
            subscriber.wait_for(before + 4)
            subscriber.wait_for(len(written(tmp_path / "out")))  # a run that ends waits for its last events only
            run.interrupt()
            assert run.ended() == 0, run.output
        events = written(tmp_path / "out")
        subscriber.wait_for(len(events))
        time.sleep(0.3)
        subscriber.close()
    keys = [(event["id"], event["action"], event["best_seq"]) for event in subscriber.events]
    assert keys == [(event["id"], event["action"], event["best_seq"]) for event in events]
