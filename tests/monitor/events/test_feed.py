"""The last events in memory: what the dashboard and Home Assistant read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagelink.monitor.events import feed as module
from sagelink.monitor.events.feed import EventFeed
from sagelink.stages.event_rules import Action, Event, EventAction


def act(feed: EventFeed, number: int, action: Action = "open", wall_s: float = 0.0) -> None:
    event = Event("r", "gate", "lorry", number, float(number), 100.0 + number, 0.9, number, 0, wall_s, "edge")
    feed.take(EventAction(action, replace(event, end_s=9.0 if action == "close" else None)))


def test_an_event_has_its_last_action_and_the_time_of_the_first() -> None:
    feed = EventFeed()
    act(feed, 1, wall_s=5.0)
    act(feed, 2, wall_s=6.0)
    act(feed, 1, "close", wall_s=7.0)
    newest, oldest = feed.events()
    assert (oldest["action"], oldest["opened_s"], oldest["wall_s"]) == ("close", 5.0, 7.0)
    assert feed.open_events() == [newest]


def test_readers_go_on_where_they_stopped_and_miss_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIONS", 3)
    monkeypatch.setattr(module, "MAX_EVENTS", 2)
    feed = EventFeed()
    for number in range(2):
        act(feed, number)
    actions, following = feed.since(0)
    assert ([action["best_seq"] for action in actions], following) == ([0, 1], 2)
    for number in range(2, 8):
        act(feed, number)
    actions, following = feed.since(following)
    assert ([action["best_seq"] for action in actions], following) == ([5, 6, 7], 8)
    assert feed.since(8) == ([], 8)
    assert [event["best_seq"] for event in feed.events()] == [7, 6]


def test_listeners_are_called_for_each_action() -> None:
    feed, calls = EventFeed(), []
    feed.listen(lambda: calls.append(feed.count))
    act(feed, 1)
    act(feed, 1, "withdraw")
    assert calls == [1, 2]
