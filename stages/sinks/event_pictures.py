"""Keeps the best frame of each event as a JPEG file, and deletes old files.

A sink that gets each verdict before the sink that finds the events, and then takes their actions.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import make_private_folder, replacing
from sagelink.pipeline.quantities import RetentionLimit
from sagelink.pipeline.types import Pixels, Verdict
from sagelink.stages.event_rules import EventAction
from sagelink.stages.small_pictures import reduced

_MAX_SIDE = 960  # pixels
_QUALITY = 85
_CANDIDATES = 6  # frames of a camera that may be the best of an event
_CHECK_EVERY_S = 60.0
_OURS = re.compile(r".+-[0-9a-f]+-\d+-[0-9a-f]{8}(-\d+)?\.jpg")  # see `Event.id`


def picture_path(folder: Path, event_id: str) -> Path | None:
    """The picture of an event; None for an id that no event can have."""
    name = f"{event_id}.jpg"
    return folder / name if _OURS.fullmatch(name) and "/" not in name and "\0" not in name else None


@dataclass(frozen=True, slots=True)
class _Candidate:
    seq: int
    label: str | None
    prob: float
    picture: Pixels


class EventPictures:
    """A PendingSink and an EventReceiver."""

    def __init__(
        self,
        folder: Path,
        labels: tuple[str, ...],
        keep: RetentionLimit,
        keeper: DiskKeeper | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """`keeper`: makes room on a full disk. `clock_s`: time of day, as of the files. Raises OSError."""
        self._keeper = keeper
        self._folder = folder
        self._labels = labels
        self._keep = keep
        self._clock_s = clock_s
        self._candidates: dict[str, list[_Candidate]] = defaultdict(list)  # by camera, oldest first
        self._checked_s = -1.0
        self._sizes = {path.name: path.stat().st_size for path in self._files()}  # oldest first
        self._delete_old()

    def show_pending(self, verdict: Verdict) -> None:
        self._offer(verdict)

    def write(self, verdict: Verdict) -> None:
        self._offer(verdict)
        if abs(self._clock_s() - self._checked_s) > _CHECK_EVERY_S:
            self._delete_old()

    def _offer(self, verdict: Verdict) -> None:
        """Stores a frame as long as no later frame with its label is better: it may be the best of a row that begins
        with it."""
        answer = verdict.answer
        if answer is None or verdict.frame.private:
            return
        frame, label = verdict.frame, verdict.label(self._labels)
        known = self._candidates[frame.camera]
        same = next((each for each in known if each.seq == frame.seq), None)
        new = _Candidate(frame.seq, label, answer.prob, same.picture if same else reduced(frame.pixels, _MAX_SIDE))
        rest = [each for each in known if each.seq != new.seq and not _is_beaten(each, new)]
        self._candidates[frame.camera] = [*rest, new][-_CANDIDATES:]

    def take(self, action: EventAction) -> None:
        event = action.event
        path = picture_path(self._folder, event.id)
        if path is None or action.action == "close":
            return
        try:
            if action.action == "withdraw":
                path.unlink(missing_ok=True)
                self._sizes.pop(path.name, None)
                return
            candidates = self._candidates[event.camera]
            if event.source_event is not None:  # other frames may show another object
                candidates = [each for each in candidates if each.seq == event.best_seq]
            if candidates:
                # A provisional verdict on a later frame may have taken the place of the best one.
                best = min(candidates, key=lambda each: (each.label != event.label, abs(each.seq - event.best_seq)))
                self._save(path, best.picture)
        except OSError as error:
            raise cannot_write(path, error) from error

    def close(self) -> None:
        self._candidates.clear()

    def _save(self, path: Path, picture: Pixels) -> None:
        coded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        ok, data = cv2.imencode(".jpg", coded, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        assert ok, "a JPEG of an uint8 picture can always be encoded"
        if self._keeper is None:
            _write(path, data.tobytes())
        elif not self._keeper.attempt(lambda: _write(path, data.tobytes())):
            return
        self._sizes.pop(path.name, None)
        self._sizes[path.name] = len(data)
        self._delete_old()

    def _files(self) -> list[Path]:
        """Our files, oldest first."""
        if not self._folder.exists():
            return []
        files = [path for path in self._folder.iterdir() if _OURS.fullmatch(path.name) and path.is_file()]
        return sorted(files, key=lambda path: path.stat().st_mtime)

    def _delete_old(self) -> None:
        """Deletes the files that are too old, and the oldest beyond the size; the newest stays."""
        self._checked_s = self._clock_s()
        total = sum(self._sizes.values())
        for name in [*self._sizes][:-1]:
            path = self._folder / name
            too_old = self._keep.age_s is not None and _mtime_s(path) < self._checked_s - self._keep.age_s
            if not too_old and (self._keep.size_bytes is None or total <= self._keep.size_bytes):
                return
            path.unlink(missing_ok=True)
            total -= self._sizes.pop(name)


def _write(path: Path, data: bytes) -> None:
    make_private_folder(path.parent)
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def _is_beaten(known: _Candidate, new: _Candidate) -> bool:
    return known.seq < new.seq and known.label == new.label and known.prob < new.prob


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
