"""Ring buffer of the last verdicts of a run, numbered, for dashboard viewers that connect, leave and may be slow.

Each viewer remembers the number of its next verdict and reads from there, so there is no queue per viewer: a slow one
misses verdicts that have left the ring. Writing takes some tens of microseconds; a picture is encoded only on request.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.types import WHOLE, Box, Pixels, Verdict
from sagelink.stages.sinks.jsonl import record

MAX_EVENTS = 1200
MAX_BYTES = 24_000_000


@dataclass(frozen=True, slots=True)
class FrameDetails:
    """The details of one frame that the dashboard can show; the rest of the verdict is released."""

    number: int
    event: str  # JSON
    picture: Pixels | None  # (S, S, 3) RGB, input of both models; None where the frame was never scored
    importance: NDArray[np.float32] | None  # (N,), per unit
    box: Box  # the sent crop, as shares of that picture
    message: bytes | None  # the evidence message that was sent

    @property
    def size_bytes(self) -> int:
        return (0 if self.picture is None else self.picture.nbytes) + len(self.message or b"")


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """Events for a viewer, and the number to read from next."""

    events: list[str]  # JSON
    next: int
    missed: int  # verdicts that left the ring before this viewer read them


class VerdictFeed:
    """A sink, written by one thread and read by others."""

    def __init__(
        self,
        labels: tuple[str, ...],
        live: bool,
        own_budget_cameras: Collection[str] = (),
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Takes class names by class id.

        `live`: the chart shows the machine's time, else the stream's time. `own_budget_cameras`: cameras with their own
        budget; the chart of the shared window leaves them out. `max_events`: size of the ring; `max_bytes`: of its
        pictures and messages together.
        """
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._own_budget_cameras = own_budget_cameras
        self._labels = labels
        self._live = live
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._events: deque[str] = deque(maxlen=max_events)
        self._details: dict[int, FrameDetails] = {}
        self._details_bytes = 0
        self._latest: dict[str, tuple[int, Verdict]] = {}
        self._count = 0
        self._time_s = 0.0

    def write(self, verdict: Verdict) -> None:
        now_s = time.monotonic() - self._began_s if self._live else verdict.frame.stream_s
        line = record(verdict, self._labels)
        truth = verdict.frame.truth
        with self._lock:
            self._time_s = max(self._time_s, now_s)
            number = self._count
            extra = {
                "n": number,
                "t": round(self._time_s, 4),
                "truth": None if truth is None else self._labels[truth],
                "asked": verdict.window_bits is not None and verdict.frame.camera not in self._own_budget_cameras,
            }
            event = to_json(line | extra, compact=True)
            scored = verdict.scored
            details = FrameDetails(
                number,
                event,
                scored.picture if scored else None,
                scored.importance if scored else None,
                _within(verdict.crop, scored.edge_view.crop) if scored else WHOLE,
                verdict.message,
            )
            self._events.append(event)
            self._details[number] = details
            self._details_bytes += details.size_bytes
            while self._details_bytes > self._max_bytes or len(self._details) > self._max_events:
                oldest = self._details.pop(next(iter(self._details)))
                self._details_bytes -= oldest.size_bytes
            self._latest[verdict.frame.camera] = (number, verdict)
            self._count += 1

    def close(self) -> None:
        pass

    def since(self, start: int, limit: int) -> FeedUpdate:
        """Up to `limit` events from number `start` on, oldest first. A negative `start` counts back from the newest."""
        with self._lock:
            first = self._count - len(self._events)
            wanted = self._count + start if start < 0 else start
            begin = max(first, wanted)
            end = min(self._count, begin + limit)
            events = [self._events[number - first] for number in range(begin, end)]
            return FeedUpdate(events, end, 0 if start < 0 else begin - wanted)

    def details(self, number: int) -> FrameDetails | None:
        """The details of a frame; None when it has left the ring."""
        with self._lock:
            return self._details.get(number)

    def latest(self) -> dict[str, tuple[int, Verdict]]:
        """The newest verdict of each camera, with its number, by camera name."""
        with self._lock:
            return dict(self._latest)


def _within(inner: Box, outer: Box) -> Box:
    """The box `inner`, given in shares of the whole view, as shares of the box `outer`."""
    left, top, right, bottom = outer
    width, height = right - left, bottom - top
    return (inner[0] - left) / width, (inner[1] - top) / height, (inner[2] - left) / width, (inner[3] - top) / height
