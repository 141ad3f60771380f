"""Kills of the webhook receiver, the broker and the edge at random times: no action of an event is lost."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from sagelink.stages.sinks.events import record_key
from tests.app.runs import lines_so_far, live_run
from tests.app.test_event_receivers import EACH_LABEL, written
from tests.brokers import Mosquitto, free_port
from tests.patience import PATIENCE_S
from tests.processes import Sagelink
from tests.webhook_receiver import ReceiverProcess

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

KILLS = 50
ANSWER_S = 1.0  # from the receiver's answer until it is on the disk of an edge that is busy


def test_every_action_reaches_the_webhook_and_events_jsonl_has_it_once(tmp_path: Path) -> None:
    chance, out = random.Random(7), tmp_path / "out"
    receiver = ReceiverProcess(tmp_path / "received.jsonl", free_port())
    kills_s: list[float] = []

    def edge() -> Sagelink:
        events = {"rules": [EACH_LABEL], "webhook": {"url": receiver.url, "metered": False}}
        settings = (f"--set=events.{key}={json.dumps(value)}" for key, value in events.items())
        return live_run(broker.url, out, *settings, fps=10)

    with Mosquitto() as broker:
        run = edge()
        try:
            for number in range(KILLS):
                before = len(written(out))
                end_s = time.monotonic() + PATIENCE_S
                while len(written(out)) <= before:
                    assert time.monotonic() < end_s, (number, run.output)
                    time.sleep(0.05)
                time.sleep(chance.random())
                kills_s.append(time.time())
                match chance.choice((0, 1, 1, 2, 2)):  # an edge needs long to start
                    case 0:
                        run.kill()
                        run = edge()
                    case 1:
                        receiver.kill()
                        time.sleep(chance.random())
                        receiver.start()
                    case _:
                        broker.kill()
                        time.sleep(chance.random())
                        broker.start()
            end_s, killed_s = time.monotonic() + PATIENCE_S, time.time()
            while not any(line["wall_s"] > killed_s for line in lines_so_far(out)):  # of the last edge
                assert time.monotonic() < end_s, run.output
                time.sleep(0.1)
            run.interrupt()
            assert run.ended() == 0, run.output
            end_s = time.monotonic() + PATIENCE_S
            keys = Counter(record_key(event) for event in written(out))
            with edge() as last:  # delivers what the end of the run left on disk
                while not {line["id"] for line in receiver.lines()} >= keys.keys():
                    assert time.monotonic() < end_s, keys.keys() - {line["id"] for line in receiver.lines()}
                    time.sleep(0.1)
                last.interrupt()
                last.ended()
        finally:
            run.kill()
            receiver.kill()
    lines = receiver.lines()
    assert set(keys.values()) == {1}
    got = Counter(line["id"] for line in lines if not line["answered"])
    twice = [key for key, count in got.items() if count > 1]
    answered_s = {line["id"]: line["at_s"] for line in reversed(lines) if line["answered"]}
    (tmp_path / "figures").write_text(f"{len(keys)} actions, {len(twice)} received twice, {len(kills_s)} kills")
    assert len(twice) <= KILLS // 10
    for key in twice:
        if key in answered_s:  # then a kill came before the edge could note the answer
            assert any(0 <= kill_s - answered_s[key] < ANSWER_S for kill_s in kills_s), key
    opened = Counter(event["id"] for event in written(out) if event["action"] == "open")
    ended = Counter(event["id"] for event in written(out) if event["action"] in ("close", "withdraw"))
    assert opened == ended
