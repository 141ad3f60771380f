"""The events of one camera as a console knows them: actions of one event are one entry. Pure and bounded: every
publisher with the rights of the camera can write them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sagelink.pipeline.text import one_line

MAX_TEXT = 120  # characters of a name or label from outside
_MAX_EVENTS = 50
_STATES = {"open": "open", "update": "open", "close": "closed", "withdraw": "withdrawn"}
EVENT_STATES = tuple(dict.fromkeys(_STATES.values()))


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """One event."""

    id: str
    rule: str
    label: str
    state: str  # open, closed, withdrawn
    prob: float
    best_seq: int
    cause: str
    wire_bits: int
    start_s: float  # stream time at the camera
    end_s: float | None
    began_wall_s: float  # when its first action arrived here
    changed_wall_s: float  # when its last action arrived here
    has_picture: bool = False  # its picture is here

    def values(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: getattr(self, key) for key in self.__slots__}


def shown(value: object) -> str:
    """Text from outside as one harmless line of bounded length."""
    return one_line(str(value)[:MAX_TEXT])


def number(value: object, default: float = 0.0) -> float:
    """A finite number from outside."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else default


class CameraEventLog:
    """The last events of a camera, oldest first."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, SeenEvent] = OrderedDict()

    def take(self, record: Mapping[str, Any], wall_s: float) -> list[SeenEvent]:
        """Takes an action (docs/events.md). Returns the events that changed, as they are now: none for what is no
        action, or for one that says nothing new. A rule has one open event: the end of an earlier one was missed."""
        state = _STATES.get(str(record.get("action")))
        if state is None or not isinstance(record.get("id"), str):
            return []
        name = shown(record["id"])
        known = self._events.get(name)
        is_late_end = known is not None and state == known.state == "closed" and known.end_s is None
        if known is not None and known.state != "open" and not is_late_end:
            return []  # repeated after a lost connection
        end_s = record.get("end_s")
        event = SeenEvent(
            id=name,
            rule=shown(record.get("rule", "")),
            label=shown(record.get("label", "")),
            state=state,
            prob=min(1.0, max(0.0, number(record.get("prob")))),
            best_seq=int(number(record.get("best_seq"))),
            cause=shown(record.get("cause", ""))[:16],
            wire_bits=int(number(record.get("wire_bits"))),
            start_s=number(record.get("start_s")),
            end_s=None if end_s is None else number(end_s),
            began_wall_s=wall_s if known is None else known.began_wall_s,
            changed_wall_s=wall_s,
            has_picture=known is not None and known.has_picture and state != "withdrawn",
        )
        if known is not None and replace(event, changed_wall_s=known.changed_wall_s) == known:
            return []
        ended = []
        if state == "open" and known is None and record.get("source_event") is None:
            ended = [replace(other, state="closed", changed_wall_s=wall_s) for other in self.open()]
            ended = [other for other in ended if other.rule == event.rule]
        for each in (*ended, event):
            self._events[each.id] = each
        if len(self._events) > _MAX_EVENTS:
            self._events.popitem(last=False)
        return [*ended, event]

    def find(self, event_id: str) -> SeenEvent | None:
        return self._events.get(event_id)

    def note_picture(self, event_id: str) -> None:
        """The picture of a known event is complete."""
        self._events[event_id] = replace(self._events[event_id], has_picture=True)

    def restore(self, event: SeenEvent) -> None:
        """An event that an earlier console observed."""
        self._events[event.id] = event
        if len(self._events) > _MAX_EVENTS:
            self._events.popitem(last=False)

    def all(self) -> list[SeenEvent]:
        return [*self._events.values()]

    def open(self) -> list[SeenEvent]:
        return [event for event in self._events.values() if event.state == "open"]
