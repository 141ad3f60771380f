"""The folder of a run: refuses the folders of others, admits one run at a time, and keeps earlier runs in `runs/`.

The file `.sagelink-run` marks a folder as ours. Its lock says that a run writes the folder; the kernel releases it when
the process ends in any way. Its one line of JSON holds

    pid     the process that wrote the line
    start   when the newest run in the folder began, `2026-11-28T10-15-30Z`
    files   the names of the files of that run, as patterns
    moving  while these move to `runs/`: the name of the folder there
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sagelink.app.replay.recorded_config import COPIED, COPIED_HEADS
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.files.output_files import (
    CONFIG,
    EVENTS,
    FRAMES,
    HEADS,
    MARKER,
    MESSAGES,
    OPINIONS,
    PARTS,
    PICTURES,
    REPORT,
    REPORT_PLOTS,
    RESULTS,
    RUNS,
    SUMMARY,
    TRUST,
    cannot_open,
    check_writable,
    is_recording,
)
from sagelink.pipeline.files.private_files import lock, make_private_folder
from sagelink.pipeline.files.rotating_lines import part_patterns

_ROTATING = (RESULTS, EVENTS, OPINIONS)
PART_FILES = tuple(pattern for name in _ROTATING for pattern in part_patterns(name))
RUN_FILES = (*_ROTATING, *PART_FILES, SUMMARY, PICTURES)
RECORDING_FILES = (FRAMES, MESSAGES, PARTS, CONFIG, TRUST, *COPIED.values(), *COPIED_HEADS, HEADS)
_REPORT_FILES = (REPORT, *(f"{Path(REPORT).stem}-{name}.png" for name in REPORT_PLOTS))
_START = "%Y-%m-%dT%H-%M-%SZ"
_FOLDER_NAME = re.compile(r"[0-9TZ-]{20,30}")


class RunFolder:
    """A folder that this process has claimed for one run."""

    def __init__(self, path: Path, sources: Sequence[Path] = ()) -> None:
        """Claims the folder; it is created if it is missing. Raises UsageError for a folder that holds files and is not
        ours, that another run writes, or that is one of the `sources` or lies in one."""
        self.path = path
        self._created: list[Path] = []
        self._marker = -1
        self._new = False
        _check_apart(path, sources)
        check_writable(path)
        try:
            if path.exists() and not (path / MARKER).exists() and any(path.iterdir()):
                raise UsageError(
                    f"output {str(path)!r} holds files and is no folder of Sagelink; accepted: a new folder, an empty "
                    f"one, or one that an earlier run made (it holds {MARKER})"
                )
            self._created = make_private_folder(path)
            self._open_marker()
            self._state = self._read_state()
            self._check_kept(sources)
            self._write_state(self._state)
        except OSError as error:
            self.release()
            raise cannot_open(path, error) from None
        except UsageError:
            self.release()
            raise

    def begin(self, files: Iterable[str]) -> None:
        """Moves the earlier run to `runs/`. `files`: names of the files of the new run, as patterns.

        A process that dies while it moves leaves the rest to the next run: it goes on with the same folder. Raises
        SagelinkError.
        """
        try:
            self._move_earlier()
            self._write_state({"start": datetime.now(UTC).strftime(_START), "files": sorted(files)})
        except OSError as error:
            raise cannot_open(self.path, error) from None
        self._new, self._created = False, []

    def release(self) -> None:
        """Unlocks the folder. A folder that this process created, and that no run has begun in, is removed again."""
        with contextlib.suppress(OSError):
            if self._new and all(entry.name == MARKER for entry in self.path.iterdir()):
                (self.path / MARKER).unlink()
            for folder in self._created:
                folder.rmdir()
        self._new, self._created = False, []
        if self._marker >= 0:
            os.close(self._marker)
            self._marker = -1

    def _open_marker(self) -> None:
        path, flags = self.path / MARKER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        while True:
            try:
                self._marker, self._new = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
            except FileExistsError:
                self._marker, self._new = os.open(path, flags), False
            try:
                lock(self._marker)
            except BlockingIOError:
                self._new = False
                owner = self._read_state().get("pid", "that cannot be read from it")
                raise UsageError(
                    f"output {str(self.path)!r} is written by process {owner}; accepted: another folder, or end that "
                    "run first"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._marker), path.stat()):
                    return
            os.close(self._marker)  # a process that ended just now has removed it

    def _read_state(self) -> dict[str, Any]:
        """The marker's line; empty for one that cannot be read."""
        try:
            state = parse_json(os.pread(self._marker, 1 << 20, 0).split(b"\n")[0])
        except DocumentError:
            state = None
        return state if isinstance(state, dict) else {}

    def _write_state(self, state: dict[str, Any]) -> None:
        self._state = state | {"pid": os.getpid()}
        line = json.dumps(self._state).encode() + b"\n"
        os.pwrite(self._marker, line, 0)
        os.truncate(self._marker, len(line))

    def _earlier_files(self) -> list[Path]:
        """The files of the earlier run that are still in the folder."""
        patterns = self._state.get("files")
        if not isinstance(patterns, list):  # the marker is empty: the user made it, or the machine lost power
            recorded = (*RECORDING_FILES, "*-[0-9][0-9][0-9].ts") if is_recording(self.path) else ()
            patterns = [*RUN_FILES, *recorded]
        patterns = [*map(str, patterns), *_REPORT_FILES]
        return sorted(
            entry for entry in self.path.iterdir() if any(fnmatchcase(entry.name, pattern) for pattern in patterns)
        )

    def _check_kept(self, sources: Sequence[Path]) -> None:
        """Raises UsageError if a source is among the files that `begin` will move."""
        earlier = {entry.resolve() for entry in self._earlier_files()}
        for source in sources:
            resolved = source.resolve()
            if not earlier.isdisjoint((resolved, *resolved.parents)):
                raise UsageError(
                    f"source {str(source)!r} is part of the earlier run in the output folder {str(self.path)!r}; "
                    "accepted: another output folder"
                )

    def _move_earlier(self) -> None:
        files = self._earlier_files()
        if not files:
            return
        target = self._target(files)
        self._write_state(self._state | {"moving": target.name})
        make_private_folder(target)
        for file in files:
            file.rename(target / file.name)

    def _target(self, files: Sequence[Path]) -> Path:
        """The folder that the files move to: named after the start of their run, and free."""
        runs = self.path / RUNS
        begun = str(self._state.get("moving", ""))
        if _FOLDER_NAME.fullmatch(begun) and not any((runs / begun / file.name).exists() for file in files):
            return runs / begun
        start = str(self._state.get("start", ""))
        if not _FOLDER_NAME.fullmatch(start):
            oldest_s = min(file.lstat().st_mtime for file in files)
            start = datetime.fromtimestamp(oldest_s, UTC).strftime(_START)
        number, target = 1, runs / start
        while target.exists():
            number += 1
            target = runs / f"{start}-{number}"
        return target


def _check_apart(path: Path, sources: Sequence[Path]) -> None:
    """Raises UsageError if a source folder is the folder or holds it, whatever links lead there."""
    try:
        places = [place for place in (path.resolve(), *path.resolve().parents) if place.exists()]
    except OSError as error:
        raise cannot_open(path, error) from None
    for source in sources:
        if source.is_dir() and any(place.samefile(source) for place in places):
            where = "is" if path.exists() and path.samefile(source) else "lies in"
            raise UsageError(f"output {str(path)!r} {where} the source {str(source)!r}; accepted: a folder outside it")
