"""Saves small pictures of the most expensive and the least certain frames of a run, for `sagelink report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from sagelink.pipeline.files.private_files import write_new
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.annotate import Painter

_MIN_DISTANCE_S = 1.0  # of two saved frames of a camera: neighbours in a video look alike
_MAX_SIDE = 360  # pixels
_QUALITY = 80


def picture_name(camera: str, seq: int) -> str:
    """File name of the picture of a frame."""
    return f"{camera}-{seq:06d}.jpg"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    camera: str
    stream_s: float
    score: float


class _Best:
    """The entries with the highest scores, at least _MIN_DISTANCE_S apart within a camera."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.entries: list[_Entry] = []

    def offer(self, entry: _Entry) -> bool:
        """Takes the entry if it is among the best; returns whether it is."""
        rivals = [
            e for e in self.entries if e.camera == entry.camera and abs(e.stream_s - entry.stream_s) < _MIN_DISTANCE_S
        ]
        if not rivals and len(self.entries) >= self._size:
            rivals = [min(self.entries, key=lambda e: e.score)]
        if any(rival.score >= entry.score for rival in rivals):
            return False
        self.entries = [e for e in self.entries if e not in rivals] + [entry]
        return True


class Highlights:
    """A sink that saves the most expensive and the least certain frames, as JPEG files with the sent units outlined.

    A file is written when its frame is among the best so far, and deleted when better ones replace it. So the folder is
    right at any time, also after a run that was killed.
    """

    def __init__(self, folder: Path, painter: Painter, keep: int) -> None:
        """`folder`: a new one. `keep`: number of frames of each kind."""
        self._folder = folder
        self._painter = painter
        self._costly, self._unsure = _Best(keep), _Best(keep)
        self._written: set[str] = set()
        folder.mkdir(0o700)

    def write(self, verdict: Verdict) -> None:
        frame = verdict.frame
        name = picture_name(frame.camera, frame.seq)
        selected = False
        if verdict.wire_bits:
            selected |= self._costly.offer(_Entry(name, frame.camera, frame.stream_s, float(verdict.wire_bits)))
        if verdict.answer is not None:
            selected |= self._unsure.offer(_Entry(name, frame.camera, frame.stream_s, -verdict.answer.prob))
        if not selected:
            return
        picture = self._painter.outlined(verdict, max_side=_MAX_SIDE)
        ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        assert ok, "a JPEG of an uint8 picture can always be encoded"
        write_new(self._folder / name, data.tobytes())
        self._written.add(name)
        for replaced in self._written - {entry.name for entry in self._costly.entries + self._unsure.entries}:
            (self._folder / replaced).unlink(missing_ok=True)
            self._written.discard(replaced)

    def close(self) -> None:
        pass
