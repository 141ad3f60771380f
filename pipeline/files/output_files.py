"""Names of the files that Sagelink writes, and checks before it writes: nothing of the user's is ever replaced."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from sagelink.pipeline.errors import SagelinkError, UsageError

RESULTS, EVENTS, SUMMARY, PICTURES = "results.jsonl", "events.jsonl", "summary.json", "pictures"  # of a run
OPINIONS = "frigate.jsonl"  # of a run with events of Frigate
FRAMES, MESSAGES, CONFIG = "frames.jsonl", "messages.bin", "config.yaml"  # of a recording
TRUST = "trust.json"  # of a recording: what the run knew of its cameras' edge answers when it began
PARTS = "parts"  # folder of a recording that rotates: frames, messages and videos in a folder of each part
HEADS = "[0-9a-f]" * 32 + ".head"  # of a recording, as a pattern
REPORT, REPORT_PLOTS = "report.html", ("bits", "verdicts", "latency", "accuracy")  # of `sagelink report`
# Beside a run, kept from one run to the next.
EVENT_QUEUE, EVENT_PICTURES, PICTURE_QUEUE = "event-queue.sqlite", "event-pictures", "picture-queue.sqlite"
MARKER, RUNS = ".sagelink-run", "runs"  # mark of a run folder; its subfolder of earlier runs

MADE_BY = "Sagelink"  # in the metadata of plots, pages and videos
PLOT_MARK = b"Software\0" + MADE_BY.encode()  # of a PNG file

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM}


def is_recording(folder: Path) -> bool:
    """Whether a folder is a recording, whatever is in its files."""
    return (folder / FRAMES).is_file() or ((folder / PARTS).is_dir() and (folder / CONFIG).is_file())


def check_writable(folder: Path) -> None:
    """Raises UsageError if files cannot be written in the folder. The folder need not exist; no file stays behind."""
    try:
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            raise UsageError(f"output {str(folder)!r}: {str(existing)!r} is not a folder; accepted: a folder")
        TemporaryDirectory(dir=existing, prefix=".sagelink-").cleanup()
    except OSError as error:
        raise cannot_open(folder, error) from None


def check_room(path: Path, size_bytes: int) -> None:
    """Raises SagelinkError unless a file of this size fits beside `path`: long work must not end on a full disk."""
    try:
        with TemporaryFile(dir=path.parent, prefix=".sagelink-") as file:
            file.write(bytes(size_bytes))
    except OSError as error:
        raise cannot_open(path, error) from None


def check_output_file(path: Path, is_ours: Callable[[Path], bool], writer: str, sources: Iterable[Path] = ()) -> None:
    """Raises UsageError unless the file can be written without a loss.

    A file that exists must be empty, or one that `is_ours` recognises by its content. It must not be one of `sources`,
    whatever links lead to it. `writer`: the command that writes such files, for the message.
    """
    check_writable(path.parent)
    shown = f"output {str(path)!r}"
    accepted = f"accepted: a new file, or one that {writer} wrote before"
    try:
        if not path.exists():
            path.lstat()  # raises for a name that no file can have
            return
        if any(source.exists() and path.samefile(source) for source in sources):
            raise UsageError(f"{shown} is the source itself; {accepted}")
        if not path.is_file():
            raise UsageError(f"{shown} is {'a folder' if path.is_dir() else 'no regular file'}; {accepted}")
        if path.stat().st_size and not is_ours(path):
            raise UsageError(f"{shown} exists and {MADE_BY} did not write it; {accepted}; move it or choose a new name")
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_open(path, error) from None


def marked(mark: bytes) -> Callable[[Path], bool]:
    """Recognises files that hold `mark` in their first 8 KiB."""

    def is_ours(path: Path) -> bool:
        with path.open("rb") as file:
            return mark in file.read(8192)

    return is_ours


def with_keys(keys: Set[str]) -> Callable[[Path], bool]:
    """Recognises JSON files whose object has these keys."""

    def is_ours(path: Path) -> bool:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return False
        return isinstance(content, dict) and content.keys() >= keys

    return is_ours


def cannot_write(path: Path, error: Exception) -> SagelinkError:
    """The error of a command that fails while it writes: path and cause in one line."""
    return SagelinkError(_explain(path, error))


def cannot_open(path: Path, error: Exception) -> SagelinkError:
    """The error of an output that cannot be opened at the start: wrong use, unless the machine lacks a resource."""
    of_the_machine = isinstance(error, OSError) and error.errno in _OF_THE_MACHINE
    return (SagelinkError if of_the_machine else UsageError)(_explain(path, error))


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, FileExistsError):
        reason = f"a file with this name exists and {MADE_BY} did not write it; move it, or choose another folder"
    elif isinstance(error, BlockingIOError):
        reason = "another process writes it; accepted: another name, or end that process first"
    else:
        reason = getattr(error, "strerror", None) or str(error)
    named = getattr(error, "filename", None)
    if isinstance(named, bytes | str) and not Path(str(named)).name.startswith(".sagelink-"):
        path = Path(str(named))
    return f"output {str(path)!r} cannot be written: {reason}"
