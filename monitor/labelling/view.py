"""Stored frames from the view of one head: which of them have a label, and which are the most uncertain.

A camera can have several heads, each for another question. A label answers one of them, so each head has labels of its
own over the same stored frames.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.uncertainty import Candidate, Ranked, rank

FIRST_HEAD = ""  # its name among the heads of a run: the head that decides what is sent
QUEUE = 24  # length of the list of uncertain frames
_MIN_BYTES = 1000  # that a frame counts at least: bounds the number of frames
_MAX_KNOWN = 400  # labelled frames that others are compared with


@dataclass(frozen=True, slots=True, eq=False)
class StoredFrame:
    """A coded frame, with what the models said about it."""

    candidates: Mapping[str, Candidate]  # by head; at least the first one
    jpeg: bytes
    group: str  # frames of one group resemble each other
    caption: str = ""  # where the frame comes from, for people

    @property
    def key(self) -> FrameKey:
        return self.candidates[FIRST_HEAD].frame

    @property
    def size_bytes(self) -> int:
        return max(_MIN_BYTES, len(self.jpeg))


class FrameStore(Protocol):
    """Stores frames that can be labelled."""

    live: bool  # new frames arrive all the time
    fault: str | None  # why no frames come
    version: int

    def get(self, key: FrameKey) -> StoredFrame | None: ...
    def hold(self, key: FrameKey) -> None: ...
    def keys(self) -> Sequence[FrameKey]: ...
    def progress(self) -> tuple[int, int] | None: ...
    def to_label(self) -> list[StoredFrame]:
        """The frames that the list may show."""
        ...


class LabelView:
    """Thread-safe."""

    def __init__(self, store: FrameStore, head: str = FIRST_HEAD) -> None:
        self.store = store
        self._head = head
        self._lock = threading.Lock()
        self._labelled: dict[FrameKey, Candidate | None] = {}
        self._changes = 0

    @property
    def version(self) -> int:
        return self.store.version + self._changes

    @property
    def labelled(self) -> set[FrameKey]:
        with self._lock:
            return {*self._labelled}

    def mark_done(self, keys: Iterable[FrameKey]) -> None:
        """These frames have a label: they leave the list, and frames like them move down in it."""
        wanted = dict.fromkeys(keys)
        with self._lock:
            before = self._labelled
        found = {key: before.get(key) or self._candidate(self.store.get(key)) for key in wanted}
        with self._lock:
            self._labelled = found
            self._changes += 1

    def uncertain(self, count: int = QUEUE) -> list[Ranked]:
        """The frames whose labels would teach most, best first."""
        stored = {frame.key: self._candidate(frame) for frame in self.store.to_label()}
        with self._lock:
            labelled = {**self._labelled}
        free = [each for key, each in stored.items() if each is not None and key not in labelled]
        known = [each or stored.get(key) for key, each in labelled.items()]
        tokens = [each.token for each in known if each is not None and each.token is not None]
        return rank(free, tokens[-_MAX_KNOWN:], count)

    def _candidate(self, frame: StoredFrame | None) -> Candidate | None:
        """None also for a frame of a camera that does not have the head."""
        return None if frame is None else frame.candidates.get(self._head)
