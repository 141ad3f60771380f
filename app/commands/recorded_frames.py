"""Frames of a recording, a video or a folder of pictures, for the labelling page.

The source is read once. Of a long source some frames stay, spread over its length: when there are too many, of each two
neighbours the more uncertain one stays. They are stored as JPEG, at most 160 MB.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from sagelink.app.edge.further_heads import FurtherHeads
from sagelink.models.heads.apply import check_side, edge_with_head
from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head
from sagelink.models.loading import Model
from sagelink.models.model_contract import is_imagenet
from sagelink.models.preprocess import Resize
from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.recent_frames import candidate_of, full_jpeg, further_candidate, group_of
from sagelink.monitor.labelling.uncertainty import Candidate, unit_token
from sagelink.monitor.labelling.view import FIRST_HEAD, LabelView, StoredFrame
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import is_recording
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
    """A frame, and the heads for which edge and server disagreed on it in the recorded run."""

    frame: Frame
    disagreement: frozenset[str] = frozenset()


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
                answers = {FIRST_HEAD: verdict, **verdict.get("heads", {})}
                differ = frozenset(name for name, answer in answers.items() if _differ(answer))
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
    """The stored frames, and the heads that score them: with a new head, all stored frames are scored again."""

    live = False

    def __init__(
        self,
        reader: FrameReader,
        edge: Model,
        resize: Resize,
        max_frames: int = MAX_FRAMES,
        further: Sequence[NamedHead] = (),
    ) -> None:
        """`edge`: with the classes of the first head, if there is one. `further`: heads that answer besides it."""
        self._reader = reader
        self._resize: Resize = resize
        self._max_frames = max_frames
        self._edges = [edge]  # the model in use is the last, with the one before it
        self.further = FurtherHeads(further)
        self._views: dict[str, LabelView] = {}
        self._lock = threading.Lock()
        self._frames: list[StoredFrame] = []
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
            return next((each for each in self._frames if each.key == key), None)

    def hold(self, key: FrameKey) -> None:
        """All frames stay."""

    def keys(self) -> list[FrameKey]:
        with self._lock:
            return [each.key for each in self._frames]

    def progress(self) -> tuple[int, int] | None:
        return self._progress

    def view(self, head: str = FIRST_HEAD) -> LabelView:
        """The frames for the labels of a head."""
        return self._views.setdefault(head, LabelView(self, head))

    def to_label(self) -> list[StoredFrame]:
        with self._lock:
            return [*self._frames]

    # ---- the heads ----

    def head(self) -> Head | None:
        return self._edges[-1].head

    def swap(self, head: Head) -> None:
        self._edges = [self._edges[-1], edge_with_head(head, self._edges[-1])]
        self._score_again()

    def swap_further(self, name: str, head: Head) -> None:
        check_side(head.edge, self._edges[-1], "edge")
        self.further.replace(name, head)
        self._score_again()

    def restore_further(self, name: str) -> None:
        self.further.restore(name)
        self._score_again()

    def restore(self) -> None:
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
            frames = [Frame(*_swapped(each.key), 0, 0.0, _pixels(each.jpeg), 0.0) for each in part]
            scored = self._score(frames)
            fresh = {
                each.key: replace(each, candidates=self._candidates(result, _disagreement(each)))
                for each, result in zip(part, scored, strict=True)
            }
            with self._lock:
                self._frames = [fresh.get(each.key, each) for each in self._frames]
                self.version += 1
            self._progress = (start + len(part), len(stored))

    def _add(self, batch: Sequence[RecordedFrame]) -> None:
        scored = self._score([each.frame for each in batch])
        stored = [
            StoredFrame(
                self._candidates(result, each.disagreement),
                full_jpeg(each.frame.pixels),
                group_of(each.frame),
                each.frame.name or _time(each.frame.stream_s),
            )
            for each, result in zip(batch, scored, strict=True)
        ]
        labelled = {key for view in [*self._views.values()] for key in view.labelled}
        with self._lock:
            self._frames += stored
            while len(self._frames) > self._max_frames or sum(each.size_bytes for each in self._frames) > _MAX_BYTES:
                self._frames = thinned(self._frames, labelled)
            self.version += 1

    def _score(self, frames: Sequence[Frame]) -> list[Scored]:
        edge = self._edges[-1]
        further = self.further.current()
        return Score(edge, edge.grid, "last", self._resize, further=lambda frame: further)(frames)

    def _candidates(self, scored: Scored, disagreement: frozenset[str]) -> dict[str, Candidate]:
        edge = self._edges[-1]
        key, token = FrameKey(scored.frame.camera, scored.frame.seq), unit_token(scored.edge_view.class_token)
        labels = None if is_imagenet(edge) else edge.labels
        first = candidate_of(key, token, labels, scored.answer, scored.unknown, FIRST_HEAD in disagreement)
        further = {each.head: further_candidate(key, token, each, each.head in disagreement) for each in scored.further}
        return {FIRST_HEAD: first, **further}


def thinned(frames: Sequence[StoredFrame], spared: set[FrameKey]) -> list[StoredFrame]:
    """Of each two neighbours the more uncertain one; frames in `spared` stay."""
    kept: list[StoredFrame] = []
    for start in range(0, len(frames), 2):
        pair = frames[start : start + 2]
        named = [each for each in pair if each.key in spared]
        kept += named or [max(pair, key=lambda each: max(map(_doubt, each.candidates.values())))]
    if len(kept) == len(frames):  # all have a label
        return [*frames[1:]]
    return kept


def _doubt(each: Candidate) -> float:
    return 2.0 * each.unknown + each.disagreement + (0.0 if each.margin is None else 1 - each.margin)


def _differ(answer: Mapping[str, Any]) -> bool:
    """Whether edge and server name different classes, in a recorded verdict or answer by a further head."""
    edge, server = answer["edge"], answer["server"]
    return bool(edge and server and edge["class_id"] != server["class_id"])


def _disagreement(frame: StoredFrame) -> frozenset[str]:
    return frozenset(name for name, each in frame.candidates.items() if each.disagreement)


def _swapped(key: FrameKey) -> tuple[int, str]:
    return key.seq, key.camera


def _pixels(jpeg: bytes) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "a JPEG that was coded here can be decoded"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _time(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
