"""A sink that turns verdicts into events, and its first receiver: events.jsonl, one JSON object per action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from sagelink.pipeline.answers import UNKNOWN
from sagelink.pipeline.config.events import EventRule
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.rotating_lines import RotatingLines
from sagelink.pipeline.types import Verdict
from sagelink.stages.event_rules import CameraEvents, EventAction, Observation
from sagelink.stages.nvr.event_answer import ClassesByLabel
from sagelink.stages.nvr.source_events import SourceEvents


def event_record(action: EventAction) -> dict[str, object]:
    """An action as plain JSON values; docs/events.md describes the keys."""
    event = action.event
    return {
        "id": event.id,
        "rule": event.rule,
        "action": action.action,
        "camera": event.camera,
        "label": event.label,
        "prob": round(event.prob, 6),
        "start_s": round(event.start_s, 6),
        "end_s": None if event.end_s is None else round(event.end_s, 6),
        "wall_s": round(event.wall_s, 6),
        "best_seq": event.best_seq,
        "cause": event.cause,
        "wire_bits": event.wire_bits,
        "source_event": event.source_event,
    }


def record_key(record: Mapping[str, Any]) -> str:
    """The key of the action in a record: by it, a receiver recognises an action that it gets twice."""
    return f"{record['id']}-{record['action']}-{round(record['wall_s'] * 1000):x}"


def check_rules(rules: Sequence[EventRule], cameras: Iterable[str], labels: Iterable[str]) -> None:
    """Raises UsageError for a rule that names a camera or a label that the run does not have."""
    known_cameras, known_labels = [*cameras], [*labels, UNKNOWN]
    for rule in rules:
        for kind, names, known in (("camera", rule.cameras, known_cameras), ("label", rule.labels, known_labels)):
            for name in set(names) - set(known):
                listed = ", ".join(known[:10]) + (" ..." if len(known) > 10 else "")
                raise UsageError(
                    f"events.rules: {rule.name}: no {kind} of this run is named {name!r}{suggest(name, known)}; "
                    f"accepted: {listed}"
                )


class EventReceiver(Protocol):
    """Takes the actions of events, in order, in one thread."""

    def take(self, action: EventAction) -> None:
        """An exception ends the run."""
        ...

    def close(self) -> None:
        """There are no more actions."""
        ...


class EventLines:
    """Writes events.jsonl: one JSON object per action. A run that is killed, or whose disk is full, leaves complete
    lines."""

    def __init__(self, lines: RotatingLines, path: Path) -> None:
        """`path`: of the file, for messages."""
        self._path = path
        self._lines = lines

    def take(self, action: EventAction) -> None:
        try:
            self._lines.write(to_json(event_record(action)))
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            self._lines.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


class EventSink:
    """A sink that turns verdicts into events, and gives each action to all receivers in turn."""

    def __init__(
        self,
        rules: Sequence[EventRule],
        labels: tuple[str, ...],
        live: bool,
        classes: ClassesByLabel,
        receivers: Sequence[EventReceiver],
    ) -> None:
        """`live`: events may begin with provisional verdicts; else the same frames always give the same events.
        `classes`: those that are possible for a label of another system."""
        self._live = live
        self._rules = rules
        self._labels = labels
        self._classes = classes
        self._receivers = receivers
        self._cameras: dict[str, CameraEvents] = {}
        self._source_events: dict[str, SourceEvents] = {}

    def show_pending(self, verdict: Verdict) -> None:
        """Takes a provisional verdict: an event may begin before the server's answer is there."""
        if self._live and verdict.frame.event is None:
            self._report(self._events(verdict.frame.camera).pending(self._observation(verdict)))

    def write(self, verdict: Verdict) -> None:
        frame, observation = verdict.frame, self._observation(verdict)
        events = self._events(frame.camera)
        if frame.event is None:
            self._report(events.final(observation))
            return
        if frame.camera not in self._source_events:
            self._source_events[frame.camera] = SourceEvents(events, self._classes, self._labels)
        self._report(self._source_events[frame.camera].final(observation, verdict, frame.event))

    def close(self) -> None:
        with ExitStack() as stack:
            for receiver in self._receivers:
                stack.callback(receiver.close)
            for events in self._cameras.values():
                self._report(events.finish())
            for source_events in self._source_events.values():
                self._report(source_events.finish())

    def _report(self, actions: Sequence[EventAction]) -> None:
        for action in actions:
            for receiver in self._receivers:
                receiver.take(action)

    def _events(self, camera: str) -> CameraEvents:
        events = self._cameras.get(camera)
        if events is None:
            rules = [rule for rule in self._rules if not rule.cameras or camera in rule.cameras]
            events = self._cameras[camera] = CameraEvents(rules)
        return events

    def _observation(self, verdict: Verdict) -> Observation:
        frame, answer = verdict.frame, verdict.answer
        return Observation(
            camera=frame.camera,
            seq=frame.seq,
            stream_s=frame.stream_s,
            wall_s=frame.wall_ns / 1e9,
            label=verdict.label(self._labels),
            prob=answer.prob if answer else 0.0,
            cause=verdict.origin,
            wire_bits=verdict.wire_bits,
            source_event=frame.event.id if frame.event else None,
            class_probs=verdict.class_probs(),
            private=frame.private,
        )
