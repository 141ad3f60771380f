"""Folder of labelled pictures: one folder a class, as `sagelink teach` reads it, and a ledger that makes undo possible.

    labels/
      gate-open/   camera-20261129T0643-m003_00123.jpg      the part before `_` is the group: camera, session, minute
      .sagelink-labels/ledger.jsonl                         one line a change, see `_change`

Only files of the ledger are ever moved or deleted, and only while their content is what was written. A picture is
written before its line: after a kill, a picture may lack its line, but no line lacks its picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from sagelink.models.heads.head import MAX_CLASSES, fault_of_names
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.output_files import cannot_open, cannot_write, check_writable
from sagelink.pipeline.files.private_files import lock, make_private_folder, open_appending, write_new
from sagelink.stages.sources.image_file import SUFFIXES

STATE = ".sagelink-labels"  # folder for what is not a class: the ledger, heads, cached features
_LEDGER = "ledger.jsonl"
_MAX_PICTURES = 20_000
_MAX_LEDGER_BYTES = 64_000_000
_MAX_UNDO = 200
_SAFE = re.compile(r"[^A-Za-z0-9-]+")


class FrameKey(NamedTuple):
    """One frame of a session: a run, or a recording."""

    camera: str
    seq: int


@dataclass(frozen=True, slots=True)
class LabelChange:
    """One change of a label; `before` and `after` are class names, None for no label."""

    frame: FrameKey
    before: str | None
    after: str | None
    file: str  # name of the picture, in the folder of its class


class LabelFolder:
    """All methods that change something block on the disk; they may be called from any thread."""

    def __init__(self, folder: Path, session: str) -> None:
        """`session`: name of the run or recording whose frames are labelled; with it, frames of an earlier session that
        have the same number are other frames. Raises SagelinkError for a folder that cannot be written."""
        check_writable(folder)
        self.folder = folder
        self._session = session
        self._lock = threading.RLock()
        self._ledger: IO[str] | None = None
        self._labels: dict[FrameKey, tuple[str, str, str]] = {}  # class, file, hash of the content
        self._undo: list[LabelChange] = []
        self._added: list[str] = []  # classes of this session, also those without a picture: their buttons stay
        self._counts: dict[str, int] = {}
        self._read_ledger()
        self.count()

    @property
    def state_folder(self) -> Path:
        return self.folder / STATE

    def close(self) -> None:
        with self._lock:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    def label_of(self, frame: FrameKey) -> str | None:
        found = self._labels.get(frame)
        return found[0] if found else None

    def labelled(self) -> dict[FrameKey, str]:
        """The labels of this session's frames."""
        with self._lock:
            return {frame: found[0] for frame, found in self._labels.items()}

    def counts(self) -> dict[str, int]:
        """Pictures by class, as counted last; includes classes without a picture."""
        with self._lock:
            return dict.fromkeys(self._added, 0) | self._counts

    @property
    def last(self) -> LabelChange | None:
        """The change that `undo` takes back."""
        return self._undo[-1] if self._undo else None

    def count(self) -> dict[str, int]:
        """Counts the pictures on the disk again: the user may have added or removed some."""
        counts = {}
        for place in _class_folders(self.folder):
            counts[place.name] = sum(1 for _ in pictures_in(place))
        with self._lock:
            self._counts = {name: count for name, count in counts.items() if count}
        return self.counts()

    def add_class(self, name: str, known: Sequence[str] = ()) -> None:
        """Adds a class without a picture. `known`: further classes, such as those of the head. Raises UsageError."""
        with self._lock:
            names = [*dict.fromkeys([*known, *self.counts()])]
            if name in names:
                return
            check_class_name(name, names)
            self._added.append(name)

    def label(self, frame: FrameKey, name: str, group: str, jpeg: bytes | None, known: Sequence[str] = ()) -> None:
        """Labels a frame; a frame that has a label gets the new one instead. `jpeg`: its picture, None if it is no
        longer stored. Raises UsageError, SagelinkError when the disk fails; then nothing has changed."""
        with self._lock:
            self.add_class(name, known)
            before = self._labels.get(frame)
            if before is not None and before[0] == name:
                return
            if before is None and jpeg is None:
                raise UsageError("the full picture of this frame is no longer stored; accepted: a newer frame")
            if before is None and sum(self._counts.values()) >= _MAX_PICTURES:
                raise UsageError(f"{str(self.folder)!r} holds {_MAX_PICTURES} pictures; accepted: no more")
            file = before[1] if before else _file_name(frame, group, self._session)
            self._change(LabelChange(frame, before[0] if before else None, name, file), jpeg)
            self._undo = [*self._undo[-_MAX_UNDO + 1 :], LabelChange(frame, before[0] if before else None, name, file)]

    def undo(self) -> LabelChange:
        """Takes the last change back, and returns it. Raises UsageError when there is none."""
        with self._lock:
            if not self._undo:
                raise UsageError("nothing to undo: this session has labelled no picture")
            last = self._undo[-1]
            self._change(LabelChange(last.frame, last.after, last.before, last.file), None)
            self._undo.pop()
            return last

    def _change(self, change: LabelChange, jpeg: bytes | None) -> None:
        """Brings the picture where `change` wants it, then writes the line; takes the picture back if that fails."""
        source = None if change.before is None else self.folder / change.before / change.file
        target = None if change.after is None else self._class_folder(change.after) / change.file
        try:
            self._open_ledger()
            digest = self._labels[change.frame][2] if change.before is not None else _digest(jpeg or b"")
            ours = source is not None and _is_file_with(source, digest)
            if target is not None:
                content = source.read_bytes() if source is not None and ours else jpeg
                if content is None:
                    raise UsageError(f"the labelled picture {str(source)!r} was deleted or changed; it stays as it is")
                digest = _digest(content)
                make_private_folder(target.parent)
                write_new(target, content)
            try:
                self._write_line(change, digest)
            except BaseException:
                if target is not None:
                    target.unlink(missing_ok=True)
                raise
            if source is not None and ours:
                source.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it holds other pictures
                    source.parent.rmdir()
        except OSError as error:
            raise cannot_write(target or source or self.folder, error) from None
        self._set(change.frame, change.after, change.file, digest)
        for name, step in ((change.before, -1), (change.after, 1)):
            if name is not None and (step > 0 or ours):
                self._counts[name] = self._counts.get(name, 0) + step
                if self._counts[name] <= 0:
                    del self._counts[name]
                    if name not in self._added:
                        self._added.append(name)

    def _class_folder(self, name: str) -> Path:
        place = self.folder / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{str(place)!r} is no folder of this place; accepted: a folder for the class, or none")
        return place

    def _set(self, frame: FrameKey, name: str | None, file: str, digest: str) -> None:
        if name is None:
            self._labels.pop(frame, None)
        else:
            self._labels[frame] = (name, file, digest)

    def _open_ledger(self) -> None:
        """Raises UsageError while another process labels into this folder."""
        if self._ledger is not None:
            return
        path = self.state_folder / _LEDGER
        make_private_folder(path.parent)
        file = open_appending(path)
        try:
            lock(file.fileno())
        except BlockingIOError:
            file.close()
            raise UsageError(
                f"another process labels into {str(self.folder)!r}; end it, or set labels.folder"
            ) from None
        self._ledger = file
        self._read_ledger()
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):  # the machine lost power
            file.write("\n")
            file.flush()

    def _write_line(self, change: LabelChange, digest: str) -> None:
        assert self._ledger is not None
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "session": self._session,
            "camera": change.frame.camera,
            "seq": change.frame.seq,
            "before": change.before,
            "class": change.after,
            "file": change.file,
            "sha256": digest,
        }
        handle = self._ledger.fileno()
        size = os.fstat(handle).st_size
        data = json.dumps(line).encode() + b"\n"
        try:
            if os.write(handle, data) < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise

    def _read_ledger(self) -> None:
        """Takes over the labels of this session's frames; lines that cannot be read are left out."""
        path = self.state_folder / _LEDGER
        try:
            if path.stat().st_size > _MAX_LEDGER_BYTES:
                raise UsageError(f"ledger {str(path)!r} has more than {_MAX_LEDGER_BYTES} bytes; move it")
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_open(path, error) from None
        for text in lines:
            try:
                line = json.loads(text)
                if line["session"] != self._session:
                    continue
                frame = FrameKey(str(line["camera"]), int(line["seq"]))
                name, file, digest = line["class"], str(line["file"]), str(line["sha256"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if Path(file).name != file or (name is not None and fault_of_names([str(name)])):
                continue
            self._set(frame, None if name is None else str(name), file, digest)


def check_class_name(name: str, names: Sequence[str]) -> None:
    """Raises UsageError for a name that cannot be a class beside `names`."""
    if fault := fault_of_names([*names, name]):
        raise UsageError(fault)
    if len(name.encode()) > 200:
        raise UsageError(
            f"class name {name!r} has more than 200 bytes; accepted: a shorter name, because it is a folder"
        )
    if len(names) >= MAX_CLASSES:
        raise UsageError(f"{len(names)} classes; accepted: up to {MAX_CLASSES}")


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures of one class folder."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _class_folders(folder: Path) -> list[Path]:
    """Folders whose name can be that of a class."""
    try:
        found = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return []
    return [entry for entry in found if fault_of_names([entry.name]) is None]


def _file_name(frame: FrameKey, group: str, session: str) -> str:
    parts = [_SAFE.sub("-", part).strip("-")[:48] for part in (frame.camera, session, group)]
    return f"{'-'.join(part for part in parts if part)}_{frame.seq:05d}.jpg"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_file_with(path: Path, digest: str) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and _digest(path.read_bytes()) == digest
    except OSError:
        return False
