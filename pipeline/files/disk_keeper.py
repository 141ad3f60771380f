"""Keeps the files of runs in one folder within an age and a size, and makes room on a full disk, oldest first."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sagelink.pipeline.quantities import RetentionLimit

log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: BaseException) -> bool:
    """Whether the disk or the user's quota has no room. PyAV's errors have a number too."""
    return getattr(error, "errno", None) in _FULL


class DiskKeeper:
    """The closed files of a folder: those that the run has finished, and those of earlier runs. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        patterns: Sequence[str],
        keep: RetentionLimit,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """`patterns`: of the closed files, relative to the folder, all of them ours; a folder is closed as a whole.
        `clock_s`: time of day, as of the files."""
        self._folder = folder
        self._patterns = patterns
        self._keep = keep
        self._clock_s = clock_s
        self._writing = True
        self.lock = threading.RLock()  # held while closed files are deleted or made
        self.lost = 0  # lines and pictures that the full disk did not take

    def tidy(self, open_files: Iterable[Path] = ()) -> None:
        """Deletes closed files that are too old, and the oldest beyond the size. `open_files` count towards it."""
        with self.lock:
            closed = self._closed()
            total = sum(size for _, size, _ in closed) + sum(_size(path) for path in open_files)
            for modified_s, size, path in closed:
                too_old = self._keep.age_s is not None and modified_s < self._clock_s() - self._keep.age_s
                if not too_old and (self._keep.size_bytes is None or total <= self._keep.size_bytes):
                    return
                self._delete(path)
                total -= size

    def attempt(self, write: Callable[[], None]) -> bool:
        """Calls `write`, which writes whole or not at all. On a full disk it deletes the oldest closed files and calls
        it again; returns False when none are left. Raises other errors of `write`."""
        with self.lock:
            while True:
                try:
                    write()
                except OSError as error:
                    if not is_full(error):
                        raise
                    if not self.make_room():
                        self.count_lost()
                        self._note(False)
                        return False
                else:
                    self._note(True)
                    return True

    def count_lost(self) -> None:
        """Counts a line or picture that the full disk did not take."""
        with self.lock:
            self.lost += 1

    def make_room(self) -> bool:
        """Deletes the oldest closed file; returns False if there is none."""
        with self.lock:
            closed = self._closed()
            if closed:
                self._delete(closed[0][2])
            return bool(closed)

    def _delete(self, path: Path) -> None:
        """Deletes a file or a closed folder, and the folders of an earlier run that are empty then."""
        if path.is_dir():
            for file in _files_in(path):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody has put a folder into it
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
        for folder in path.parents:
            if self._folder in (folder, folder.parent):
                return
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    def _note(self, writing: bool) -> None:
        if writing == self._writing:
            return
        self._writing = writing
        if writing:
            log.info("event=disk_has_room folder=%s lost=%d", self._folder, self.lost)
        else:
            log.warning("event=disk_full folder=%s: nothing is written until there is room", self._folder)

    def _closed(self) -> list[tuple[float, int, Path]]:
        """Time of the last change, size and path of each closed file or folder, oldest first."""
        found = []
        for path in {path for pattern in self._patterns for path in self._folder.glob(pattern)}:
            if path.is_symlink():
                continue
            files = _files_in(path) if path.is_dir() else [path]
            try:
                states = [file.lstat() for file in files]
            except FileNotFoundError:
                continue
            if states:
                found.append((max(state.st_mtime for state in states), sum(state.st_size for state in states), path))
        return sorted(found)


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder; those with the lines first, so that no line names a file that is gone."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    return sorted(files, key=lambda path: (".jsonl" not in path.name, path.name))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
