"""Frames of a recording, a video or a folder of pictures, for the labelling page.

The source is read once. Of a long source some frames stay, spread over its length: when there are too many, of each two
neighbours the more uncertain one stays. They are stored as JPEG, at most 160 MB.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from sagelink.models.apply_head import edge_with_head
from sagelink.models.head import Head
from sagelink.models.loading import Model
from sagelink.models.model_contract import is_imagenet
from sagelink.models.preprocess import Resize
from sagelink.monitor.label_folder import FrameKey
from sagelink.monitor.recent_frames import StoredFrame, full_jpeg, group_of
from sagelink.monitor.uncertainty import Candidate, Ranked, rank, unit_token
from sagelink.pipeline.camera_config import CameraConfig
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.output_files import is_recording
from sagelink.pipeline.types import Frame, Pixels, Scored
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.score import Score
from sagelink.stages.sources.open import open_source

log = logging.getLogger(__name__)

MAX_FRAMES = 480
_MAX_BYTES = 160_000_000
_BATCH = 8
_VIDEO_EVERY_S = 0.2  # frames of a video that are nearer to each other add nothing


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """A frame, and whether edge and server disagreed on it in the recorded run."""

    frame: Frame
    disagreement: bool = False


class FrameReader(Protocol):
    """Reads a source once. Raises SagelinkError."""

    length: int | None  # number of frames; None where unknown

    def __iter__(self) -> Iterator[RecordedFrame]: ...


class RecordingFrames:
    """The frames of all cameras of a recording."""

    def __init__(self, folder: Path) -> None:
        self._recording = RecordingReader(folder)
        self.length: int | None = len(self._recording.rows)

    def __iter__(self) -> Iterator[RecordedFrame]:
        for camera, rows in self._recording.cameras().items():
            for row, pixels in zip(rows, self._recording.pictures(camera), strict=False):
                verdict = row["verdict"]
                edge, server = verdict["edge"], verdict["server"]
                differ = bool(edge and server and edge["class_id"] != server["class_id"])
                frame = Frame(verdict["seq"], camera, 0, row["stream_s"], pixels, 0.0, name=verdict["name"])
                yield RecordedFrame(frame, differ)


class SourceFrames:
    """The frames of a video or of a folder of pictures."""

    def __init__(self, path: Path) -> None:
        self._source = open_source(CameraConfig(name="camera", source=str(path)))
        self._name = path.stem if not path.is_dir() else "picture"
        self.length = self._source.length

    def __iter__(self) -> Iterator[RecordedFrame]:
        due_s = 0.0
        try:
            for seq, picture in enumerate(self._source):
                if self._source.video:
                    if picture.stream_s < due_s:
                        continue
                    due_s = picture.stream_s + _VIDEO_EVERY_S
                yield RecordedFrame(Frame(seq, self._name, 0, picture.stream_s, picture.pixels, 0.0, name=picture.name))
        finally:
            self._source.close()


def open_frames(path: Path) -> FrameReader:
    """Raises UsageError for what is no recording, video or folder of pictures."""
    if is_recording(path):
        return RecordingFrames(path)
    return SourceFrames(path)


class RecordedFrames:
    """The stored frames. It is also the `HeadsInUse` of the page: a new head scores the stored frames again."""

    live = False

    def __init__(self, reader: FrameReader, edge: Model, resize: Resize, max_frames: int = MAX_FRAMES) -> None:
        self._reader = reader
        self._resize: Resize = resize
        self._max_frames = max_frames
        self._edges = [edge]  # the model in use is the last, with the one before it
        self._lock = threading.Lock()
        self._frames: list[StoredFrame] = []
        self._labelled: set[FrameKey] = set()
        self._progress: tuple[int, int] | None = (0, reader.length or 0)
        self._closed = threading.Event()
        self._work = threading.Event()
        self._rescore = False
        self.fault: str | None = None
        self.version = 0

    def begin(self) -> None:
        threading.Thread(target=self._run, name="sagelink-label", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._work.set()

    # ---- the frames ----

    def get(self, key: FrameKey) -> StoredFrame | None:
        with self._lock:
            return next((each for each in self._frames if each.candidate.frame == key), None)

    def hold(self, key: FrameKey) -> None:
        """All frames stay."""

    def keys(self) -> list[FrameKey]:
        with self._lock:
            return [each.candidate.frame for each in self._frames]

    def progress(self) -> tuple[int, int] | None:
        return self._progress

    def mark_done(self, keys: Iterable[FrameKey]) -> None:
        with self._lock:
            self._labelled = {*keys}
            self.version += 1

    def uncertain(self, count: int) -> list[Ranked]:
        with self._lock:
            candidates = [each.candidate for each in self._frames]
            labelled = set(self._labelled)
        known = [each.token for each in candidates if each.frame in labelled and each.token is not None]
        return rank([each for each in candidates if each.frame not in labelled], known, count)

    # ---- the heads ----

    @property
    def cameras(self) -> list[str]:
        return ["camera"]

    def head(self, camera: str) -> Head | None:
        return self._edges[-1].head

    def swap(self, camera: str | None, head: Head) -> None:
        self._edges = [self._edges[-1], edge_with_head(head, self._edges[-1])]
        self._score_again()

    def restore(self, camera: str | None) -> None:
        if not self.can_restore():
            raise UsageError("there is no earlier head to go back to")
        self._edges = self._edges[:1]
        self._score_again()

    def can_restore(self) -> bool:
        return len(self._edges) > 1

    def _score_again(self) -> None:
        self._rescore = True
        self._work.set()

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._read()
        except SagelinkError as error:
            self.fault = str(error)
            log.warning("event=source_unreadable error=%r", self.fault)
        self._progress = None
        while not self._closed.is_set():
            self._work.wait()
            self._work.clear()
            if self._rescore and not self._closed.is_set():
                self._rescore = False
                self._score_stored()
            self._progress = None

    def _read(self) -> None:
        batch: list[RecordedFrame] = []
        done = 0
        for each in self._reader:
            done = each.frame.seq + 1 if self._reader.length is not None else done + 1
            batch.append(each)
            if len(batch) == _BATCH:
                self._add(batch)
                batch = []
                self._progress = (done, self._reader.length or 0)
            if self._closed.is_set():
                return
        if batch:
            self._add(batch)

    def _score_stored(self) -> None:
        with self._lock:
            stored = [*self._frames]
        for start in range(0, len(stored), _BATCH):
            if self._closed.is_set() or self._rescore:
                self._work.set()
                return
            part = stored[start : start + _BATCH]
            frames = [Frame(*_swapped(each.candidate.frame), 0, 0.0, _pixels(each.jpeg), 0.0) for each in part]
            scored = self._score(frames)
            fresh = {
                each.candidate.frame: replace(each, candidate=self._candidate(result, each.candidate.disagreement))
                for each, result in zip(part, scored, strict=True)
            }
            with self._lock:
                self._frames = [fresh.get(each.candidate.frame, each) for each in self._frames]
                self.version += 1
            self._progress = (start + len(part), len(stored))

    def _add(self, batch: Sequence[RecordedFrame]) -> None:
        scored = self._score([each.frame for each in batch])
        stored = [
            StoredFrame(
                self._candidate(result, each.disagreement),
                full_jpeg(each.frame.pixels),
                group_of(each.frame),
                each.frame.name or _time(each.frame.stream_s),
            )
            for each, result in zip(batch, scored, strict=True)
        ]
        with self._lock:
            self._frames += stored
            while len(self._frames) > self._max_frames or sum(each.size_bytes for each in self._frames) > _MAX_BYTES:
                self._frames = thinned(self._frames, self._labelled)
            self.version += 1

    def _score(self, frames: Sequence[Frame]) -> list[Scored]:
        edge = self._edges[-1]
        return Score(edge, edge.grid, "last", self._resize)(frames)

    def _candidate(self, scored: Scored, disagreement: bool) -> Candidate:
        edge, answer = self._edges[-1], scored.answer
        own = not is_imagenet(edge)
        order = answer.log_probs.argsort()[::-1]
        probs = np.exp(answer.log_probs[order[:2]].astype(np.float64))
        label = edge.labels[order[0]] if own else None
        return Candidate(
            frame=FrameKey(scored.frame.camera, scored.frame.seq),
            token=unit_token(scored.edge_view.class_token),
            label="unknown" if scored.unknown else label,
            prob=answer.prob,
            second=edge.labels[order[1]] if own and len(order) > 1 else None,
            margin=float(probs[0] - probs[-1]) if own and len(order) > 1 else None,
            disagreement=disagreement,
            unknown=scored.unknown,
        )


def thinned(frames: Sequence[StoredFrame], spared: set[FrameKey]) -> list[StoredFrame]:
    """Of each two neighbours the more uncertain one; frames in `spared` stay."""
    kept: list[StoredFrame] = []
    for start in range(0, len(frames), 2):
        pair = frames[start : start + 2]
        named = [each for each in pair if each.candidate.frame in spared]
        kept += named or [max(pair, key=lambda each: _doubt(each.candidate))]
    if len(kept) == len(frames):  # all have a label
        return [*frames[1:]]
    return kept


def _doubt(each: Candidate) -> float:
    return 2.0 * each.unknown + each.disagreement + (0.0 if each.margin is None else 1 - each.margin)


def _swapped(key: FrameKey) -> tuple[int, str]:
    return key.seq, key.camera


def _pixels(jpeg: bytes) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "a JPEG that was coded here can be decoded"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _time(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
