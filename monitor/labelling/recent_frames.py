"""Stores recent full frames of a run as JPEG, so that a frame that a person saw can still be labelled.

Two parts, 64 MB together. `shown` holds each frame that a page has shown; the oldest leaves first. `sampled` holds a
frame of each camera twice per second; the oldest leaves first, but the frames at the top of the list of uncertain ones
stay. Coding takes 13 ms for a frame of 1920x1080, in the thread of the dashboard.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.uncertainty import Candidate, unit_token
from sagelink.monitor.labelling.view import FIRST_HEAD, LabelView, StoredFrame
from sagelink.monitor.previews import jpeg
from sagelink.pipeline.answers import Answer, HeadAnswer
from sagelink.pipeline.types import Frame, Pixels, Verdict

MAX_BYTES = 64_000_000
MAX_SIDE = 1920  # pixels: larger frames are scaled down
_QUALITY = 92
_SHOWN_SHARE = 0.35  # of MAX_BYTES
_SAMPLE_EVERY_S = 0.5
_SAMPLES_PER_S = 4  # of all cameras together
_GROUP_S = 60  # labelled frames of one minute of a camera are one group for `sagelink teach`


class FrameRing:
    """Frames up to a number of bytes; the oldest frame that is not spared leaves first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: dict[FrameKey, StoredFrame] = {}
        self._bytes = 0

    def __contains__(self, key: FrameKey) -> bool:
        return key in self._frames

    def get(self, key: FrameKey) -> StoredFrame | None:
        return self._frames.get(key)

    def frames(self) -> list[StoredFrame]:
        return [*self._frames.values()]

    @property
    def full(self) -> bool:
        return self._bytes > self._max_bytes

    def add(self, frame: StoredFrame) -> None:
        key = frame.key
        if old := self._frames.pop(key, None):
            self._bytes -= old.size_bytes
        self._frames[key] = frame
        self._bytes += frame.size_bytes

    def shrink(self, spared: Iterable[FrameKey] = ()) -> None:
        kept = set(spared)
        for key in [key for key in self._frames if key not in kept] + [key for key in self._frames if key in kept]:
            if not self.full:
                return
            self._bytes -= self._frames.pop(key).size_bytes


class RecentFrames:
    """The stored frames of a run. `keep` and `sample` code pictures: they run in the dashboard's thread."""

    live = True  # new frames arrive all the time
    fault: str | None = None

    def __init__(
        self,
        labels: Callable[[Verdict], tuple[str, ...] | None],
        max_bytes: int = MAX_BYTES,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`labels`: the user's classes of a verdict by class id; None where the classes are not the user's own."""
        self._labels = labels
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._shown = FrameRing(int(max_bytes * _SHOWN_SHARE))
        self._sampled = FrameRing(max_bytes - int(max_bytes * _SHOWN_SHARE))
        self._due_s: dict[str, float] = {}
        self._views: dict[str, LabelView] = {}
        self.version = 0

    def view(self, head: str = FIRST_HEAD) -> LabelView:
        """The frames for the labels of a head."""
        return self._views.setdefault(head, LabelView(self, head))

    def get(self, key: FrameKey) -> StoredFrame | None:
        with self._lock:
            return self._sampled.get(key) or self._shown.get(key)

    def keys(self) -> list[FrameKey]:
        with self._lock:
            frames = [frame for ring in (self._shown, self._sampled) for frame in ring.frames()]
        return [*dict.fromkeys(frame.key for frame in frames)]

    def progress(self) -> None:
        """There is no end of the frames of a run."""
        return None

    def hold(self, key: FrameKey) -> None:
        """A frame that somebody looks at moves to where frames stay longer."""
        with self._lock:
            frame = self._shown.get(key)
            if frame is not None and key not in self._sampled:
                self._sampled.add(frame)
                self._sampled.shrink([key])

    def keep(self, verdict: Verdict) -> None:
        """Stores a frame that a page shows."""
        key = FrameKey(verdict.frame.camera, verdict.frame.seq)
        if self.get(key) is None:
            self._store(self._shown, verdict, ())

    def sample(self, latest: Iterable[Verdict]) -> None:
        """Stores the frames that are due, of the newest verdicts of all cameras."""
        now_s = self._clock_s()
        due = [each for each in latest if self._due_s.get(each.frame.camera, 0.0) <= now_s]
        due.sort(key=lambda verdict: self._due_s.get(verdict.frame.camera, 0.0))
        for verdict in due[: max(1, int(_SAMPLES_PER_S * _SAMPLE_EVERY_S))]:
            key = FrameKey(verdict.frame.camera, verdict.frame.seq)
            self._due_s[verdict.frame.camera] = now_s + _SAMPLE_EVERY_S
            with self._lock:
                known = key in self._sampled
            if not known:
                listed = [each for view in [*self._views.values()] for each in view.uncertain()]
                self._store(self._sampled, verdict, [each.candidate.frame for each in listed])

    def to_label(self) -> list[StoredFrame]:
        with self._lock:
            return self._sampled.frames()

    def _store(self, ring: FrameRing, verdict: Verdict, spared: Sequence[FrameKey]) -> None:
        frame = stored_frame(verdict, self._labels(verdict))
        with self._lock:
            ring.add(frame)
            ring.shrink(spared)
            self.version += 1


def stored_frame(verdict: Verdict, labels: tuple[str, ...] | None) -> StoredFrame:
    frame = verdict.frame
    return StoredFrame(candidates_of(verdict, labels), full_jpeg(frame.pixels), group_of(frame))


def candidates_of(verdict: Verdict, labels: tuple[str, ...] | None) -> dict[str, Candidate]:
    """By head. `labels`: the classes of the first head by class id; None where the classes are not the user's own."""
    key = FrameKey(verdict.frame.camera, verdict.frame.seq)
    token = None if verdict.scored is None else unit_token(verdict.scored.edge_view.class_token)
    edge, server = verdict.edge, verdict.server
    differ = labels is not None and bool(edge and server and edge.class_id != server.class_id)
    first = candidate_of(key, token, labels, verdict.answer, verdict.unknown, differ)
    return {FIRST_HEAD: first, **{each.head: further_candidate(key, token, each) for each in verdict.further}}


def further_candidate(
    key: FrameKey, token: NDArray[np.float32] | None, found: HeadAnswer, disagreement: bool = False
) -> Candidate:
    """`disagreement`: of an earlier run, besides that of the answer itself."""
    differ = disagreement or (found.server is not None and found.server.class_id != found.edge.class_id)
    return candidate_of(key, token, found.taught.labels, found.answer, found.unknown, differ)


def candidate_of(
    key: FrameKey,
    token: NDArray[np.float32] | None,
    labels: tuple[str, ...] | None,
    answer: Answer | None,
    unknown: bool,
    disagreement: bool,
) -> Candidate:
    """`labels`: the user's classes by class id; None where the classes are not the user's own."""
    label = second = margin = None
    if answer is not None and labels is not None:
        order = answer.log_probs.argsort()[::-1]
        label, second = labels[order[0]], labels[order[1]] if len(order) > 1 else None
        probs = [float(prob) for prob in answer.log_probs[order[:2]]]
        first, other = math.exp(probs[0]), math.exp(probs[1]) if len(probs) > 1 else 0.0
        margin = max(0.0, first - other)
    return Candidate(
        frame=key,
        token=token,
        label="unknown" if unknown else label,
        prob=0.0 if answer is None else answer.prob,
        second=second,
        margin=margin,
        disagreement=disagreement,
        unknown=unknown,
    )


def group_of(frame: Frame) -> str:
    """The minute of the source's time, or the file's own group."""
    if frame.name is not None:
        return frame.name.rpartition("/")[2].rpartition(".")[0].partition("_")[0]
    return f"m{int(frame.stream_s // _GROUP_S):03d}"


def full_jpeg(pixels: Pixels) -> bytes:
    """The frame (H, W, 3) as the camera gave it, at most MAX_SIDE pixels wide and high."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg(pixels, _QUALITY)
