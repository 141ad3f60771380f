"""From verdicts on the frames of events to one sub-label per event, or the reason why it gets none.

The answer for an event becomes its sub-label if its probability reaches the threshold, and again when it changes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.outbox import Outbox, OutboxItem
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.rotating_lines import RotatingLines
from sagelink.pipeline.types import FrameEvent, Verdict
from sagelink.stages.nvr.event_answer import EventAnswer
from sagelink.stages.nvr.frigate_api import MAX_SUB_LABEL
from sagelink.stages.nvr.sub_label import ANSWERED, RECEIVER, SubLabel

log = logging.getLogger(__name__)

MAX_EVENTS = 4096  # without a final outcome
QUEUED, RUN_ENDED, NO_ROOM = "waiting in the queue", "the run ended", "no room on the disk"
UNKNOWN_PICTURE, UNSURE, NO_ANSWER = "unknown", "below the threshold", "no answer"
OTHERS, NO_CLASS = "has another sub-label", "its head has no class of frigate.classes"
PRIVATE_LABEL = "private, and neither frigate.heads nor frigate.classes names its label"


@dataclass(slots=True)
class _Opinion:
    """What is known about one event."""

    event: FrameEvent
    began_s: float  # time of day of the first news
    answer: EventAnswer
    frames: int = 0
    sub_label: SubLabel | None = None
    reason: str | None = None
    ours: set[str] = field(default_factory=set)  # labels that it got from Sagelink; Frigate reports them back
    taken: bool = False  # somebody else has given it a sub-label
    queued: bool = False
    stored: bool = True  # `sub_label` is in the queue on disk, or it was
    written_s: float | None = None
    closed: bool = False

    def adopt(self, stored: OutboxItem, now_s: float) -> None:
        """Takes over the sub-label that the queue has."""
        self.sub_label, self.queued, self.reason, self.stored = SubLabel.of(stored), not stored.delivered, None, True
        self.written_s = now_s if stored.delivered else None
        self.ours.add(self.sub_label.label)


class SecondOpinions:
    """A sink, and an EventObserver. Thread-safe."""

    def __init__(
        self,
        config: FrigateConfig,
        labels: tuple[str, ...],
        outbox: Outbox,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """`labels`: names of the model's own classes. `clock_s`: time of day."""
        self._config = config
        self._labels = labels
        self._outbox = outbox
        self._lines: RotatingLines | None = None
        self._path = Path()
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._opinions: OrderedDict[str, _Opinion] = OrderedDict()  # by event
        self._reasons: Counter[str] = Counter()
        self._written = 0
        self._answered: deque[str] = deque(maxlen=MAX_EVENTS)  # events that are over, not noted on disk yet
        self._over: deque[str] = deque(maxlen=2 * MAX_EVENTS)  # lines of events that are over, not written yet
        self._writing = threading.Lock()
        self._full = False  # the disk
        self.on_queued: Callable[[], None] = lambda: None

    def write_lines(self, lines: RotatingLines, path: Path) -> None:
        """`lines` gets one line for each event that is over; `path`: its file."""
        self._lines, self._path = lines, path

    def observe(self, event: FrameEvent, sub_label: str | None) -> bool:
        with self._lock:
            opinion = self._opinion(event)
            if sub_label is not None and sub_label not in opinion.ours:
                opinion.taken = True
            return opinion.sub_label is not None

    def _opinion(self, event: FrameEvent) -> _Opinion:
        opinion = self._opinions.get(event.id)
        if opinion is None:
            answer = EventAnswer(self._config.classes.get(event.label or ""))
            opinion = self._opinions[event.id] = _Opinion(event, self._clock_s(), answer)
            if (stored := self._outbox.find(RECEIVER, event.id)) is not None:  # of an earlier run
                opinion.adopt(stored, self._clock_s())
            while len(self._opinions) > MAX_EVENTS:
                self._end(next(iter(self._opinions.values())))
        return opinion

    def write(self, verdict: Verdict) -> None:
        event = verdict.frame.event
        if event is None:
            return
        with self._lock:
            opinion = self._opinion(event)
            opinion.frames += 1
            queued = self._decide(opinion, verdict)
        if queued:
            self.on_queued()

    def _decide(self, opinion: _Opinion, verdict: Verdict) -> bool:
        """Whether there is a new sub-label in the queue."""
        event = opinion.event
        if verdict.answer is None or verdict.unknown:
            if opinion.sub_label is None:
                opinion.reason = UNKNOWN_PICTURE if verdict.unknown else NO_ANSWER
            return False
        if event.private and event.label not in {*self._config.classes, *self._config.heads}:
            opinion.reason = PRIVATE_LABEL
            return False
        if opinion.taken:
            opinion.reason = OTHERS
            return False
        answer = opinion.answer.add(verdict, self._labels)
        if answer is None or answer[1] < self._config.threshold:
            if opinion.sub_label is None:
                opinion.reason = UNSURE if answer else NO_CLASS
            return False
        name, prob = answer[0][:MAX_SUB_LABEL], min(1.0, max(1e-4, round(answer[1], 4)))
        found, stored = SubLabel(event.id, name, prob, event.camera), self._outbox.find(RECEIVER, event.id)
        if stored is None or found.differs(SubLabel.of(stored)):
            opinion.ours.add(name)
            opinion.sub_label, opinion.queued, opinion.reason, opinion.written_s = found, True, None, None
            return self._store(opinion)
        if not opinion.stored:  # the answer is again the one of an earlier picture, which is in the queue
            opinion.adopt(stored, self._clock_s())
        return False

    def _store(self, opinion: _Opinion) -> bool:
        """Puts a sub-label into the queue; on a full disk it waits for the next `flush`."""
        assert opinion.sub_label is not None
        try:
            self._outbox.put([RECEIVER], opinion.event.id, opinion.sub_label.content(), self._clock_s())
        except OSError as error:
            opinion.stored = False
            self._note_full(str(error.strerror))
        else:
            opinion.stored = True
            self._note_full(None)
        return opinion.stored

    def _note_full(self, reason: str | None) -> None:
        if self._full == (reason is not None):
            return
        self._full = reason is not None
        if reason is None:
            log.info("event=sub_labels_stored")
        else:
            log.warning("event=sub_labels_not_stored reason=%r", reason)

    def flush(self) -> None:
        """Stores what a full disk did not take, and writes and notes the events that are over. For a thread that may
        wait for the disk. Raises SagelinkError."""
        with self._lock:
            waiting = [opinion for opinion in self._opinions.values() if not opinion.stored]
            stored = [self._store(opinion) for opinion in waiting]
            answered = [*self._answered]
            self._answered.clear()
        if any(stored):
            self.on_queued()
        self._write_lines()
        if answered:
            with contextlib.suppress(OSError):  # the disk is full: a later run may see these events again
                self._outbox.note(ANSWERED, answered, self._clock_s())

    def _write_lines(self) -> None:
        with self._writing:
            while self._over:
                line = self._over.popleft()
                if self._lines is not None:
                    try:
                        self._lines.write(line)
                    except OSError as error:
                        raise cannot_write(self._path, error) from error

    def answered(self, within_s: float) -> list[str]:
        """Ids of the events that earlier runs answered within a time."""
        return self._outbox.noted(ANSWERED, self._clock_s() - within_s, MAX_EVENTS)

    def closed(self, event: FrameEvent, reason: str | None) -> None:
        with self._lock:
            opinion = self._opinions.get(event.id)
            if opinion is not None:
                opinion.closed = True
                if reason is not None and not opinion.frames:
                    opinion.reason = reason
                self._end_if_done(opinion)

    def delivered(self, sub_label: SubLabel, reason: str | None) -> None:
        """The end of a delivery; `reason`: why it failed for ever."""
        with self._lock:
            opinion = self._opinions.get(sub_label.event)
            if opinion is None or opinion.sub_label != sub_label:
                return
            opinion.queued, opinion.reason = False, reason
            opinion.written_s = self._clock_s() if reason is None else None
            self._end_if_done(opinion)

    def _end_if_done(self, opinion: _Opinion) -> None:
        if opinion.closed and not opinion.queued:
            self._end(opinion)

    def _end(self, opinion: _Opinion) -> None:
        """Makes the line of an event and forgets it."""
        self._opinions.pop(opinion.event.id, None)
        written = opinion.written_s is not None
        waiting = QUEUED if opinion.stored else NO_ROOM
        reason = None if written else waiting if opinion.queued else opinion.reason or RUN_ENDED
        if opinion.closed and (opinion.frames or opinion.sub_label) and reason != NO_ROOM:
            self._answered.append(opinion.event.id)
        self._written += written
        if reason is not None:
            self._reasons[reason] += 1
        event, shown = opinion.event, opinion.sub_label if written or reason == QUEUED else None
        line = {
            "event": event.id,
            "camera": event.camera,
            "label": event.label,
            "frames": opinion.frames,
            "sub_label": None if shown is None else shown.label,
            "score": None if shown is None else shown.score,
            "reason": reason,
            "began_s": round(opinion.began_s, 3),
            "written_s": None if opinion.written_s is None else round(opinion.written_s, 3),
        }
        self._over.append(to_json(line))

    def summary(self) -> dict[str, object]:
        """Counts of the events that are over, as in summary.json."""
        with self._lock:
            return {"events": self._written + self._reasons.total(), "written": self._written} | {
                "reasons": dict(self._reasons)
            }

    def close(self) -> None:
        """Ends the events that are still in progress, and closes the file. The queue is closed by its owner."""
        self._write_lines()
        with self._lock:
            for opinion in [*self._opinions.values()]:
                self._end(opinion)
        self._write_lines()
        if self._lines is not None:
            try:
                self._lines.close()
            except OSError as error:
                raise cannot_write(self._path, error) from error
