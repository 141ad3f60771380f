"""From verdicts to sub-labels: threshold, unknown, revisions, mapping, private labels, and a reason for each event."""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.outbox import Outbox
from sagelink.pipeline.files.rotating_lines import RotatingLines
from sagelink.pipeline.types import Drop, EdgeOnly, FrameEvent, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.stages.nvr.frigate_names import check_classes
from sagelink.stages.nvr.second_opinions import SecondOpinions
from sagelink.stages.nvr.sub_label import RECEIVER, SubLabel
from tests.fakes import make_scored

LABELS = ("rex", "bella", "van", "lorry", "post")


@pytest.fixture
def make(tmp_path):
    """Makes the sink with options of `frigate`; its files are closed after the test."""
    made: list[Opinions] = []

    def opened(**options) -> Opinions:
        made.append(Opinions(tmp_path, len(made), **options))
        return made[-1]

    yield opened
    for opinions in made:
        with suppress(ValueError):  # the sink has closed it
            opinions.file.close()
        opinions.box.close()


@pytest.fixture
def opinions(make):
    return make()


class Opinions:
    def __init__(self, tmp_path, number: int, **options) -> None:
        self.box = Outbox(tmp_path / "q.sqlite", "frigate.queue", 0.0, 86_400.0)
        self.path = tmp_path / f"frigate-{number}.jsonl"
        self.sink = SecondOpinions(FrigateConfig(**options), LABELS, self.box, lambda: 100.0)
        self.file = RotatingLines(self.path)
        self.sink.write_lines(self.file, self.path)

    def see(self, event: FrameEvent, probs=None, unknown: bool = False) -> None:
        self.sink.observe(event, None)
        if probs is not None or unknown:
            self.sink.write(verdict(event, probs or (0.9, 0.05, 0.02, 0.02, 0.01), unknown))

    def waiting(self) -> dict[str, tuple[str, float]]:
        waiting = map(SubLabel.of, self.box.waiting(RECEIVER, 100))
        return {item.event: (item.label, item.score) for item in waiting}

    def deliver(self) -> None:
        for item in self.box.waiting(RECEIVER, 100):
            self.box.confirm(item)
            self.sink.delivered(SubLabel.of(item), None)

    def lines(self) -> dict[str, tuple[str | None, str | None]]:
        self.sink._write_lines()
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        assert len({line["event"] for line in found}) == len(found)
        return {line["event"]: (line["sub_label"], line["reason"]) for line in found}


def dog(event_id: str = "a", label: str = "dog", private: bool = False) -> FrameEvent:
    return FrameEvent(event_id, "yard", label, 0.8, None, private)


def verdict(event: FrameEvent, probs, unknown: bool = False, taught: TaughtClasses | None = None) -> Verdict:
    scored = make_scored(probs=probs)
    novelty = 2.0 if unknown else 0.0
    scored = replace(scored, frame=replace(scored.frame, event=event), novelty=novelty, taught=taught)
    return Fuse(False, None, 16).decide(EdgeOnly(scored, Drop.GATE))


def test_a_sure_answer_becomes_the_sub_label_and_a_line(opinions):
    opinions.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
    assert opinions.waiting() == {"a": ("rex", 0.9)}
    opinions.sink.closed(dog(), None)
    assert opinions.lines() == {}  # not yet written
    opinions.deliver()
    assert opinions.lines() == {"a": ("rex", None)}
    assert opinions.sink.summary() == {"events": 1, "written": 1, "reasons": {}}


def test_reasons_why_there_is_no_sub_label(opinions):
    opinions.see(dog("unsure"), (0.5, 0.2, 0.1, 0.1, 0.1))
    opinions.see(dog("unknown"), unknown=True)
    opinions.see(dog("none"))
    opinions.see(dog("private", "person", private=True), (0.9, 0.04, 0.02, 0.02, 0.02))
    opinions.sink.observe(dog("others"), "max")
    opinions.sink.write(verdict(dog("others"), (0.9, 0.04, 0.02, 0.02, 0.02)))
    for event_id in ("unsure", "unknown", "private", "others"):
        opinions.sink.closed(dog(event_id), None)
    opinions.sink.closed(dog("none"), "no picture")
    assert opinions.waiting() == {}
    reasons = {event_id: reason for event_id, (_, reason) in opinions.lines().items()}
    assert reasons == {
        "unsure": "below the threshold",
        "unknown": "unknown",
        "none": "no picture",
        "private": "private, and neither frigate.heads nor frigate.classes names its label",
        "others": "has another sub-label",
    }


def test_a_revised_answer_updates_and_the_same_answer_does_not(opinions):
    opinions.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
    opinions.deliver()
    opinions.see(dog(), (0.902, 0.038, 0.02, 0.02, 0.02))
    assert opinions.waiting() == {}  # the score differs by less than 0.01
    opinions.sink.observe(dog(), "rex")  # the echo of what was written is not somebody else's
    opinions.see(dog(), (0.0001, 0.9997, 0.0001, 0.00005, 0.00005))
    assert opinions.waiting()["a"][0] == "bella"
    opinions.sink.observe(dog(), "rex")  # the echo of the earlier one comes late
    opinions.deliver()
    opinions.see(dog(), (0.00001, 0.99996, 0.00001, 0.00001, 0.00001))
    assert opinions.waiting() == {"a": ("bella", 0.9635)}
    opinions.deliver()
    opinions.see(dog(), unknown=True)  # leaves it alone
    opinions.sink.closed(dog(), None)
    assert opinions.lines() == {"a": ("bella", None)}


def test_a_label_has_its_own_classes_and_a_private_one_needs_them(make):
    opinions = make(classes={"car": ("van", "lorry"), "person": ("post",)})
    opinions.see(dog("c", "car"), (0.5, 0.1, 0.3, 0.02, 0.08))
    opinions.see(dog("d"), (0.7, 0.1, 0.1, 0.05, 0.05))
    opinions.see(dog("p", "person", private=True), (0.9, 0.04, 0.02, 0.02, 0.02))
    waiting = opinions.waiting()
    assert waiting["c"] == ("van", 0.9375)
    assert waiting["d"][0] == "rex"
    assert waiting["p"] == ("post", 1.0)
    with pytest.raises(UsageError, match=r"frigate.classes: car: 'vann'.*did you mean 'van'"):
        check_classes(FrigateConfig(classes={"car": ("vann",)}), lambda label: LABELS)


def test_a_head_that_changes_between_two_frames_counts_alone(make):
    opinions = make(classes={"dog": ("rex", "max")})
    opinions.see(dog(), (0.98, 0.005, 0.005, 0.005, 0.005))
    taught = TaughtClasses(b"t" * 16, ("day", "max", "night", "x", "y"), 0.3, 0.3, ((125, 0.2),))
    opinions.sink.write(verdict(dog(), (0.4, 0.3, 0.1, 0.1, 0.1), taught=taught))
    assert opinions.waiting() == {"a": ("max", 1.0)}
    other = replace(taught, fingerprint=b"o" * 16, labels=("day", "dusk", "night", "x", "y"))
    opinions.sink.write(verdict(dog("b"), (0.9, 0.05, 0.02, 0.02, 0.01), taught=other))
    opinions.sink.closed(dog("b"), None)
    assert opinions.lines()["b"] == (None, "its head has no class of frigate.classes")


def test_events_that_are_open_at_the_end_have_a_line_too(opinions):
    opinions.see(dog("open"))
    opinions.see(dog("queued"), (0.9, 0.04, 0.02, 0.02, 0.02))
    opinions.sink.close()
    assert opinions.lines() == {"open": (None, "the run ended"), "queued": ("rex", "waiting in the queue")}


def test_the_memory_for_events_is_bounded(opinions):
    for number in range(5000):
        opinions.sink.observe(dog(f"e{number}"), None)
    assert len(opinions.lines()) == 5000 - 4096


def test_after_a_restart_the_same_answer_is_not_written_again(make):
    first = make()
    first.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
    first.deliver()
    first.sink.close()
    first.box.close()
    second = make()
    second.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
    assert second.waiting() == {}
    second.sink.closed(dog(), None)
    assert second.lines() == {"a": ("rex", None)}


def test_after_a_kill_the_sub_label_in_the_queue_is_the_outcome(make):
    first = make()
    first.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
    first.box.close()
    second = make()
    assert second.sink.observe(dog(), None)
    assert not second.sink.observe(dog("b"), None)
    second.sink.closed(dog(), "no picture")
    assert second.lines() == {}
    second.deliver()
    assert second.lines() == {"a": ("rex", None)}
    second.sink.flush()
    assert second.sink.answered(3600) == ["a"]


def test_a_full_disk_delays_a_sub_label_and_does_not_end_the_run(opinions, monkeypatch, caplog):
    notices: list[None] = []
    opinions.sink.on_queued = lambda: notices.append(None)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(opinions.box, "put", full)
        opinions.see(dog(), (0.9, 0.04, 0.02, 0.02, 0.02))
        opinions.see(dog("lost"), (0.9, 0.04, 0.02, 0.02, 0.02))
        opinions.sink.closed(dog(), None)
        opinions.sink.flush()
        assert (opinions.waiting(), notices) == ({}, [])
        assert caplog.text.count("sub_labels_not_stored") == 1
        opinions.sink._end(opinions.sink._opinions["lost"])
    opinions.sink.flush()
    assert (opinions.waiting(), notices) == ({"a": ("rex", 0.9)}, [None])
    opinions.deliver()
    assert opinions.lines() == {"lost": (None, "no room on the disk"), "a": ("rex", None)}


def test_a_later_run_knows_the_events_that_have_been_answered(opinions):
    for event_id in ("over", "open", "none"):
        opinions.see(dog(event_id), None if event_id == "none" else (0.5, 0.2, 0.1, 0.1, 0.1))
    opinions.sink.closed(dog("over"), None)
    opinions.sink.closed(dog("none"), "no picture")
    opinions.sink.close()
    opinions.sink.flush()
    assert opinions.sink.answered(3600) == ["over"]
    assert opinions.sink.answered(0) == []
