"""Highlights: small pictures of the frames that are worth a look afterwards, for `sagelink report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.annotate import Painter

_APART_S = 1.0  # neighbours in a video look alike: one of them says enough
_LONGEST = 360  # pixels
_QUALITY = 80


def picture_name(camera: str, seq: int) -> str:
    """The file of a frame."""
    return f"{camera}-{seq:06d}.jpg"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    camera: str
    stream_s: float
    score: float


class _Best:
    """The entries of highest score, no two of one camera within _APART_S of each other."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.entries: list[_Entry] = []

    def offer(self, entry: _Entry) -> bool:
        """Takes the entry, or returns False."""
        rivals = [e for e in self.entries if e.camera == entry.camera and abs(e.stream_s - entry.stream_s) < _APART_S]
        if not rivals and len(self.entries) >= self._keep:
            rivals = [min(self.entries, key=lambda e: e.score)]
        if any(rival.score >= entry.score for rival in rivals):
            return False
        self.entries = [e for e in self.entries if e not in rivals] + [entry]
        return True


class Highlights:
    """Keeps the frames that cost most and those least certain, as JPEG files with the sent units outlined.

    A file is written when its frame comes among the best and removed when better ones have come, so the folder is right
    at any time, also after a run that was killed.
    """

    def __init__(self, folder: Path, painter: Painter, keep: int) -> None:
        """`keep`: frames of each kind. The folder is made, and emptied of an earlier run's pictures."""
        self._folder = folder
        self._painter = painter
        self._dearest, self._unsure = _Best(keep), _Best(keep)
        self._written: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.jpg"):
            stale.unlink()

    def write(self, verdict: Verdict) -> None:
        frame = verdict.frame
        name = picture_name(frame.camera, frame.seq)
        taken = False
        if verdict.wire_bits:
            taken |= self._dearest.offer(_Entry(name, frame.camera, frame.stream_s, float(verdict.wire_bits)))
        if verdict.answer is not None:
            taken |= self._unsure.offer(_Entry(name, frame.camera, frame.stream_s, -verdict.answer.prob))
        if not taken:
            return
        picture = self._painter.outlined(verdict, longest=_LONGEST)
        ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        assert ok, "a JPEG of an uint8 picture always can be made"
        (self._folder / name).write_bytes(data.tobytes())
        self._written.add(name)
        for gone in self._written - {entry.name for entry in self._dearest.entries + self._unsure.entries}:
            (self._folder / gone).unlink(missing_ok=True)
            self._written.discard(gone)

    def close(self) -> None:
        pass
