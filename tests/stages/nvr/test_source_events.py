"""Events of another system by rules: each frame counts for its event, and rules remember from event to event."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from sagelink.pipeline.config.events import EventRule
from sagelink.pipeline.types import Drop, EdgeOnly, FrameEvent
from sagelink.stages.event_rules import CameraEvents, Observation
from sagelink.stages.fuse import Fuse
from sagelink.stages.nvr.source_events import SourceEvents
from tests.fakes import make_scored

LABELS = ("rex", "bella", "van", "lorry", "post")
REX, BELLA, VAN = (0.9, 0.04, 0.02, 0.02, 0.02), (0.04, 0.9, 0.02, 0.02, 0.02), (0.3, 0.2, 0.4, 0.05, 0.05)


class Camera:
    def __init__(self, classes: dict[str, tuple[str, ...]] | None = None, **rule: Any) -> None:
        rules = CameraEvents([EventRule.model_validate({"name": "r"} | rule)], time.gmtime)
        self.events = SourceEvents(rules, classes or {}, LABELS)
        self.seq = 0

    def see(
        self, event_id: str, probs, at_s: float = 0.0, label: str = "dog", unknown: bool = False, private: bool = False
    ) -> list[tuple]:
        event = FrameEvent(event_id, "yard", label, 0.8, private=private)
        scored = make_scored(self.seq, probs=probs)
        scored = replace(scored, frame=replace(scored.frame, event=event), novelty=2.0 if unknown else 0.0)
        verdict = Fuse(False, None, 16).decide(EdgeOnly(scored, Drop.GATE))
        answer, named = verdict.answer, verdict.label(LABELS)
        assert answer is not None
        seen = Observation("yard", self.seq, at_s, at_s, named, answer.prob, "edge", 100, event_id, private=private)
        self.seq += 1
        return [_short(action) for action in self.events.final(seen, verdict, event)]


def _short(action) -> tuple:
    return action.action, action.event.source_event, action.event.label


def test_one_verdict_begins_an_event_and_frames_of_others_do_not_end_it():
    camera = Camera()
    assert camera.see("a", REX) == [("open", "a", "rex")]
    assert camera.see("b", BELLA, 1.0) == [("open", "b", "bella")]
    assert camera.see("a", REX, 2.0) == []
    assert [_short(action) for action in camera.events.finish()] == [("close", "b", "bella"), ("close", "a", "rex")]


def test_an_event_ends_when_no_frame_has_come_for_a_minute():
    camera = Camera()
    camera.see("a", REX, 0.0)
    camera.see("b", REX, 59.0)
    assert camera.see("c", BELLA, 61.0) == [("close", "a", "rex"), ("open", "c", "bella")]
    assert len(camera.events.finish()) == 2


def test_the_label_is_the_answer_for_the_event_over_the_possible_classes():
    camera = Camera({"car": ("van", "lorry")}, min_prob=0.8)
    assert camera.see("a", VAN, label="car") == [("open", "a", "van")]
    assert camera.see("b", VAN, label="dog") == []
    assert camera.see("c", BELLA) == [("open", "c", "bella")]
    assert camera.see("c", (0.5, 0.4, 0.04, 0.03, 0.03)) == [("close", "c", "bella")]  # on average not sure
    assert camera.see("d", REX, unknown=True) == []
    assert Camera(labels=["unknown"]).see("d", REX, unknown=True) == [("open", "d", "unknown")]


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        ({"labels": ["rex"], "count": 3, "within": "1h"}, ["c"]),
        ({"labels": ["rex"], "cooldown": "15s"}, ["a", "c"]),
        ({"changed": True}, ["x"]),
    ],
)
def test_what_a_rule_remembers_spans_events(rule: dict[str, Any], opened: list[str]):
    camera = Camera(**rule)
    seen = [*camera.see("a", REX, 0.0), *camera.see("b", REX, 10.0), *camera.see("c", REX, 20.0)]
    seen += camera.see("x", BELLA, 21.0)
    assert [event for action, event, _ in seen if action == "open"] == opened


def test_memory_is_bounded():
    camera = Camera()
    ended = [action for number in range(1300) for action in camera.see(f"e{number}", REX) if action[0] == "close"]
    assert len(ended) == 1300 - 1024


def test_a_private_event_counts_only_for_rules_that_name_its_label():
    every, named = Camera(), Camera(labels=["rex"])
    assert every.see("a", REX, private=True) == []
    assert named.see("a", REX, private=True) == [("open", "a", "rex")]
    assert every.see("b", REX) == [("open", "b", "rex")]
    assert every.see("b", REX, private=True) == [("close", "b", "rex")]  # it has become private
