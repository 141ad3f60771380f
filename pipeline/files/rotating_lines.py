"""A file of lines that rotates: NAME.jsonl is written; a full one becomes NAME.000001.jsonl.zst, then 000002 ...

Reads such a set as one sequence of lines. A part that a killed run did not compress yet ends in `.jsonl`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from sagelink.pipeline.files.disk_keeper import DiskKeeper, is_full
from sagelink.pipeline.files.private_files import LineFile, replacing
from sagelink.pipeline.quantities import RetentionLimit

_COMPRESSED = ".zst"
_CHUNK_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 26


def part_patterns(name: str) -> tuple[str, ...]:
    """Patterns of the closed parts of a file such as `results.jsonl`."""
    stem, suffix = name.split(".")
    return f"{stem}.[0-9]*.{suffix}", f"{stem}.[0-9]*.{suffix}{_COMPRESSED}"


class RotatingLines:
    """Writes whole lines. Without limits it is one file."""

    def __init__(
        self,
        path: Path,
        rotate: RetentionLimit | None = None,
        keeper: DiskKeeper | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: a new file. `rotate`: a new file begins at this age or size. `keeper`: deletes old files; with it, a
        full disk is no error, and lines without room are counted. Raises OSError."""
        self._path = path
        self._rotate = rotate or RetentionLimit()
        self._keeper = keeper
        self._lock: contextlib.AbstractContextManager[object] = keeper.lock if keeper else contextlib.nullcontext()
        self._clock_s = clock_s
        self._number = max(_parts(path.parent, path.name), default=0)
        self._lines = LineFile(path)
        self._bytes = 0
        self._began_s = clock_s()

    def write(self, line: str) -> None:
        """Raises OSError; FileNotFoundError when the file has been deleted or moved."""
        size = len(line.encode()) + 1
        if self._bytes and self._is_due(size):
            self._begin_next()
        if self._keeper is None:
            self._lines.write(line)
        elif not self._keeper.attempt(lambda: self._lines.write(line)):
            return
        self._bytes += size

    def close(self) -> None:
        self._lines.close()

    def _is_due(self, further_bytes: int) -> bool:
        limit = self._rotate
        return (limit.size_bytes is not None and self._bytes + further_bytes > limit.size_bytes) or (
            limit.age_s is not None and self._clock_s() - self._began_s >= limit.age_s
        )

    def _begin_next(self) -> None:
        with self._lock:  # another file of lines may make room meanwhile
            self._close_part()
        if self._keeper is not None:
            self._keeper.tidy([self._path])

    def _close_part(self) -> None:
        self._lines.close()
        self._number += 1
        stem, suffix = self._path.name.split(".")
        part = self._path.with_name(f"{stem}.{self._number:06d}.{suffix}")
        self._path.rename(part)
        self._lines = LineFile(self._path)  # an empty file needs no room
        self._bytes, self._began_s = 0, self._clock_s()
        try:
            compress(part)
        except OSError as error:
            if self._keeper is None or not is_full(error):
                raise


def compress(part: Path) -> None:
    """Replaces a closed part by its compressed form, in one step. Raises OSError; then the part stays."""
    target = part.with_name(part.name + _COMPRESSED)
    with part.open("rb") as source, replacing(target) as unfinished, unfinished.open("wb") as file:
        zstandard.ZstdCompressor(level=6).copy_stream(source, file)
    part.unlink()


def read_lines(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """All complete lines of a set, oldest first, each with the place that it came from, for messages.

    Raises OSError, and ValueError for a part that is not text or not compressed by zstd.
    """
    for path in (*_parts(folder, name).values(), folder / name):
        for number, line in enumerate(_lines_of(path), 1):
            yield f"{path}:{number}", line


def last_lines(folder: Path, name: str, count: int) -> list[str]:
    """The last complete lines of a set; none without one. What cannot be read is left out."""
    lines: list[str] = []
    for path in (folder / name, *reversed(_parts(folder, name).values())):
        if len(lines) >= count:
            break
        with contextlib.suppress(OSError, ValueError):
            lines = [*deque(_lines_of(path), count - len(lines)), *lines]
    return lines


def _lines_of(path: Path) -> Iterator[str]:
    """The complete lines of a file, with their ends."""
    with path.open("rb") as file:
        compressed = path.name.endswith(_COMPRESSED)
        source = zstandard.ZstdDecompressor().stream_reader(file) if compressed else file
        rest = b""
        try:
            while chunk := source.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode() + "\n"
                if len(rest) > _MAX_LINE_BYTES:
                    raise ValueError(f"a line of more than {_MAX_LINE_BYTES} bytes")
        except zstandard.ZstdError as error:
            raise ValueError(f"not compressed by zstd: {error}") from None


def _parts(folder: Path, name: str) -> dict[int, Path]:
    """The closed parts of a set by number, in order. The compressed form of a part counts, if it has both."""
    stem, suffix = name.split(".")
    pattern = re.compile(rf"{re.escape(stem)}\.([0-9]{{6,9}})\.{re.escape(suffix)}(\.zst)?")
    found: dict[int, Path] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            if match := pattern.fullmatch(path.name):
                found[int(match[1])] = path
    return dict(sorted(found.items()))
