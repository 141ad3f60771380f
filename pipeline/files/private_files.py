"""Writes files and folders that only their owner can read: folders, new files, whole replacements, and lines.

New files have mode 0600 and new folders 0700; what exists keeps its mode. A new file never takes the place of another.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TEMPORARY = ".sagelink-"


def make_private_folder(path: Path) -> list[Path]:
    """Creates the folder and its missing parents; returns those that were missing, the innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing or [path]):
        folder.mkdir(0o700, exist_ok=True)
    return missing


class OutputFile(FileIO):
    """An unbuffered private file that is written whole or with an error, and knows whether it still has its name."""

    def __init__(self, path: Path, mode: str) -> None:
        """`mode`: `xb` for a new file, `rb+` for one that exists."""
        self._path = path
        super().__init__(path, mode, opener=_private)

    def write(self, data: ReadableBuffer, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size

    def check_present(self) -> None:
        """Raises FileNotFoundError when another file or none has its name: what is written would be lost."""
        try:
            present = os.path.samestat(self._path.stat(), os.fstat(self.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            present = False
        if not present:
            raise FileNotFoundError(errno.ENOENT, "it was deleted or moved while it was written", str(self._path))


def open_new(path: Path) -> OutputFile:
    """Creates a file. Raises FileExistsError if there is one."""
    return OutputFile(path, "xb")


def open_emptied(path: Path) -> OutputFile:
    """Opens a file and empties it, or creates it. Raises BlockingIOError while another process writes it like this."""
    try:
        file = OutputFile(path, "rb+")
    except FileNotFoundError:
        file = open_new(path)
    try:
        lock(file.fileno())
        file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


def open_appending(path: Path) -> TextIO:
    """Opens a text file for lines at its end; creates it if it is missing."""
    return open(path, "a", encoding="utf-8", opener=_private)


def lock(handle: int) -> bool:
    """Locks an open file until it is closed, or its process ends in any way. False where there are no locks. Raises
    BlockingIOError if it is locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks
            raise
        return False
    return True


def write_new(path: Path, data: bytes) -> None:
    """Writes a new file, whole or not at all."""
    file = open_new(path)
    try:
        with file:
            file.write(data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty file beside `path`. It takes the place of `path` when the body ends, and is deleted when the body
    fails: a reader finds the old content or the new one, never a part of it. What a killed process has left of `path`
    is removed first."""
    prefix, suffix = f"{_TEMPORARY}{path.stem[:40]}-", path.suffix[-16:]
    for left in path.parent.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"):
        _remove_abandoned(left)
    handle, unfinished, locked = _new_unfinished(prefix, suffix, path.parent)
    with open(handle, "rb") as file:
        try:
            yield unfinished
            if not locked:  # Windows renames no open file
                file.close()
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _new_unfinished(prefix: str, suffix: str, folder: Path) -> tuple[int, Path, bool]:
    """An open new file, and whether it is locked. Another process may remove it before it is: then it is made again."""
    while True:
        handle, name = mkstemp(prefix=prefix, suffix=suffix, dir=folder)
        unfinished = Path(name)
        try:
            locked = lock(handle)
            if unfinished.exists():
                return handle, unfinished, locked
        except BlockingIOError:  # the other process is about to remove it
            pass
        except BaseException:
            _discard(handle, unfinished)
            raise
        _discard(handle, unfinished)


def _discard(handle: int, unfinished: Path) -> None:
    os.close(handle)
    unfinished.unlink(missing_ok=True)


def _remove_abandoned(unfinished: Path) -> None:
    """Removes a file of `replacing` that no process writes any more."""
    with contextlib.suppress(OSError), unfinished.open("rb") as file:
        if lock(file.fileno()):
            unfinished.unlink()


def replace_text(path: Path, text: str) -> None:
    """Writes a text file in one step."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


class LineFile:
    """A new file of lines. Each line is written whole or not at all, also on a full disk or when the process dies."""

    def __init__(self, path: Path) -> None:
        self._file = open_new(path)
        self._size = 0

    def write(self, line: str) -> None:
        """Raises OSError; FileNotFoundError when the file has been deleted or moved."""
        self._file.check_present()
        data = line.encode() + b"\n"
        try:
            self._file.write(data)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.seek(self._file.truncate(self._size))
            raise
        self._size += len(data)

    def close(self) -> None:
        with self._file:
            self._file.check_present()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
