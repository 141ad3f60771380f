"""The feed: the last verdicts of a run, for viewers that come, go, and may be slow.

It is a ring with a number for each verdict. A viewer keeps its own place and reads on from there, so nothing is ever
queued for anybody: who is too slow finds that the ring has moved on. Writing costs some tens of microseconds; no
picture is coded before somebody asks for it.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import WHOLE, Box, Pixels, Verdict
from sagelink.stages.sinks.jsonl import record

KEEP_EVENTS = 1200
_KEEP_BYTES = 24_000_000  # of pictures and messages


@dataclass(frozen=True, slots=True)
class Moment:
    """What can still be shown of a frame: no more of it is kept alive."""

    number: int
    event: str  # JSON
    picture: Pixels | None  # (S, S, 3), what both models see; None where it was never scored
    importance: NDArray[np.float32] | None  # (N,)
    box: Box  # of that picture, in shares: where what was sent lies
    message: bytes | None  # what was sent

    @property
    def size_bytes(self) -> int:
        return (0 if self.picture is None else self.picture.nbytes) + len(self.message or b"")


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """Events for a viewer, and its next place."""

    events: list[str]  # JSON
    next: int
    missed: int  # verdicts that left the ring before this viewer came for them


class VerdictFeed:
    """A sink. Written in one thread, read from others."""

    def __init__(self, labels: tuple[str, ...], live: bool, own_budget_cameras: Collection[str] = ()) -> None:
        """`live`: the chart's time is the machine's, else the stream's own; `own_budget_cameras`: cameras with a budget of their
        own, which are not in the chart's window.
        """
        self._own_budget_cameras = own_budget_cameras
        self._labels = labels
        self._live = live
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._events: deque[str] = deque(maxlen=KEEP_EVENTS)
        self._moments: dict[int, Moment] = {}
        self._moment_bytes = 0
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
            event = json.dumps(line | extra, separators=(",", ":"))
            scored = verdict.scored
            moment = Moment(
                number,
                event,
                scored.picture if scored else None,
                scored.importance if scored else None,
                _within(verdict.crop, scored.edge_view.crop) if scored else WHOLE,
                verdict.message,
            )
            self._events.append(event)
            self._moments[number] = moment
            self._moment_bytes += moment.size_bytes
            while self._moment_bytes > _KEEP_BYTES or len(self._moments) > KEEP_EVENTS:
                oldest = self._moments.pop(next(iter(self._moments)))
                self._moment_bytes -= oldest.size_bytes
            self._latest[verdict.frame.camera] = (number, verdict)
            self._count += 1

    def close(self) -> None:
        pass

    def since(self, place: int, most: int) -> FeedUpdate:
        """Up to `most` events from `place` on, oldest first. A negative place counts back from the newest."""
        with self._lock:
            first = self._count - len(self._events)
            wanted = self._count + place if place < 0 else place
            begin = max(first, wanted)
            end = min(self._count, begin + most)
            events = [self._events[number - first] for number in range(begin, end)]
            return FeedUpdate(events, end, 0 if place < 0 else begin - wanted)

    def moment(self, number: int) -> Moment | None:
        """A frame that is still kept."""
        with self._lock:
            return self._moments.get(number)

    def latest(self) -> dict[str, tuple[int, Verdict]]:
        """The newest verdict of each camera, with its number."""
        with self._lock:
            return dict(self._latest)


def _within(inner: Box, outer: Box) -> Box:
    """A part of the view, as a part of another."""
    left, top, right, bottom = outer
    across, down = right - left, bottom - top
    return (inner[0] - left) / across, (inner[1] - top) / down, (inner[2] - left) / across, (inner[3] - top) / down
