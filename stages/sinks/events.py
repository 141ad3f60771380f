"""A sink that turns verdicts into events and writes events.jsonl: one JSON object per action of an event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.event_config import EventRule
from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.private_files import LineFile
from sagelink.pipeline.types import UNKNOWN, Verdict
from sagelink.stages.event_rules import CameraEvents, EventAction, Observation


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
    }


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


class EventLog:
    """The events of a run. A run that is killed, or whose disk is full, leaves complete lines."""

    def __init__(self, path: Path, rules: Sequence[EventRule], labels: tuple[str, ...], live: bool) -> None:
        """`path`: a new file. `live`: events may begin with provisional verdicts; else the same frames always give the
        same events."""
        self._live = live
        self._rules = rules
        self._labels = labels
        self._cameras: dict[str, CameraEvents] = {}
        self._lines = LineFile(path)

    def show_pending(self, verdict: Verdict) -> None:
        """Takes a provisional verdict: an event may begin before the server's answer is there."""
        if self._live:
            self._report(self._events(verdict.frame.camera).pending(self._observation(verdict)))

    def write(self, verdict: Verdict) -> None:
        self._report(self._events(verdict.frame.camera).final(self._observation(verdict)))

    def close(self) -> None:
        try:
            for events in self._cameras.values():
                self._report(events.finish())
        finally:
            self._lines.close()

    def _report(self, actions: Sequence[EventAction]) -> None:
        for action in actions:
            self._lines.write(to_json(event_record(action)))

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
            class_probs=verdict.class_probs(),
        )
