"""Everything that the page needs for labels: stored frames, the folder of labels, and the function that teaches.

Plain values in and out. `LabelDesk` knows no `lab`: the application gives it a `HeadTeacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sagelink.monitor.labelling.folder import FrameKey, LabelFolder
from sagelink.monitor.labelling.uncertainty import Ranked
from sagelink.monitor.labelling.view import LabelView, StoredFrame
from sagelink.pipeline.errors import UsageError

_MAX_SEQ = 2**53
_MAX_SKIPPED = 5000


class HeadTeacher(Protocol):
    """Teaches a head from the labelled pictures, outside this process, and loads it."""

    def state(self) -> dict[str, Any]: ...
    def begin(self, without_missing: bool = False) -> None: ...
    def stop(self) -> None: ...
    def use(self) -> None: ...
    def take_back(self) -> None: ...
    def close(self) -> None: ...


class LabelDesk:
    """The methods that change something block on the disk, and raise UsageError or SagelinkError with a reason."""

    def __init__(
        self,
        frames: LabelView,
        folder: LabelFolder | None,
        known: Callable[[], Sequence[str]],
        teacher: HeadTeacher | None,
        closed: str | None = None,
    ) -> None:
        """`known`: the classes of the heads that are loaded. `closed`: why nothing can be labelled; then `folder` is
        None."""
        self.frames = frames
        self._store = frames.store
        self._folder = folder
        self.known = known
        self.teacher = teacher
        self.closed = closed
        self._ranked: tuple[tuple[int, int], list[Ranked]] = ((-1, -1), [])
        self._changes = 0
        self._skipped: dict[FrameKey, None] = {}
        if folder is not None:
            frames.mark_done([*folder.labelled()])

    @property
    def folder(self) -> LabelFolder:
        """Raises UsageError where nothing can be labelled."""
        if self._folder is None:
            raise UsageError(self.closed or "nothing can be labelled here")
        return self._folder

    def state(self) -> dict[str, Any]:
        """What the page shows, as plain JSON values; docs/dashboard.md lists the keys."""
        state: dict[str, Any] = {"closed": self.closed, "live": self._store.live, "fault": self._store.fault}
        if self._folder is None:
            return state
        last = self._folder.last
        progress = self._store.progress()
        keys = self._store.keys()
        return state | {
            "folder": str(self._folder.folder),
            "classes": [{"name": name, "pictures": count} for name, count in self.classes().items()],
            "labels": [[frame.camera, frame.seq, name] for frame, name in [*self._folder.labelled().items()][-2000:]],
            "stored": _by_camera(keys),
            "queue": [_shown(each, self._store.get(each.candidate.frame)) for each in self._queue()],
            "undo": None if last is None else {"camera": last.frame.camera, "seq": last.frame.seq, "label": last.after},
            "reading": None if progress is None else {"done": progress[0], "total": progress[1]},
            "teach": None if self.teacher is None else self.teacher.state(),
        }

    def classes(self) -> dict[str, int]:
        """Pictures by class: those of the heads that are loaded, and those of the folder."""
        return dict.fromkeys(self.known(), 0) | self.folder.counts()

    def label(self, values: Mapping[str, object]) -> None:
        """`camera`, `seq` and `label` of a frame."""
        frame, name = _frame(values.get("camera"), values.get("seq")), _name(values.get("label"))
        stored = self._store.get(frame)
        group, content = ("", None) if stored is None else (stored.group, stored.jpeg)
        self.folder.label(frame, name, group, content, self.known())
        self._changed()

    def add_class(self, values: Mapping[str, object]) -> None:
        """`name` of a class that has no picture yet."""
        self.folder.add_class(_name(values.get("name")), self.known())

    def skip(self, values: Mapping[str, object]) -> None:
        """`camera` and `seq` of a frame that leaves the list without a label."""
        self._skipped[_frame(values.get("camera"), values.get("seq"))] = None
        self._skipped = dict.fromkeys([*self._skipped][-_MAX_SKIPPED:])
        self._changed()

    def hold(self, values: Mapping[str, object]) -> None:
        """`camera` and `seq` of a frame that somebody looks at: it stays stored for some time."""
        self._store.hold(_frame(values.get("camera"), values.get("seq")))

    def undo(self) -> None:
        self.folder.undo()
        self._changed()

    def recount(self) -> None:
        """Counts the pictures again: the user may have added or removed some."""
        if self._folder is not None:
            self._folder.count()

    @property
    def is_teaching(self) -> bool:
        return self.teacher is not None and self.teacher.state()["progress"] is not None

    def teach(self, action: str, values: Mapping[str, object]) -> None:
        """`begin` (with `without_missing`: classes without a picture may vanish), `stop`, `use`, `back`."""
        if self.teacher is None:
            raise UsageError("this page cannot teach; accepted: pack the pictures, and teach on a machine that can")
        if action == "begin":
            without_missing = values.get("without_missing", False)
            if not isinstance(without_missing, bool):
                raise UsageError("without_missing: accepted: true or false")
            self.teacher.begin(without_missing)
        elif action == "stop":
            self.teacher.stop()
        elif action == "use":
            self.teacher.use()
        elif action == "back":
            self.teacher.take_back()
        else:
            raise UsageError(f"cannot {action!r}; accepted: begin, stop, use, back")

    def close(self) -> None:
        """Ends a teaching that is going on."""
        if self.teacher is not None:
            self.teacher.close()
        if self._folder is not None:
            self._folder.close()

    def _changed(self) -> None:
        self._changes += 1
        self.frames.mark_done([*self.folder.labelled(), *self._skipped])

    def _queue(self) -> list[Ranked]:
        version = (self.frames.version, self._changes)
        if self._ranked[0] != version:
            self._ranked = version, self.frames.uncertain()
        return self._ranked[1]


def _shown(each: Ranked, stored: StoredFrame | None) -> dict[str, Any]:
    candidate = each.candidate
    return {
        "camera": candidate.frame.camera,
        "seq": candidate.frame.seq,
        "label": candidate.label,
        "prob": round(candidate.prob, 4),
        "second": candidate.second,
        "reasons": each.reasons,
        "score": each.score,
        "caption": "" if stored is None else stored.caption,
    }


def _by_camera(keys: Sequence[FrameKey]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key in keys:
        found.setdefault(key.camera, []).append(key.seq)
    return found


def _frame(camera: object, seq: object) -> FrameKey:
    if not isinstance(camera, str) or not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < _MAX_SEQ:
        raise UsageError("accepted: the camera's name as text, and the frame's seq as a whole number")
    return FrameKey(camera, seq)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError("accepted: the name of a class as text")
    return value.strip()
