"""Turns the verdicts of a camera into events: something begins, and something ends. Pure: time comes with the verdicts.

Final verdicts come in the order of capture. A provisional verdict may precede the final one: an event may begin with
it, so that an alert does not wait for the server. If the final verdicts do not confirm it, the event is withdrawn. An
event ends only with final verdicts.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from sagelink.pipeline.answers import UNKNOWN, Origin
from sagelink.pipeline.config.events import DAYS, EventRule

Action: TypeAlias = Literal["open", "update", "close", "withdraw"]
LocalTime: TypeAlias = Callable[[float], time.struct_time]  # from seconds since 1970

_MAX_WITHDRAWN = 100  # that a rule remembers
_SHOWN = 0.5  # probability of a class that a frame shows, where it may show several
_GAIN = 0.1  # a better frame is reported when its probability is so much higher


@dataclass(frozen=True, slots=True)
class Observation:
    """The part of a verdict that rules look at."""

    camera: str
    seq: int
    stream_s: float
    wall_s: float
    label: str | None  # None: the frame was never scored
    prob: float
    cause: Origin
    wire_bits: int
    source_event: str | None = None  # the event of another system that the frame shows
    class_probs: Mapping[str, float] | None = None  # by a multi-label head: the probability of each class
    private: bool = False  # the frame must not leave the site: only rules that name its label count it

    def by_labels(self, labels: Sequence[str]) -> Observation:
        """What a rule with these labels observes: the first of them that the frame shows, where several may hold."""
        if self.class_probs is None or self.label == UNKNOWN:
            return self
        shown = [(name, self.class_probs[name]) for name in labels if self.class_probs.get(name, 0.0) > _SHOWN]
        return replace(self, label=shown[0][0], prob=shown[0][1]) if shown else self


@dataclass(frozen=True, slots=True)
class Event:
    """One state that a rule waits for, from its first frame on."""

    rule: str
    camera: str
    label: str
    start_seq: int
    start_s: float  # stream time of the first frame of the row
    started_wall_s: float
    prob: float  # of the best frame
    best_seq: int
    wire_bits: int  # of all frames of the event up to now
    wall_s: float  # of the verdict that the last change comes from
    cause: Origin
    end_s: float | None = None  # stream time of the first frame without the label
    source_event: str | None = None
    withdrawals: int = 0  # of events with the same first frame, before this one

    @property
    def id(self) -> str:
        """The same for every action of the event, and after a restart not the one of another event."""
        label, again = zlib.crc32(self.label.encode()), f"-{self.withdrawals}" if self.withdrawals else ""
        return f"{self.camera}-{self.rule}-{round(self.started_wall_s * 1000):x}-{self.start_seq}-{label:08x}{again}"


@dataclass(frozen=True, slots=True)
class EventAction:
    """What is reported about an event."""

    action: Action
    event: Event


@dataclass(slots=True)
class _Row:
    """Verdicts in a row."""

    count: int = 0
    first: Observation | None = None
    last_s: float = 0.0

    def add(self, observation: Observation) -> None:
        if self.first is None:
            self.first = observation
        self.count += 1
        self.last_s = observation.stream_s

    def reaches(self, length: float) -> bool:
        """`length`: number of verdicts as an int, or seconds as a float."""
        if self.first is None:
            return False
        return self.count >= length if isinstance(length, int) else self.last_s - self.first.stream_s >= length


@dataclass(slots=True)
class _History:
    """What one rule on one camera remembers from event to event."""

    settled: str | None = None  # the last label whose row was long enough
    settled_at_s: tuple[float, ...] = ()  # when labels of the rule settled, at most `rule.count`
    quiet_until_s: float = -math.inf
    withdrawn: tuple[tuple[int, str], ...] = ()  # first frames and labels of withdrawn events, at most _MAX_WITHDRAWN


@dataclass(slots=True)
class _Machine:
    """One rule on one camera. `step` takes final verdicts; a copy of it may run ahead on provisional ones."""

    rule: EventRule
    local_time: LocalTime
    event: Event | None = None
    label: str | None = None  # of `row`; None: no label that is probable enough
    row: _Row = field(default_factory=_Row)
    best: Observation | None = None  # of `row`
    bits: int = 0  # of `row`
    follows: bool = False  # the label of `row` has settled after another one
    is_settled: bool = False  # `row` is long enough
    misses: _Row = field(default_factory=_Row)  # verdicts without the label of `event`
    history: _History = field(default_factory=_History)

    def copy(self) -> _Machine:
        return replace(self, row=replace(self.row), misses=replace(self.misses), history=replace(self.history))

    def step(self, seen: Observation) -> Iterator[EventAction]:
        """The actions that a verdict causes."""
        seen = seen.by_labels(self.rule.labels)
        self._count(seen)
        quiet_until_s = seen.stream_s + (self.rule.cooldown or 0)
        if self.event is not None:
            self.history.quiet_until_s = quiet_until_s
            yield from self._follow(self.event, seen)
        if self.event is None and self._begins(seen):
            self.history.quiet_until_s = quiet_until_s
            self.event = self._new_event(seen)
            yield EventAction("open", self.event)

    def note_withdrawal(self, event: Event) -> None:
        """An event with the same first frame gets another id."""
        known = (*self.history.withdrawn, (event.start_seq, event.label))
        self.history.withdrawn = known[-_MAX_WITHDRAWN:]

    def finish(self) -> Iterator[EventAction]:
        """Ends an event with the run."""
        if self.event is not None:
            first_miss = self.misses.first
            end_s = first_miss.stream_s if first_miss else self.row.last_s
            yield EventAction("close", replace(self.event, end_s=end_s))
            self.event = None

    def _count(self, seen: Observation) -> None:
        counts = seen.prob >= self.rule.min_prob and (self.rule.labels or not seen.private)
        label = seen.label if counts else None
        if label != self.label:
            self.label, self.row, self.best, self.bits, self.is_settled = label, _Row(), None, 0, False
        self.row.add(seen)
        self.bits += seen.wire_bits
        if self.best is None or seen.prob > self.best.prob:
            self.best = seen
        if label is not None and not self.is_settled and self.row.reaches(self.rule.after):
            self.is_settled = True
            self.follows = self.history.settled not in (None, label)
            self.history.settled = label
            if self._is_named(label):
                self.history.settled_at_s = (*self.history.settled_at_s, seen.stream_s)[-self.rule.count :]

    def _follow(self, event: Event, seen: Observation) -> Iterator[EventAction]:
        if self.label != event.label:
            self.misses.add(seen)
            if self.misses.first is not None and self.misses.reaches(self.rule.until):
                end_s = self.misses.first.stream_s
                yield EventAction("close", replace(event, end_s=end_s, wall_s=seen.wall_s, cause=seen.cause))
                self.event, self.misses = None, _Row()
            return
        self.misses = _Row()
        self.event = replace(event, wire_bits=event.wire_bits + seen.wire_bits)
        if seen.prob >= event.prob + _GAIN:
            self.event = replace(self.event, prob=seen.prob, best_seq=seen.seq, wall_s=seen.wall_s, cause=seen.cause)
            yield EventAction("update", self.event)

    def _begins(self, seen: Observation) -> bool:
        within = self.rule.within or math.inf
        return (
            self.is_settled
            and self.label is not None
            and self._is_named(self.label)
            and (self.follows or not self.rule.changed)
            and seen.stream_s >= self.history.quiet_until_s
            and len([time_s for time_s in self.history.settled_at_s if seen.stream_s - time_s <= within])
            >= self.rule.count
            and self._is_time(seen.wall_s)
        )

    def _new_event(self, seen: Observation) -> Event:
        assert self.label is not None
        assert self.row.first is not None
        assert self.best is not None
        return Event(
            rule=self.rule.name,
            camera=seen.camera,
            label=self.label,
            start_seq=self.row.first.seq,
            start_s=self.row.first.stream_s,
            started_wall_s=self.row.first.wall_s,
            prob=self.best.prob,
            best_seq=self.best.seq,
            wire_bits=self.bits,
            wall_s=seen.wall_s,
            cause=seen.cause,
            source_event=seen.source_event,
            withdrawals=self.history.withdrawn.count((self.row.first.seq, self.label)),
        )

    def _is_named(self, label: str) -> bool:
        return label in self.rule.labels if self.rule.labels else label != UNKNOWN

    def _is_time(self, wall_s: float) -> bool:
        if self.rule.minutes is None and not self.rule.days:
            return True
        now = self.local_time(wall_s)
        day = now.tm_wday
        if self.rule.minutes is not None:
            first, last = self.rule.minutes
            minute = now.tm_hour * 60 + now.tm_min
            if not (first <= minute < last if first < last else not last <= minute < first):
                return False
            if first >= last and minute < last:  # the hours began on the day before
                day -= 1
        return not self.rule.days or DAYS[day] in self.rule.days


class CameraEvents:
    """The events of one camera, by all rules that name it."""

    def __init__(self, rules: Sequence[EventRule], local_time: LocalTime = time.localtime) -> None:
        """`local_time`: as `time.localtime`."""
        self._machines = [_Machine(rule, local_time) for rule in rules]
        self._local_time = local_time
        self._pending: dict[int, Observation] = {}  # by seq
        self._early: dict[str, Event] = {}  # events that began with provisional verdicts, by id

    def for_source_event(self) -> CameraEvents:
        """The same rules for one event of another system, which has few frames: each verdict counts. What a rule
        remembers from event to event is shared."""
        each = {"after": 1, "until": 1}
        of_event = CameraEvents([machine.rule.model_copy(update=each) for machine in self._machines], self._local_time)
        for machine, own in zip(of_event._machines, self._machines, strict=True):
            machine.history = own.history
        return of_event

    def pending(self, seen: Observation) -> list[EventAction]:
        """Takes the provisional verdict of a frame whose final verdict is to come. Returns the events it begins."""
        self._pending[seen.seq] = seen
        actions = []
        for machine in self._machines:
            ahead = machine.copy()
            for seq in sorted(self._pending):
                for step in ahead.step(self._pending[seq]):
                    if step.action == "open" and step.event.id not in self._early:
                        self._early[step.event.id] = step.event
                        actions.append(step)
        return actions

    def final(self, seen: Observation) -> list[EventAction]:
        """Takes the final verdict of the next frame. Returns what it begins, changes, ends or withdraws."""
        provisional = self._pending.pop(seen.seq, None)
        actions = []
        for machine in self._machines:
            for step in machine.step(seen):
                early = self._early.pop(step.event.id, None) if step.action == "open" else None
                if early is None:
                    actions.append(step)
                elif step.event.prob >= early.prob + _GAIN:
                    actions.append(EventAction("update", step.event))
        if provisional is not None and self._early:
            actions += self._withdrawn(seen)
        return actions

    def finish(self) -> list[EventAction]:
        """Ends all events with the run."""
        actions = [EventAction("withdraw", event) for event in self._early.values()]
        self._early.clear()
        return actions + [action for machine in self._machines for action in machine.finish()]

    def _withdrawn(self, seen: Observation) -> list[EventAction]:
        """The early events that neither the final verdicts nor the provisional ones after them begin any more."""
        expected = set()
        for machine in self._machines:
            ahead = machine.copy()
            for seq in sorted(self._pending):
                expected |= {step.event.id for step in ahead.step(self._pending[seq]) if step.action == "open"}
        gone = [event for event in self._early.values() if event.id not in expected]
        for event in gone:
            del self._early[event.id]
            for machine in self._machines:
                if machine.rule.name == event.rule:
                    machine.note_withdrawal(event)
        return [EventAction("withdraw", replace(event, wall_s=seen.wall_s, cause=seen.cause)) for event in gone]
