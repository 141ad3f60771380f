"""Whole runs with Frigate: a real broker, a stub of Frigate on real sockets, the demo models in this process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sagelink.app.edge.run import Run, prepare
from sagelink.models.heads.head import write_head
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.graph import Graph
from sagelink.stages.sources.world import CLASSES
from sagelink.transport.in_process import InProcessLink
from tests.app.runs import check_accounts, read, serve
from tests.brokers import Mosquitto
from tests.frigate import FrigateStub, coded, object_picture
from tests.heads import random_head
from tests.patience import PATIENCE_S


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture
def frigate(mosquitto: Mosquitto) -> Iterator[FrigateStub]:
    with FrigateStub(mosquitto) as stub:
        yield stub


class Running:
    """A run in a thread of this process, until `stop`."""

    def __init__(self, pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, out: Path, **options: Any) -> None:
        self.out = out
        settings = {key.replace("__", "."): value for key, value in options.items()}
        given = {
            "models": "demo",
            "capture.source": f"frigate:{mosquitto.url}",
            "output.out": str(out),
            "frigate.url": frigate.url,
            "frigate.queue": str(out.with_suffix(".sqlite")),
            "frigate.threshold": "0.3",
            "gate.policy": "always",
            "ship.deadline": "20s",
            **settings,
        }
        self.run: Run = prepare(load_config(None, given), pair)
        self.summary: dict[str, Any] = {}
        self._stop: Callable[[], object] = lambda: None
        self.run._stop_on_signals = self._keep_graph  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._main)

    def _keep_graph(self, graph: Graph) -> None:
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(graph.stop)

    def _main(self) -> None:
        self.summary = self.run.run()

    def __enter__(self) -> Running:
        self._thread.start()
        wait_until(lambda: self.health["state"] == "running")
        return self

    @property
    def health(self) -> dict[str, Any]:
        return self.run.parts.captures[0].health()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The line of each event that is over; there is at most one per event."""
        lines = [json.loads(line) for line in (self.out / "frigate.jsonl").read_text().splitlines()]
        assert len({line["event"] for line in lines}) == len(lines)
        return {line["event"]: line for line in lines}


def wait_until(ready: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < end_s, "it does not happen"
        time.sleep(0.02)


def test_events_get_sub_labels(pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path) -> None:
    with Running(pair, mosquitto, frigate, tmp_path / "out") as running:
        for number in range(8):
            frigate.publish("new", f"17.{number}-dog", object_picture(number, number), score=0.7)
            frigate.publish("end", f"17.{number}-dog", score=0.72)
        wait_until(lambda: len(running.outcomes()) == 8)
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    right = sum(frigate.last(f"17.{number}-dog") == CLASSES[number] for number in range(8))
    assert right >= 6
    assert [line["event"]["id"] for line in lines] == [f"17.{number}-dog" for number in range(8)]
    assert lines[0]["event"] | {"score": None} == {
        **{"id": "17.0-dog", "camera": "yard", "label": "dog", "score": None, "private": False},
        "box": [100, 100, 180, 220],
    }
    written = [line for line in running.outcomes().values() if line["reason"] is None]
    assert summary["frigate"]["events"] == 8
    assert summary["frigate"]["written"] == len(written) == len(frigate.sub_labels)
    for line in written:
        assert frigate.last(line["event"]) == line["sub_label"]


def test_a_person_is_never_given_to_the_link(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    send = InProcessLink.send

    async def listen(self: InProcessLink, camera: str, message: bytes) -> str | None:
        given.append(message)
        return await send(self, camera, message)

    monkeypatch.setattr(InProcessLink, "send", listen)
    with Running(pair, mosquitto, frigate, tmp_path / "out", budget__uplink="unlimited") as running:
        for number in range(3):
            frigate.publish("new", f"p{number}", object_picture(number, 1), label="person")
            frigate.publish("update", f"p{number}", score=0.95, label="person")
            frigate.publish("end", f"p{number}", score=0.95, label="person")
        frigate.publish("new", "turns", object_picture(3, 1), label="person")
        wait_until(lambda: len(list(_lines(running.out))) >= 4)
        frigate.publish("update", "turns", label="dog", score=0.99)  # once private, always private
        frigate.publish("end", "turns", label="dog", score=0.99)
        wait_until(lambda: len(running.outcomes()) == 4)
        assert given == []
        frigate.publish("new", "d0", object_picture(1, 1), label="dog")
        frigate.publish("end", "d0", label="dog")
        wait_until(lambda: len(running.outcomes()) == 5)
    lines, _ = read(tmp_path / "out")
    assert {line["drop"] for line in lines if line["event"]["id"] != "d0"} == {"private"}
    assert len(given) == 1
    assert {event for event, *_ in frigate.sub_labels} <= {"d0"}


def _lines(out: Path) -> Iterator[str]:
    path = out / "results.jsonl"
    yield from path.read_text().splitlines() if path.exists() else ()


def test_pictures_of_any_topic(pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path) -> None:
    source = f"mqtt-snapshots:{mosquitto.url}/doors/+/picture"
    frigate.send("doors/old/picture", coded(object_picture(0)), retain=True)  # stored before: not an event
    options = {"capture__source": source, "frigate__url": ""}
    with Running(pair, mosquitto, frigate, tmp_path / "out", **options) as running:
        frigate.send("doors/front/picture", coded(object_picture(2)))
        frigate.send("doors/front/picture", b"\xff\xd8 no picture")
        frigate.send("doors/back/picture", coded(object_picture(5), "PNG"))
        wait_until(lambda: len(list(_lines(running.out))) == 2)
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    assert [line["event"]["camera"] for line in lines] == ["doors/front/picture", "doors/back/picture"]
    assert summary["skipped"] == 1
    assert "frigate" not in summary


def test_the_recording_of_events_is_replayed_bit_for_bit(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    record = tmp_path / "recording"
    with Running(pair, mosquitto, frigate, tmp_path / "out", output__record=str(record)) as running:
        for number, label in enumerate(("dog", "person", "car")):
            frigate.publish("new", f"e{number}", object_picture(number), label=label)
            frigate.publish("end", f"e{number}", label=label)
        wait_until(lambda: len(running.outcomes()) == 3)
    code, printed = command("replay", record)
    assert code == 0, printed
    assert "3 of 3 frames" in printed
    # With another budget, a picture that had to stay at the site still does.
    code, printed = command("replay", record, "--uplink", "unlimited", "--out", tmp_path / "again")
    assert code == 0, printed
    lines, _ = read(next((tmp_path / "again").rglob("results.jsonl")).parent)
    drops = {line["event"]["private"]: line["drop"] for line in lines}  # in the order in which pictures arrived
    assert (len(lines), drops) == (3, {False: None, True: "private"})


def dogs_and_cars(pair: Pair, folder: Path) -> dict[str, str]:
    """Two heads with classes of their own, as `frigate.heads`."""
    heads = {"dog": (("rex", "bella"), 1), "car": (("van", "lorry", "taxi"), 2)}
    for label, (names, seed) in heads.items():
        write_head(random_head(pair, names, seed), folder / f"{label}.head")
    return {label: str(folder / f"{label}.head") for label in heads}


@pytest.mark.parametrize("place", ["here", pytest.param("mqtt", marks=pytest.mark.campaign)])
def test_each_label_gets_the_classes_of_its_head(
    place: str,
    pair: Pair,
    mosquitto: Mosquitto,
    frigate: FrigateStub,
    tmp_path: Path,
    command: Callable[..., tuple[int, str]],
) -> None:
    options = {
        "frigate__heads": dogs_and_cars(pair, tmp_path),
        "frigate__classes": {"car": ["van", "lorry"]},
        "frigate__threshold": "0",
        "output__record": str(tmp_path / "recording"),
        "events__rules": [{"name": "seen", "min_prob": 0}],
        "ship__server": mosquitto.url if place == "mqtt" else "",
    }
    with ExitStack() as stack:
        if place == "mqtt":
            stack.enter_context(serve(mosquitto.url)).said("serving demo-server")
        running = stack.enter_context(Running(pair, mosquitto, frigate, tmp_path / "out", **options))
        published = 0

        def answered(label: str) -> bool:
            """Whether the server answers a new event."""
            nonlocal published
            event = f"e{published}"
            frigate.publish("new", event, object_picture(published % 16), label=label)
            frigate.publish("end", event, label=label)
            published += 1

            def verdicts() -> list[dict[str, Any]]:
                lines = map(json.loads, _lines(running.out))
                return [line for line in lines if line["event"]["id"] == event]

            wait_until(lambda: len(running.outcomes()) == published and bool(verdicts()))
            return any(line["server"] is not None for line in verdicts())

        for label in ("dog", "car", "bird", "dog", "car"):
            wait_until(partial(answered, label))
        assert not answered("person")
    lines, _ = read(tmp_path / "out")
    classes = {"dog": {"rex", "bella"}, "car": {"van", "lorry", "taxi"}, "bird": {*CLASSES}, "person": {*CLASSES}}
    for line in lines:
        own = classes[line["event"]["label"]]
        assert line["label"] in own
        assert line["server"] is None or line["server"]["label"] in own
        assert line["event"]["label"] != "person" or line["drop"] == "private"
    outcomes = running.outcomes()
    assert {line["sub_label"] for line in outcomes.values() if line["label"] == "car"} <= {"van", "lorry"}
    written = {event: line["sub_label"] for event, line in outcomes.items() if line["label"] != "person"}
    assert written == {event: frigate.last(event) for event in written}
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    final = {event["source_event"]: event["label"] for event in events if event["action"] == "close"}
    assert {event: final[event] for event in written} == written
    code, printed = command("replay", tmp_path / "recording", *(("--uplink", "unlimited") if place == "mqtt" else ()))
    assert code == 0, printed
    assert place == "mqtt" or f"{published} of {published} frames" in printed


def test_frigate_away_delays_sub_labels_until_the_next_run_which_reads_missed_events(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path
) -> None:
    frigate.fail = lambda method, path: 503 if method == "POST" else None
    queue = str(tmp_path / "queue.sqlite")
    with Running(pair, mosquitto, frigate, tmp_path / "one", frigate__queue=queue) as running:
        for number in range(4):
            frigate.publish("new", f"e{number}", object_picture(number))
            frigate.publish("end", f"e{number}")
        wait_until(lambda: len(list(_lines(running.out))) == 4)
    first = running.outcomes()
    waiting = {event: line["sub_label"] for event, line in first.items() if line["reason"] == "waiting in the queue"}
    assert len(waiting) >= 3
    assert len(first) == 4
    frigate.fail = lambda method, path: None
    for event_id in (*first, "missed"):  # the last one while no run was there
        frigate.store(event_id, object_picture(5, side=900))
    with Running(pair, mosquitto, frigate, tmp_path / "two", frigate__queue=queue) as running:
        wait_until(lambda: "missed" in running.outcomes())
        wait_until(lambda: len(frigate.sub_labels) >= len(waiting))
    lines, _ = read(tmp_path / "two")
    assert {line["event"]["id"] for line in lines} == {"missed"}
    written = [event for event, *_ in frigate.sub_labels]
    assert len(written) == len({*written})  # none twice
    assert {*waiting} <= {*written} <= {*waiting, "missed"}
    assert {event: frigate.last(event) for event in waiting} == waiting


@pytest.mark.campaign
def test_wrong_tokens_missing_pictures_and_a_slow_answer(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frigate.token = "another-token-of-frigate"  # noqa: S105
    with Running(pair, mosquitto, frigate, tmp_path / "out") as running:
        frigate.publish("new", "a", object_picture(0))
        wait_until(lambda: "refuses the credentials (401)" in caplog.text)
        frigate.token = None  # corrected
        frigate.publish("end", "a")
        wait_until(lambda: "a" in running.outcomes())
        frigate.publish("end", "stored")  # ended before its picture; only the stored one is left
        frigate.stored["stored"] = coded(object_picture(1, side=900), "WEBP")
        frigate.publish("new", "none")
        frigate.publish("end", "none")
        wait_until(lambda: {"stored", "none"} <= running.outcomes().keys())
    outcomes = running.outcomes()
    assert outcomes["none"]["reason"] == "no picture"
    assert outcomes["stored"]["frames"] == 1
    assert running.summary["verdicts"] == 2


def test_events_during_a_failure_of_the_broker_are_read_afterwards(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path
) -> None:
    with Running(pair, mosquitto, frigate, tmp_path / "out") as running:
        frigate.publish("new", "a", object_picture(1))
        frigate.publish("end", "a")
        wait_until(lambda: "a" in running.outcomes())
        frigate.disconnect()
        mosquitto.kill()
        wait_until(lambda: running.health["state"] != "running")
        frigate.store("a", object_picture(1))  # known already
        frigate.store("b", object_picture(2, side=900))
        frigate.store("p", object_picture(3), label="person")
        frigate.history.append({"id": 5, "camera": None, "start_time": time.time()})
        failures = iter([503])  # the API is not ready yet
        frigate.fail = lambda method, path: next(failures, None) if "?after" in path else None
        mosquitto.start()
        frigate.connect()
        wait_until(lambda: {"b", "p"} <= running.outcomes().keys())
    lines, _ = read(tmp_path / "out")
    by_event = {line["event"]["id"]: line for line in lines}
    assert len(lines) == 3
    assert by_event.keys() == {"a", "b", "p"}
    assert by_event["p"]["drop"] == "private"
    assert by_event["b"]["event"]["box"] == pytest.approx([0.1, 0.2, 0.4, 0.45])


def test_pictures_by_mqtt_and_a_broker_that_restarts(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path
) -> None:
    frigate.send("frigate/yard/dog/snapshot", coded(object_picture(9)), retain=True)  # of an event of yesterday
    with Running(pair, mosquitto, frigate, tmp_path / "out", frigate__pictures="mqtt") as running:

        def event(event_id: str, number: int) -> None:
            frigate.publish("new", event_id)
            frigate.send("frigate/yard/dog/snapshot", coded(object_picture(number)), retain=True)
            frigate.publish("end", event_id)

        event("a", 1)
        wait_until(lambda: "a" in running.outcomes())
        frigate.disconnect()
        mosquitto.kill()
        wait_until(lambda: running.health["state"] != "running")
        mosquitto.start()
        wait_until(lambda: running.health["state"] == "running")
        frigate.connect()
        event("b", 2)
        wait_until(lambda: "b" in running.outcomes())
    lines, _ = read(tmp_path / "out")
    assert [line["event"]["id"] for line in lines] == ["a", "b"]
    assert running.health["recoveries"] == 1
    assert running.summary["frigate"]["events"] == 2


@pytest.mark.campaign
def test_a_burst_of_200_events_over_64_kbit(
    pair: Pair, mosquitto: Mosquitto, frigate: FrigateStub, tmp_path: Path
) -> None:
    with Running(pair, mosquitto, frigate, tmp_path / "out", budget__uplink="64kbit/s") as running:
        ids = [f"e{number}" for number in range(200)]
        for number, event_id in enumerate(ids):
            frigate.publish("new", event_id, object_picture(number % 16, number), score=0.7)
        for event_id in ids:
            frigate.publish("update", event_id, score=0.9)
            frigate.publish("update", event_id, score=0.75)  # out of order
            frigate.publish("end", event_id, score=0.9)
            frigate.publish("end", event_id, score=0.9)  # repeated
        end_s = time.monotonic() + PATIENCE_S
        while len(running.outcomes()) < 200 and time.monotonic() < end_s:
            time.sleep(0.2)
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)  # no window over budget
    outcomes = running.outcomes()
    assert outcomes.keys() == {*ids}
    for event_id, line in outcomes.items():
        written = [label for known, label, _, _ in frigate.sub_labels if known == event_id]
        assert (line["reason"] is None) == bool(written)
        assert len({*zip(written, range(len(written)), strict=True)}) <= 2  # at most one per picture
        if written:
            assert written[-1] == line["sub_label"]
    print(summary["frigate"], summary["drops"], summary["wire_bits"], summary["peak_window_bits"])  # noqa: T201
