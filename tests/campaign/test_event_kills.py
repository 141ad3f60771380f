"""Kills of the webhook receiver, the broker and the edge at random times: no action of an event is lost."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.ports import free_port
from sagelink.stages.sinks.events import record_key
from tests.app.runs import lines_so_far, live_run
from tests.app.test_event_receivers import EACH_LABEL, written
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S
from tests.processes import Sagelink
from tests.webhook_receiver import ReceiverProcess

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

KILLS = 50
ANSWER_S = 1.0  # from the receiver's answer until it is on the disk of an edge that is busy


def test_every_action_reaches_the_webhook_and_events_jsonl_has_it_once(tmp_path: Path) -> None:
    chance, out = random.Random(7), tmp_path / "out"
    receiver = ReceiverProcess(tmp_path / "received.jsonl", free_port())
    kills_s: list[tuple[float, float]] = []  # begin and end: a busy machine kills late

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
                victims: list[Sagelink | ReceiverProcess | Mosquitto]
                victims = [run, receiver, receiver, broker, broker]  # an edge needs long to start
                victim = chance.choice(victims)
                begin_s = time.time()
                victim.kill()
                kills_s.append((begin_s, time.time()))
                if isinstance(victim, Sagelink):
                    run = edge()
                else:
                    time.sleep(chance.random())
                    victim.start()
            end_s, killed_s = time.monotonic() + PATIENCE_S, time.time()
            while not any(line["wall_s"] > killed_s for line in lines_so_far(out)):  # of the last edge
                assert time.monotonic() < end_s, run.output
                time.sleep(0.1)
            begin_s = time.time()
            run.interrupt()  # does not wait long for an answer
            assert run.ended() == 0, run.output
            kills_s.append((begin_s, time.time()))
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
            answer_s = answered_s[key]
            near = (begin_s - ANSWER_S < answer_s <= end_s for begin_s, end_s in kills_s)
            assert any(near), (key, answer_s, kills_s, [line for line in lines if line["id"] == key])
    opened = Counter(event["id"] for event in written(out) if event["action"] == "open")
    ended = Counter(event["id"] for event in written(out) if event["action"] in ("close", "withdraw"))
    assert opened == ended
