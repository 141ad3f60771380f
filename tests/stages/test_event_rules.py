"""Rules of events: verdicts in, actions out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sagelink.pipeline.config.events import EventRule
from sagelink.stages.event_rules import CameraEvents, EventAction, Observation

NOON_S = 12 * 3600.0


def seen(seq: int, label: str | None, prob: float = 0.9, **values: object) -> Observation:
    """A verdict; one frame per second."""
    base = Observation("gate", seq, float(seq), NOON_S + seq, label, prob, "edge", 100)
    return replace(base, **values)  # type: ignore[arg-type]


def run(rule: EventRule, labels: Sequence[str | None], finish: bool = False) -> list[tuple[str, str, int]]:
    """Final verdicts in; action, label and seq of the verdict that caused it."""
    events = CameraEvents([rule], time.gmtime)
    actions = [
        (action.action, action.event.label, seq)
        for seq, label in enumerate(labels)
        for action in events.final(seen(seq, label))
    ]
    return actions + [(action.action, action.event.label, len(labels)) for action in events.finish() if finish]


def rule(**values: object) -> EventRule:
    return EventRule.model_validate({"name": "r"} | values)


@pytest.mark.parametrize(
    ("options", "labels", "actions"),
    [
        ({}, "aab", []),
        ({}, "aaab", [("open", "a", 2)]),
        ({}, "aaabab", [("open", "a", 2)]),
        ({}, "aaabbb", [("open", "a", 2), ("close", "a", 5), ("open", "b", 5)]),
        ({}, "aaabcd", [("open", "a", 2), ("close", "a", 5)]),
        ({"labels": ["b"]}, "aaabbbaaa", [("open", "b", 5), ("close", "b", 8)]),
        ({"after": "2s"}, "aaa", [("open", "a", 2)]),
        ({"after": "3s"}, "aaa", []),
        ({"after": 1, "until": "2s"}, "abbb", [("open", "a", 0), ("close", "a", 3), ("open", "b", 3)]),
        ({"changed": True}, "aaabbb", [("open", "b", 5)]),
        (
            {"after": 1, "until": 1, "labels": ["a"], "cooldown": "3s"},
            "ababab",
            [("open", "a", 0), ("close", "a", 1), ("open", "a", 4), ("close", "a", 5)],
        ),
        (
            {"after": 1, "until": 1, "labels": ["a"], "count": 2, "within": "3s"},
            "abab",
            [("open", "a", 2), ("close", "a", 3)],
        ),
        ({"after": 1, "until": 1, "labels": ["a"], "count": 2, "within": "1s"}, "abab", []),
        ({"after": 1, "hours": "12:00-13:00"}, "a", [("open", "a", 0)]),
        ({"after": 1, "hours": "13:00-12:00"}, "a", []),
        ({"after": 1, "hours": "23:00-12:01", "days": ["wed"]}, "a", [("open", "a", 0)]),
        ({"after": 1, "days": ["fri"]}, "a", []),
        ({"after": 1, "days": ["thu"]}, "a", [("open", "a", 0)]),
    ],
)
def test_actions(options: dict[str, object], labels: str, actions: list[tuple[str, str, int]]) -> None:
    assert run(rule(**options), labels) == actions


def test_none_of_the_classes_is_an_event_only_where_a_rule_names_it() -> None:
    def actions(each: EventRule) -> list[str]:
        events = CameraEvents([each])
        labels = ["a", "unknown", "unknown", "a"]
        found = [action for seq, label in enumerate(labels) for action in events.final(seen(seq, label))]
        return [f"{action.action} {action.event.label}" for action in found]

    assert actions(rule(after=1, until=1)) == ["open a", "close a", "open a"]
    assert actions(rule(after=1, until=1, labels=["unknown"])) == ["open unknown", "close unknown"]


def test_an_improbable_verdict_does_not_count_as_its_label() -> None:
    events = CameraEvents([rule(after=2)])
    assert [*events.final(seen(0, "a")), *events.final(seen(1, "a", 0.5)), *events.final(seen(2, "a"))] == []


def test_an_event_says_when_it_began_and_ended_and_what_it_cost() -> None:
    events = CameraEvents([rule(after=2, until=2)])
    verdicts = [seen(0, "a", 0.7), seen(1, "a", 0.8), seen(2, "a", 0.95), seen(3, "b"), seen(4, "b")]
    opened, updated, closed, _ = [action for verdict in verdicts for action in events.final(verdict)]
    assert (opened.action, opened.event.start_s, opened.event.best_seq, opened.event.wire_bits) == ("open", 0, 1, 200)
    assert (updated.action, updated.event.best_seq, updated.event.prob) == ("update", 2, 0.95)
    assert (closed.action, closed.event.end_s, closed.event.wire_bits) == ("close", 3, 300)
    assert opened.event.id == updated.event.id == closed.event.id


def test_an_event_ends_with_the_run() -> None:
    assert run(rule(), "aaa", finish=True) == [("open", "a", 2), ("close", "a", 3)]


def test_hours_begin_while_the_label_stays() -> None:
    labels = "a" * 65
    assert run(rule(after=1, hours="12:01-13:00"), labels) == [("open", "a", 60)]


def test_a_clock_step_neither_ends_nor_repeats_an_event() -> None:
    events = CameraEvents([rule(after=1)], time.gmtime)
    actions = [*events.final(seen(0, "a")), *events.final(seen(1, "a", wall_s=0.0)), *events.final(seen(2, "a"))]
    assert [action.action for action in actions] == ["open"]


def test_a_provisional_verdict_begins_an_event_once() -> None:
    events = CameraEvents([rule(after=2)])
    early = [*events.pending(seen(0, "a")), *events.pending(seen(1, "a"))]
    assert [action.action for action in early] == ["open"]
    assert [*events.final(seen(0, "a")), *events.final(seen(1, "a"))] == []


def test_a_late_answer_withdraws_an_event_and_begins_another() -> None:
    events = CameraEvents([rule(after=2)])
    for seq in (0, 1):
        opened = events.pending(seen(seq, "a"))
    withdrawn = events.final(seen(0, "b", cause="server"))
    assert [(action.action, action.event.id, action.event.cause) for action in withdrawn] == [
        ("withdraw", opened[0].event.id, "server")
    ]
    begun = events.final(seen(1, "b", cause="server"))
    assert [(action.action, action.event.label) for action in begun] == [("open", "b")]
    assert begun[0].event.id != opened[0].event.id


LABELS = st.lists(st.sampled_from(["a", "b", None]), max_size=30)


@given(LABELS, LABELS, st.integers(0, 5))
@example(["a", "a", "b", "a", "b", "b", "a", "a"], ["a", "b", "a", "a", "a", "a", "a", "a"], 4)  # withdrawn twice
def test_every_event_opens_once_and_ends_once(provisional: list[str | None], final: list[str | None], lag: int) -> None:
    events = CameraEvents([rule(after=2, until=2), EventRule(name="other", labels=("b",), after=1)])
    actions: list[EventAction] = []
    for seq, label in enumerate(provisional[: len(final)]):
        actions += events.pending(seen(seq, label))
        if seq >= lag:
            actions += events.final(seen(seq - lag, final[seq - lag]))
    actions += events.finish()
    by_id: dict[str, list[str]] = {}
    for action in actions:
        by_id.setdefault(action.event.id, []).append(action.action)
    for steps in by_id.values():
        assert steps[0] == "open"
        assert steps.count("open") == 1
        assert steps[-1] in ("close", "withdraw")
        assert set(steps[1:-1]) <= {"update"}


def test_a_rule_follows_its_class_where_several_may_hold() -> None:
    events = CameraEvents([rule(labels=["car"], after=2, until=2)], time.gmtime)
    shown = [("none", 0.1), ("car", 0.9), ("car + person", 0.8), ("car + person", 0.7), ("person", 0.3), ("none", 0.1)]
    actions = []
    for seq, (label, car) in enumerate(shown):
        base = seen(seq, label, 0.6)
        actions += events.final(replace(base, class_probs={"car": car, "person": 0.2}))
    assert [(each.action, each.event.label, each.event.start_seq, each.event.prob) for each in actions] == [
        ("open", "car", 1, 0.9),
        ("close", "car", 1, 0.9),
    ]
