"""Turns verdicts on the events of another system into events by rules. Pure: time comes with the verdicts.

A frame counts for the event that it shows only. Its label is the answer for this event, and a rule need not wait for
several verdicts in a row. The event ends when no frame of it has come for a minute.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from sagelink.pipeline.types import FrameEvent, Verdict
from sagelink.stages.event_rules import CameraEvents, EventAction, Observation
from sagelink.stages.nvr.event_answer import ClassesByLabel, EventAnswer

_SILENCE_S = 60.0  # stream time
_MAX_EVENTS = 1024


@dataclass(slots=True)
class _SourceEvent:
    """One event of the other system."""

    events: CameraEvents
    answer: EventAnswer
    last_s: float = 0.0  # stream time of its last frame


class SourceEvents:
    """Of one camera."""

    def __init__(self, rules: CameraEvents, classes: ClassesByLabel, own: tuple[str, ...]) -> None:
        """`classes`: those that are possible for a label of the other system. `own`: names of the model's own
        classes."""
        self._rules = rules
        self._classes = classes
        self._own = own
        self._open: OrderedDict[str, _SourceEvent] = OrderedDict()  # by id; the one with the latest frame last

    def final(self, seen: Observation, verdict: Verdict, event: FrameEvent) -> list[EventAction]:
        """Takes the final verdict of the next frame, which shows `event`. Returns what it begins, changes or ends."""
        if event.id not in self._open:
            answer = EventAnswer(self._classes.get(event.label or ""))
            self._open[event.id] = _SourceEvent(self._rules.for_source_event(), answer)
        self._open.move_to_end(event.id)
        current = self._open[event.id]
        current.last_s = seen.stream_s
        if verdict.answer is not None and not verdict.unknown:
            label, prob = current.answer.add(verdict, self._own) or (None, 0.0)
            seen = replace(seen, label=label, prob=prob)
        return self._ended(seen.stream_s) + current.events.final(seen)

    def finish(self) -> list[EventAction]:
        """Ends all events with the run."""
        return [action for each in self._open.values() for action in each.events.finish()]

    def _ended(self, now_s: float) -> list[EventAction]:
        actions = []
        while len(self._open) > _MAX_EVENTS or now_s - next(iter(self._open.values())).last_s >= _SILENCE_S:
            actions += self._open.popitem(last=False)[1].events.finish()
        return actions
