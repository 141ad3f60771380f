"""The last events of a run, in memory, for the dashboard and Home Assistant."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from sagelink.stages.event_rules import EventAction
from sagelink.stages.sinks.events import event_record

MAX_EVENTS, MAX_ACTIONS = 500, 1000
Record = dict[str, Any]


class EventFeed:
    """An EventReceiver, written by one thread and read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: deque[Record] = deque(maxlen=MAX_ACTIONS)
        self._events: OrderedDict[str, Record] = OrderedDict()  # last action by id, in the order of the first ones
        self._count = 0
        self._listeners: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        """Adds a callback that is called after each action, in the thread of `take`."""
        self._listeners.append(changed)

    def take(self, action: EventAction) -> None:
        record: Record = event_record(action)
        with self._lock:
            self._count += 1
            self._actions.append(record)
            opened_s = self._events.get(action.event.id, record).get("opened_s", record["wall_s"])
            self._events[action.event.id] = record | {"opened_s": opened_s}
            if len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)
        for changed in self._listeners:
            changed()

    def close(self) -> None:
        """The events stay."""

    @property
    def count(self) -> int:
        """Number of actions so far."""
        return self._count

    def since(self, start: int) -> tuple[list[Record], int]:
        """The actions from number `start` on that are still stored, and the number to read from next."""
        with self._lock:
            first = self._count - len(self._actions)
            return [*self._actions][max(0, start - first) :], self._count

    def events(self) -> list[Record]:
        """The last action of each event, the newest event first; `opened_s` is the time of day of the first action."""
        with self._lock:
            return [*reversed(self._events.values())]

    def open_events(self) -> list[Record]:
        """The events that have begun and not ended."""
        return [event for event in self.events() if event["action"] in ("open", "update")]
